// Reads every tensor of a safetensors file, model folder or GGUF file and writes them all, as float32 or as stored where
// plain, to one safetensors file: dump_tensors IN OUT. For conformance tests.
#include <ATen/ATen.h>

#include <iostream>

#include "core/base/error.h"
#include "core/format/gguf.h"
#include "core/format/safetensors.h"
#include "core/format/weights.h"

int main(int argc, char** argv) try {
  if (argc != 3) throw qb::InputError("usage: dump_tensors IN OUT");
  const std::filesystem::path in = argv[1];
  const qb::TensorSourcePtr source = in.extension() == ".gguf" ? qb::TensorSourcePtr(qb::GgufFile::open(in)) : qb::open_weights(in);
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const auto& info : source->tensors()) tensors.emplace_back(info.name, source->read(info.name));
  qb::write_safetensors(argv[2], tensors);
  return 0;
} catch (const qb::Error& e) {
  std::cerr << e.what() << '\n';
  return 1;
}
