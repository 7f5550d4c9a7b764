#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>
#include <unordered_set>

#include "core/base/atomic_writer.h"
#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/utf8.h"
#include "core/format/safetensors.h"

namespace qb {
namespace {

std::string json_text(const std::filesystem::path& path, const std::string& text) {
  if (!is_utf8(text)) throw InternalError(fmt::format("{}: {} is not UTF-8", path.string(), qb::quoted(text)));
  return nlohmann::json(text).dump();
}

}  // namespace

uint64_t PlannedTensor::bytes() const {
  int64_t count = 1;
  for (int64_t size : shape) count *= size;
  return static_cast<uint64_t>(count * block_bytes(dtype));
}

void write_safetensors(const std::filesystem::path& path, const std::vector<PlannedTensor>& tensors, const std::map<std::string, std::string>& metadata,
                       const std::function<void(uint64_t)>& written) {
  std::unordered_set<std::string> names{"__metadata__"};
  for (const PlannedTensor& tensor : tensors)
    if (!names.insert(tensor.name).second)
      throw InternalError(fmt::format("{}: tensor {} given twice, or a reserved name", path.string(), qb::quoted(tensor.name)));

  std::vector<size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return block_bytes(tensors[a].dtype) > block_bytes(tensors[b].dtype); });
  std::vector<uint64_t> offsets(tensors.size());
  uint64_t end = 0;
  for (size_t i : order) {
    offsets[i] = end;
    end += tensors[i].bytes();
  }

  auto described = metadata;
  described["format"] = "pt";  // transformers checks it
  std::string header = "{\"__metadata__\":{";
  for (const auto& [key, value] : described)
    header += fmt::format("{}{}:{}", header.back() == '{' ? "" : ",", json_text(path, key), json_text(path, value));
  header += '}';
  for (size_t i = 0; i < tensors.size(); ++i) {
    const PlannedTensor& tensor = tensors[i];
    header += fmt::format(",{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}", json_text(path, tensor.name), name_of(tensor.dtype),
                          fmt::join(tensor.shape, ","), offsets[i], offsets[i] + tensor.bytes());
  }
  header += '}';
  header.append((8 - header.size() % 8) % 8, ' ');  // data start aligned

  const uint64_t length = header.size();
  AtomicWriter writer(path);
  writer.write(std::as_bytes(std::span(&length, 1)));
  writer.write(header);
  for (size_t i : order) {
    const PlannedTensor& planned = tensors[i];
    const at::Tensor made = planned.make();
    if (!made.defined() || made.layout() != at::kStrided || made.is_meta())
      throw InternalError(fmt::format("{}: tensor {} has no plain data", path.string(), qb::quoted(planned.name)));
    if (dtype_of(made.scalar_type()) != planned.dtype || made.sizes() != at::IntArrayRef(planned.shape))
      throw InternalError(fmt::format("{}: tensor {} is {} [{}], planned was {} [{}]", path.string(), qb::quoted(planned.name), at::toString(made.scalar_type()),
                                      fmt::join(made.sizes(), ", "), name_of(planned.dtype), fmt::join(planned.shape, ", ")));
    const at::Tensor plain = made.detach().to(at::kCPU).contiguous().resolve_conj().resolve_neg();
    writer.write(std::span(static_cast<const std::byte*>(plain.const_data_ptr()), plain.nbytes()));
    if (written) written(plain.nbytes());
  }
  writer.commit();
}

void write_safetensors(const std::filesystem::path& path, const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::vector<PlannedTensor> planned;
  for (const auto& [name, tensor] : tensors) {
    if (!tensor.defined() || tensor.layout() != at::kStrided || tensor.is_meta())
      throw InternalError(fmt::format("{}: tensor {} has no plain data", path.string(), qb::quoted(name)));
    planned.push_back({name, dtype_of(tensor.scalar_type()), tensor.sizes().vec(), [&tensor] { return tensor; }});
  }
  write_safetensors(path, planned, metadata, {});
}

std::vector<std::string> write_sharded_safetensors(const std::filesystem::path& folder, const std::vector<PlannedTensor>& tensors, uint64_t limit,
                                                   const std::function<void(uint64_t)>& written) {
  std::vector<std::vector<PlannedTensor>> shards(1);
  uint64_t total = 0, held = 0;
  for (const PlannedTensor& tensor : tensors) {
    if (held > 0 && held + tensor.bytes() > limit) {
      shards.emplace_back();
      held = 0;
    }
    held += tensor.bytes();
    total += tensor.bytes();
    shards.back().push_back(tensor);
  }
  if (shards.size() == 1) {
    write_safetensors(folder / "model.safetensors", shards.front(), {}, written);
    return {"model.safetensors"};
  }
  std::vector<std::string> files;
  nlohmann::ordered_json index = {{"metadata", {{"total_size", total}}}, {"weight_map", nlohmann::ordered_json::object()}};
  std::map<std::string, std::string> weight_map;
  for (size_t i = 0; i < shards.size(); ++i) {
    files.push_back(fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size()));
    for (const PlannedTensor& tensor : shards[i]) weight_map[tensor.name] = files.back();
    write_safetensors(folder / files.back(), shards[i], {}, written);
  }
  for (const auto& [name, file] : weight_map) index["weight_map"][name] = file;
  write_atomically(folder / "model.safetensors.index.json", index.dump(2) + "\n");
  files.push_back("model.safetensors.index.json");
  return files;
}

}  // namespace qb
