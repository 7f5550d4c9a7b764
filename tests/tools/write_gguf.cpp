// Writes a model as a GGUF file: write_gguf MODEL OUT [f32|f16|bf16]
// or, one process for many: write_gguf -, with lines "MODEL<tab>OUT<tab>READER" on standard input, each answered by a JSON line: {} or
// {"error": …}. READER: llama.cpp, or any: what the format can say.
#include <iostream>

#include "core/base/error.h"
#include "core/model/gguf_export.h"

int main(int argc, char** argv) {
  if (argc == 2 && std::string(argv[1]) == "-") {
    for (std::string line; std::getline(std::cin, line);) {
      nlohmann::json answer = nlohmann::json::object();
      try {
        const size_t first = line.find('\t'), second = line.find('\t', first + 1);
        const auto reader = line.substr(second + 1) == "any" ? qb::GgufReader::any : qb::GgufReader::llama_cpp;
        qb::write_gguf_floats(*qb::Model::open(line.substr(0, first)), line.substr(first + 1, second - first - 1), qb::DType::f32, reader);
      } catch (const std::exception& error) {
        answer["error"] = error.what();
      }
      std::cout << answer.dump() << std::endl;
    }
    return 0;
  }
  if (argc < 3) return 2;
  try {
    const std::string type = argc > 3 ? argv[3] : "f32";
    qb::write_gguf_floats(*qb::Model::open(argv[1]), argv[2], type == "f16" ? qb::DType::f16 : type == "bf16" ? qb::DType::bf16 : qb::DType::f32);
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
  return 0;
}
