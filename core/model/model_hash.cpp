#include "core/model/model_info.h"

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/format/gguf.h"
#include "core/format/weights.h"
#include "core/model/model_files.h"

namespace qb {

std::string model_hash(const std::filesystem::path& path) {
  const ModelFiles files = locate_model(path);
  Hasher hasher;
  TensorSourcePtr source;
  if (files.gguf) {
    auto gguf = GgufFile::open(files.weights);
    auto file = MappedFile::open(gguf->files().front());
    uint64_t header = file->size();
    for (const TensorInfo& tensor : gguf->tensors())
      if (tensor.file == 0) header = std::min(header, tensor.offset);
    hasher.update(file->bytes(0, header, "header"));
    source = gguf;
  } else {
    hasher.update(read_text(files.config, 1 << 26));
    source = open_weights(files.weights);
  }
  std::vector<std::shared_ptr<const MappedFile>> mapped;
  for (const auto& file : source->files()) mapped.push_back(MappedFile::open(file));

  // Enough places of each tensor that a retrained or re-quantized one differs; never the whole of a 100 GB model.
  constexpr uint64_t kSamples = 16, kSampleBytes = 256;
  for (const TensorInfo& tensor : source->tensors()) {
    hasher.update(tensor.name);
    hasher.update(std::string(name_of(tensor.dtype)));
    for (int64_t size : tensor.shape) hasher.update(size);
    hasher.update(static_cast<int64_t>(tensor.bytes));
    auto bytes = mapped[tensor.file]->bytes(tensor.offset, tensor.bytes, tensor.name);
    if (bytes.size() <= kSamples * kSampleBytes) {
      hasher.update(bytes);
      continue;
    }
    const uint64_t step = (bytes.size() - kSampleBytes) / (kSamples - 1);
    for (uint64_t i = 0; i < kSamples; ++i) hasher.update(bytes.subspan(i * step, kSampleBytes));
  }
  return hasher.hex();
}

}  // namespace qb
