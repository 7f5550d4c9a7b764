#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>
#include <unordered_set>

#include "core/base/atomic_writer.h"
#include "core/base/error.h"
#include "core/base/utf8.h"
#include "core/format/safetensors.h"

namespace qb {
namespace {

std::string json_text(const std::filesystem::path& path, const std::string& text) {
  if (!is_utf8(text)) throw InternalError(fmt::format("{}: {} is not UTF-8", path.string(), qb::quoted(text)));
  return nlohmann::json(text).dump();
}

}  // namespace

void write_safetensors(const std::filesystem::path& path, const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::unordered_set<std::string> names{"__metadata__"};
  for (const auto& [name, tensor] : tensors) {
    if (!names.insert(name).second) throw InternalError(fmt::format("{}: tensor {} given twice, or a reserved name", path.string(), qb::quoted(name)));
    if (!tensor.defined() || tensor.layout() != at::kStrided || tensor.is_meta())
      throw InternalError(fmt::format("{}: tensor {} has no plain data", path.string(), qb::quoted(name)));
  }

  std::vector<size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return tensors[a].second.element_size() > tensors[b].second.element_size(); });
  std::vector<uint64_t> offsets(tensors.size());
  uint64_t end = 0;
  for (size_t i : order) {
    offsets[i] = end;
    end += tensors[i].second.nbytes();
  }

  auto described = metadata;
  described["format"] = "pt";  // transformers checks it
  std::string header = "{\"__metadata__\":{";
  for (const auto& [key, value] : described)
    header += fmt::format("{}{}:{}", header.back() == '{' ? "" : ",", json_text(path, key), json_text(path, value));
  header += '}';
  for (size_t i = 0; i < tensors.size(); ++i) {
    const auto& [name, tensor] = tensors[i];
    header += fmt::format(",{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}", json_text(path, name),
                          name_of(dtype_of(tensor.scalar_type())), fmt::join(tensor.sizes(), ","), offsets[i], offsets[i] + tensor.nbytes());
  }
  header += '}';
  header.append((8 - header.size() % 8) % 8, ' ');  // data start aligned

  const uint64_t length = header.size();
  AtomicWriter writer(path);
  writer.write(std::as_bytes(std::span(&length, 1)));
  writer.write(header);
  for (size_t i : order) {
    const at::Tensor plain = tensors[i].second.detach().to(at::kCPU).contiguous().resolve_conj().resolve_neg();
    writer.write(std::span(static_cast<const std::byte*>(plain.const_data_ptr()), plain.nbytes()));
  }
  writer.commit();
}

}  // namespace qb
