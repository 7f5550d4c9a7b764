// Opens model files and prints one JSON object a line for each: {"tensors": {name: [dtype, shape]}} or {"error": text}.
// open_files PATH...  Exit status 0 unless something else than an InputError came up. For conformance tests.
#include <ATen/ATen.h>

#include <iostream>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/format/gguf.h"
#include "core/format/weights.h"

int main(int argc, char** argv) try {
  for (int i = 1; i < argc; ++i) {
    const std::filesystem::path path = argv[i];
    nlohmann::json line;
    try {
      const qb::TensorSourcePtr source = path.extension() == ".gguf" ? qb::TensorSourcePtr(qb::GgufFile::open(path)) : qb::open_weights(path);
      line["tensors"] = nlohmann::json::object();
      for (const auto& info : source->tensors()) {
        line["tensors"][info.name] = {qb::name_of(info.dtype), info.shape};
        (void)source->read(info.name);
      }
    } catch (const qb::InputError& e) {
      line = {{"error", e.what()}};
    }
    std::cout << line.dump() << '\n';
  }
  return 0;
} catch (const std::exception& e) {
  std::cerr << e.what() << '\n';
  return 1;
}
