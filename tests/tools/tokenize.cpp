// Conformance tool: tokenize MODEL [--no-special] < JSON lines. Each line is a string (or {"bytes": "hex"}); prints its
// ids, their text decoded with and without special tokens. A line {"model": "path"} goes on with another model.
#include <fstream>
#include <iostream>

#include "core/base/error.h"
#include "core/text/tokenizer.h"

namespace {

std::string from_hex(const std::string& hex) {
  std::string out;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) out += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  return out;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::cerr << "usage: tokenize MODEL [--no-special]\n";
    return 2;
  }
  const bool add_special = !(argc > 2 && std::string(argv[2]) == "--no-special");
  std::ios::sync_with_stdio(false);
  try {
    std::string path = argv[1], line;
    auto tokenizer = qb::Tokenizer::load(path);
    while (std::getline(std::cin, line)) {
      const auto value = nlohmann::json::parse(line);
      if (value.is_object() && value.contains("model")) {
        const auto next = value.at("model").get<std::string>();
        if (next != path) tokenizer = qb::Tokenizer::load(path = next);
        continue;
      }
      const std::string text = value.is_string() ? value.get<std::string>() : from_hex(value.at("bytes").get<std::string>());
      const auto ids = tokenizer->encode(text, add_special);
      std::cout << nlohmann::json{{"ids", ids}, {"text", tokenizer->decode(ids, false)}, {"plain", tokenizer->decode(ids, true)}}.dump() << '\n';
    }
  } catch (const qb::Error& e) {
    std::cerr << e.what() << '\n';
    return 1;
  }
  return 0;
}
