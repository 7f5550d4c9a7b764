// Packs and unpacks bit codes: pack_codes IN OUT, both safetensors. Every "codes.B" of IN (uint8 [rows, n], B bits) gives
// "words.B" (int32) and "back.B" (uint8, unpacked again) in OUT. For conformance tests.
#include <ATen/ATen.h>

#include <iostream>

#include "core/base/error.h"
#include "core/format/pack.h"
#include "core/format/safetensors.h"

int main(int argc, char** argv) try {
  if (argc != 3) throw qb::InputError("usage: pack_codes IN OUT");
  const auto source = qb::open_safetensors(argv[1]);
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const auto& info : source->tensors()) {
    const std::string bits = info.name.substr(info.name.find('.') + 1);
    const at::Tensor codes = source->read(info.name), words = qb::pack_codes(codes, std::stoi(bits));
    tensors.emplace_back("words." + bits, words);
    tensors.emplace_back("back." + bits, qb::unpack_codes(words, std::stoi(bits), codes.size(1)));
  }
  qb::write_safetensors(argv[2], tensors);
  return 0;
} catch (const std::exception& e) {
  std::cerr << e.what() << '\n';
  return 1;
}
