#include "core/format/imatrix.h"

#include <fmt/format.h>

#include <cstring>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/utf8.h"
#include "core/format/gguf_write.h"

namespace qb {
namespace {

constexpr std::string_view kSums = ".in_sum2", kCounts = ".counts";

bool is_gguf(const std::filesystem::path& path) {
  const auto file = MappedFile::open(path);
  return file->size() >= 4 && std::memcmp(file->bytes().data(), "GGUF", 4) == 0;
}

// The form before GGUF's, little-endian int32 and float32: the number of entries; of each the length of its name, the name, how many windows
// it is of, how many values, and the mean squares times those windows; then the number of windows, and the text's name behind its length.
ImportanceMatrix read_older(const std::filesystem::path& path) {
  const auto file = MappedFile::open(path);
  uint64_t at = 0;
  const auto fail = [&](const std::string& what) { return InputError(fmt::format("{}: no importance matrix, neither a GGUF file nor llama.cpp's older form: {} (at byte {})", path.string(), what, at)); };
  const auto bytes = [&](uint64_t length, const char* what) {
    if (length > file->size() - at) throw fail(fmt::format("{} takes {} bytes, but {} are left", what, length, file->size() - at));
    const auto found = file->bytes(at, length, what);
    at += length;
    return found;
  };
  const auto number = [&](const char* what, int32_t most) {
    int32_t value;
    std::memcpy(&value, bytes(sizeof value, what).data(), sizeof value);
    if (value < 1 || value > most) throw fail(fmt::format("{} is {}, expected 1 to {}", what, value, most));
    return value;
  };
  ImportanceMatrix matrix;
  const int32_t entries = number("the number of entries", 1 << 20);
  for (int32_t i = 0; i < entries; ++i) {
    const auto text = bytes(static_cast<uint64_t>(number("a name's length", 256)), "a name");
    const std::string name(reinterpret_cast<const char*>(text.data()), text.size());
    const int32_t windows = number("a number of windows", INT32_MAX), values = number("a number of values", INT32_MAX);
    at::Tensor sums = at::empty({1, values}, at::kFloat);
    const auto stored = bytes(static_cast<uint64_t>(values) * sizeof(float), "an entry's values");
    std::memcpy(sums.mutable_data_ptr(), stored.data(), stored.size());
    if (!sums.ge(0).logical_and_(sums.isfinite()).all().item<bool>()) throw fail(fmt::format("entry {} has values that are negative or no numbers", qb::quoted(name)));
    if (!matrix.entries.emplace(name, ImportanceMatrix::Entry{sums, at::full({1}, static_cast<double>(windows), at::kFloat)}).second) throw fail(fmt::format("entry {} appears twice", qb::quoted(name)));
  }
  if (at == file->size()) return matrix;  // the oldest ones end here
  matrix.chunk_count = number("the number of windows", INT32_MAX);
  if (at == file->size()) return matrix;
  const auto text = bytes(static_cast<uint64_t>(number("the length of the text's name", 1 << 16)), "the text's name");
  matrix.datasets = {std::string(reinterpret_cast<const char*>(text.data()), text.size())};
  if (at != file->size()) throw fail(fmt::format("{} bytes follow", file->size() - at));
  return matrix;
}

}  // namespace

void write_imatrix(const std::filesystem::path& path, const ImportanceMatrix& matrix) {
  GgufMetadata metadata;
  metadata.text("general.type", "imatrix");
  metadata.texts("imatrix.datasets", matrix.datasets);
  metadata.u32("imatrix.chunk_count", matrix.chunk_count);
  metadata.u32("imatrix.chunk_size", matrix.chunk_size);
  std::vector<TensorInfo> tensors;
  std::vector<at::Tensor> values;
  for (const auto& [name, entry] : matrix.entries) {
    const bool fits = entry.sums.defined() && entry.counts.defined() && entry.sums.dim() == 2 && entry.sums.size(0) > 0 && entry.counts.sizes() == entry.sums.sizes().slice(0, 1);
    if (!fits) throw InternalError(fmt::format("{}: entry {}: no sums [matrices, in] with counts [matrices]", path.string(), qb::quoted(name)));
    const int64_t matrices = entry.sums.size(0);
    tensors.push_back({name + std::string(kSums), DType::f32, {matrices, entry.sums.size(1)}});
    tensors.push_back({name + std::string(kCounts), DType::f32, {matrices, 1}});
    for (const at::Tensor& part : {entry.sums, entry.counts}) values.push_back(part.to(at::kCPU, at::kFloat).contiguous());
  }
  GgufWriter writer(path, metadata, tensors);
  for (size_t i = 0; i < tensors.size(); ++i) writer.write(tensors[i].name, {static_cast<const std::byte*>(values[i].const_data_ptr()), values[i].nbytes()});
  writer.commit();
}

ImportanceMatrix read_imatrix(const std::filesystem::path& path) {
  if (!is_gguf(path)) return read_older(path);
  const auto file = GgufFile::open(path);
  const auto type = file->text("general.type");
  if (type != "imatrix") throw InputError(fmt::format("{}: key \"general.type\" is {}, expected \"imatrix\"", path.string(), type ? qb::quoted(*type) : "missing"));
  ImportanceMatrix matrix;
  if (const auto* datasets = file->texts("imatrix.datasets")) matrix.datasets = *datasets;
  matrix.chunk_count = file->integer("imatrix.chunk_count").value_or(0);
  matrix.chunk_size = file->integer("imatrix.chunk_size").value_or(0);
  const auto fail = [&](const std::string& name, const std::string& what) { return InputError(fmt::format("{}: tensor {}: {}", path.string(), qb::quoted(name), what)); };
  const auto read = [&](const TensorInfo& info) {
    if (info.dtype != DType::f32) throw fail(info.name, fmt::format("is {}, expected F32", name_of(info.dtype)));
    const at::Tensor value = file->read(info.name).clone();
    if (value.numel() > 0 && !value.ge(0).logical_and_(value.isfinite()).all().item<bool>()) throw fail(info.name, "has values that are negative or no numbers");
    return value;
  };
  for (const TensorInfo& info : file->tensors()) {
    if (info.name.ends_with(kCounts)) {
      const std::string sums = info.name.substr(0, info.name.size() - kCounts.size()) + std::string(kSums);
      if (!file->contains(sums)) throw fail(info.name, fmt::format("there is no {} beside it", qb::quoted(sums)));
      continue;
    }
    if (!info.name.ends_with(kSums)) throw fail(info.name, "expected names that end in .in_sum2 or .counts");
    const std::string name = info.name.substr(0, info.name.size() - kSums.size());
    const TensorInfo* counts = file->find(name + std::string(kCounts));
    if (!counts) throw fail(info.name, fmt::format("there is no {} beside it", qb::quoted(name + std::string(kCounts))));
    if (info.shape.empty() || info.shape.size() > 2) throw fail(info.name, fmt::format("has {} dimensions, expected [matrices, in]", info.shape.size()));
    const int64_t matrices = info.shape.size() == 2 ? info.shape[0] : 1;
    if (counts->elements() != matrices) throw fail(counts->name, fmt::format("has {} values, expected one for each of the {} matrices", counts->elements(), matrices));
    matrix.entries[name] = {read(info).reshape({matrices, info.shape.back()}), read(*counts).reshape({matrices})};
  }
  return matrix;
}

}  // namespace qb
