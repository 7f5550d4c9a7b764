#include "core/format/imatrix.h"

#include <fmt/format.h>

#include "core/base/error.h"
#include "core/base/utf8.h"
#include "core/format/gguf_write.h"

namespace qb {
namespace {

constexpr std::string_view kSums = ".in_sum2", kCounts = ".counts";

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
