#include "core/format/weights.h"

#include <fmt/format.h>

#include <cstring>
#include <map>

#include "core/base/error.h"
#include "core/base/utf8.h"
#include "core/format/file_tensors.h"
#include "core/format/mapped_tensor.h"
#include "core/format/safetensors.h"
#include "core/format/torch_pickle.h"
#include "core/format/zip_directory.h"

namespace qb {
namespace fs = std::filesystem;
namespace {

class TorchSource final : public FileTensors {
 public:
  at::Tensor read(const std::string& name) const override {
    const TensorInfo& info = require(name);
    const auto view = views_.find(name);
    if (view == views_.end()) return view_mapped(map_of(info), info);
    TensorInfo flat = info;
    flat.shape = {static_cast<int64_t>(view->second.span)};
    flat.bytes = view->second.span * static_cast<uint64_t>(block_bytes(info.dtype));
    return view_mapped(map_of(info), flat).as_strided(info.shape, view->second.stride).contiguous();
  }

  void open_file(const fs::path& path) {
    auto map = MappedFile::open(path);
    const std::string file = path.string();
    if (map->size() < 4 || std::memcmp(map->bytes().data(), "PK\3\4", 4) != 0) refuse_other_format(*map, file);
    const std::vector<ZipEntry> entries = read_zip_directory(*map);
    std::map<std::string, const ZipEntry*> by_name;
    const std::string root = entries.empty() ? "" : entries.front().name.substr(0, entries.front().name.find('/') + 1);
    for (const ZipEntry& entry : entries) {
      if (root.empty() || !entry.name.starts_with(root)) throw InputError(fmt::format("{}: entry {} lies outside of {}, expected an archive of torch.save", file, qb::quoted(entry.name), qb::quoted(root)));
      by_name[entry.name.substr(root.size())] = &entry;
    }
    if (by_name.contains("constants.pkl")) throw InputError(fmt::format("{}: a TorchScript program, expected the state_dict of a model", file));
    const auto entry = [&](const std::string& name) -> const ZipEntry* {
      const auto it = by_name.find(name);
      if (it != by_name.end() && !it->second->stored) throw InputError(fmt::format("{}: entry {} is compressed, expected it as torch.save writes it", file, qb::quoted(name)));
      return it == by_name.end() ? nullptr : it->second;
    };
    const ZipEntry* pickle = entry("data.pkl");
    if (!pickle) throw InputError(fmt::format("{}: no data.pkl in the archive, expected one of torch.save", file));
    if (const ZipEntry* order = entry("byteorder"))
      if (const auto bytes = map->bytes(order->offset, order->bytes, "byteorder"); std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()) != "little")
        throw InputError(fmt::format("{}: byteorder is {}, expected little", file, qb::quoted({reinterpret_cast<const char*>(bytes.data()), bytes.size()})));
    std::map<std::string, TensorInfo> added;  // a name given twice has the last one's value, as in Python
    std::vector<std::string> order;
    for (PickledTensor& tensor : parse_torch_pickle(map->bytes(pickle->offset, pickle->bytes, "data.pkl"), file)) {
      const ZipEntry* storage = entry("data/" + tensor.storage);
      if (!storage) throw InputError(fmt::format("{}: no entry \"data/{}\", which tensor {} looks into", file, printable(tensor.storage), qb::quoted(tensor.name)));
      if (storage->bytes != tensor.storage_bytes)
        throw InputError(fmt::format("{}: entry \"data/{}\" has {} bytes, expected {} for tensor {}", file, printable(tensor.storage), storage->bytes, tensor.storage_bytes, qb::quoted(tensor.name)));
      if (!is_utf8(tensor.name)) throw InputError(fmt::format("{}: a tensor's name is not UTF-8: {}", file, qb::quoted(tensor.name)));
      const auto unit = static_cast<uint64_t>(block_bytes(tensor.dtype));
      TensorInfo info{tensor.name, tensor.dtype, tensor.shape, 0, storage->offset + tensor.first * unit, 0};
      info.bytes = static_cast<uint64_t>(info.elements()) * unit;
      views_.erase(tensor.name);
      if (!is_contiguous(tensor)) views_[tensor.name] = {tensor.stride, tensor.span};
      if (added.insert_or_assign(tensor.name, std::move(info)).second) order.push_back(tensor.name);
    }
    std::vector<TensorInfo> tensors;
    for (const std::string& name : order) tensors.push_back(std::move(added[name]));
    add_file(std::move(map), std::move(tensors));
  }

 private:
  struct View {
    std::vector<int64_t> stride;
    uint64_t span = 0;
  };

  static bool is_contiguous(const PickledTensor& tensor) {
    int64_t step = 1;
    for (size_t d = tensor.shape.size(); d-- > 0;) {
      if (tensor.shape[d] != 1 && tensor.stride[d] != step) return tensor.span == 0;
      step *= tensor.shape[d];
    }
    return true;
  }

  [[noreturn]] static void refuse_other_format(const MappedFile& map, const std::string& file) {
    // A pickle of torch's magic number, protocol 2.
    constexpr unsigned char legacy[] = {0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19};
    if (map.size() >= sizeof(legacy) && std::memcmp(map.bytes().data(), legacy, sizeof(legacy)) == 0)
      throw InputError(fmt::format("{}: in torch's format of before version 1.6, expected a zip archive; in Python, torch.save(torch.load(file, weights_only=True), file) writes it anew", file));
    throw InputError(fmt::format("{}: not a zip archive of torch.save, expected the weights of a model", file));
  }

  std::map<std::string, View> views_;  // of tensors that are not stored row after row
};

}  // namespace

TensorSourcePtr open_torch_weights(const fs::path& place) {
  auto source = std::make_shared<TorchSource>();
  const auto open_index = [&](const fs::path& index) { open_shards(*source, index, [&](const auto& shard) { source->open_file(shard); }); };
  std::error_code error;
  if (!fs::is_directory(place, error)) {
    place.extension() == ".json" ? open_index(place) : source->open_file(place);
    return source;
  }
  const auto single = place / "pytorch_model.bin", index = place / "pytorch_model.bin.index.json";
  if (fs::exists(single, error))
    source->open_file(single);
  else if (fs::exists(index, error))
    open_index(index);
  else
    throw InputError(fmt::format("{}: neither pytorch_model.bin nor pytorch_model.bin.index.json is there", place.string()));
  return source;
}

TensorSourcePtr open_weights(const fs::path& place) {
  std::error_code error;
  const std::string name = place.filename().string();
  if (!fs::is_directory(place, error)) return name.ends_with(".bin") || name.ends_with(".bin.index.json") ? open_torch_weights(place) : open_safetensors(place);
  for (const char* file : {"model.safetensors", "model.safetensors.index.json"})
    if (fs::exists(place / file, error)) return open_safetensors(place);
  for (const char* file : {"pytorch_model.bin", "pytorch_model.bin.index.json"})
    if (fs::exists(place / file, error)) return open_torch_weights(place);
  throw InputError(fmt::format("{}: neither model.safetensors nor model.safetensors.index.json is there, and no pytorch_model.bin", place.string()));
}

}  // namespace qb
