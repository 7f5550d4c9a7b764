// Takes a GGUF file apart and puts it together again: rewrite_gguf IN.gguf OUT.gguf PARTS.safetensors. Block formats go through
// codes and scales, which PARTS gets as NAME.codes, .d, .m, .scales, .mins. For conformance tests.
#include <iostream>

#include "core/base/error.h"
#include "core/format/ggml_pack.h"
#include "core/format/gguf_write.h"
#include "core/format/safetensors.h"

int main(int argc, char** argv) try {
  if (argc != 4) throw qb::InputError("usage: rewrite_gguf IN.gguf OUT.gguf PARTS.safetensors");
  const auto file = qb::GgufFile::open(argv[1]);
  qb::GgufMetadata metadata;
  for (const auto& [key, value] : file->metadata()) metadata.add(key, value);
  qb::GgufWriter writer(argv[2], metadata, file->tensors());
  std::vector<std::pair<std::string, at::Tensor>> out;
  for (const auto& info : file->tensors()) {
    at::Tensor bytes = file->bytes(info.name);
    if (qb::is_block_quantized(info.dtype)) {
      const qb::GgmlParts parts = qb::unpack_ggml(info.dtype, bytes);
      bytes = qb::pack_ggml(info.dtype, parts);
      for (const auto& [part, tensor] : std::initializer_list<std::pair<const char*, at::Tensor>>{
               {".codes", parts.codes}, {".d", parts.d}, {".m", parts.m}, {".scales", parts.scales}, {".mins", parts.mins}})
        if (tensor.defined()) out.emplace_back(info.name + part, tensor);
    } else if (info.dtype == qb::DType::f32 || info.dtype == qb::DType::f16 || info.dtype == qb::DType::bf16) {
      bytes = qb::pack_ggml_floats(info.dtype, file->read(info.name).to(at::kFloat).reshape({bytes.size(0), -1}));
    }
    const auto* data = static_cast<const std::byte*>(bytes.const_data_ptr());
    for (int64_t row = 0; row < bytes.size(0); ++row) writer.write(info.name, {data + row * bytes.size(1), static_cast<size_t>(bytes.size(1))});
  }
  writer.commit();
  qb::write_safetensors(argv[3], out);
  return 0;
} catch (const std::exception& e) {
  std::cerr << e.what() << '\n';
  return 1;
}
