#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <set>

#include "core/base/atomic_writer.h"
#include "core/base/error.h"
#include "core/format/safetensors.h"

namespace qb {

void write_safetensors(const std::filesystem::path& path, const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header;
  auto& meta = header["__metadata__"];
  meta["format"] = "pt";  // transformers checks it
  for (const auto& [key, value] : metadata) meta[key] = value;
  uint64_t offset = 0;
  for (const auto& [name, tensor] : tensors) {
    if (header.contains(name)) throw InternalError(fmt::format("{}: tensor \"{}\" given twice", path.string(), name));
    header[name] = {{"dtype", name_of(dtype_of(tensor.scalar_type()))},
                    {"shape", std::vector<int64_t>(tensor.sizes().begin(), tensor.sizes().end())},
                    {"data_offsets", {offset, offset + tensor.nbytes()}}};
    offset += tensor.nbytes();
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');  // data stays aligned
  const uint64_t length = text.size();
  AtomicWriter writer(path);
  writer.write(std::as_bytes(std::span(&length, 1)));
  writer.write(text);
  for (const auto& [name, tensor] : tensors) {
    const at::Tensor plain = tensor.to(at::kCPU).contiguous();
    writer.write(std::span(static_cast<const std::byte*>(plain.data_ptr()), plain.nbytes()));
  }
  writer.commit();
}

}  // namespace qb
