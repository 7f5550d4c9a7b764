#include "core/format/safetensors.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <bit>
#include <nlohmann/json.hpp>
#include <set>
#include <unordered_map>

#include "core/base/error.h"
#include "core/format/mapped_tensor.h"

namespace qb {

static_assert(std::endian::native == std::endian::little, "safetensors and GGUF are little-endian; so is every supported machine");

namespace {

using Json = nlohmann::json;
constexpr uint64_t kHeaderLimit = 100'000'000;  // the reference implementation's own bound

std::optional<DType> dtype_from(const std::string& name) {
  for (DType dtype : {DType::f64, DType::f32, DType::f16, DType::bf16, DType::f8_e4m3, DType::f8_e5m2, DType::i64, DType::i32, DType::i16,
                      DType::i8, DType::u8, DType::boolean})
    if (name_of(dtype) == name) return dtype;
  return std::nullopt;
}

// Refuses duplicate keys and deep nesting, which plain parsing would accept silently or recurse into.
Json parse_strictly(const char* begin, const char* end, const std::string& where) {
  std::vector<std::set<std::string>> keys;
  auto callback = [&](int depth, Json::parse_event_t event, Json& value) {
    if (depth > 8) throw InputError(fmt::format("{}: JSON nested deeper than 8 levels", where));
    if (event == Json::parse_event_t::object_start) keys.emplace_back();
    if (event == Json::parse_event_t::object_end) keys.pop_back();
    if (event == Json::parse_event_t::key && !keys.back().insert(value.get<std::string>()).second)
      throw InputError(fmt::format("{}: \"{}\" appears twice", where, value.get<std::string>()));
    return true;
  };
  try {
    return Json::parse(begin, end, callback);
  } catch (const Json::exception& e) {
    throw InputError(fmt::format("{}: not valid JSON: {}", where, e.what()));
  }
}

TensorInfo parse_entry(const std::string& file, const std::string& name, const Json& entry, uint64_t data_start, uint64_t data_bytes) {
  auto fail = [&](const std::string& what) { return InputError(fmt::format("{}: tensor \"{}\": {}", file, name, what)); };
  if (!entry.is_object()) throw fail("expected an object with dtype, shape and data_offsets");
  TensorInfo info;
  info.name = name;
  const auto dtype = entry.find("dtype");
  if (dtype == entry.end() || !dtype->is_string()) throw fail("dtype is missing or not a string");
  if (auto known = dtype_from(dtype->get<std::string>()))
    info.dtype = *known;
  else
    throw fail(fmt::format("unknown dtype \"{}\"", dtype->get<std::string>()));
  const auto shape = entry.find("shape");
  if (shape == entry.end() || !shape->is_array()) throw fail("shape is missing or not an array");
  for (const auto& d : *shape) {
    if (!d.is_number_unsigned() || d.get<uint64_t>() > uint64_t{INT64_MAX}) throw fail(fmt::format("shape has {}, expected a size", d.dump()));
    info.shape.push_back(d.get<int64_t>());
  }
  const auto elements = element_count(info.shape);
  if (!elements || *elements > INT64_MAX / 8) throw fail("shape is too large to address");
  const auto offsets = entry.find("data_offsets");
  if (offsets == entry.end() || !offsets->is_array() || offsets->size() != 2 || !(*offsets)[0].is_number_unsigned() ||
      !(*offsets)[1].is_number_unsigned())
    throw fail("data_offsets is missing or not a pair of sizes");
  const auto begin = (*offsets)[0].get<uint64_t>(), end = (*offsets)[1].get<uint64_t>();
  if (begin > end || end > data_bytes)
    throw fail(fmt::format("data_offsets [{}, {}) do not fit the file's {} bytes of data (truncated?)", begin, end, data_bytes));
  const auto expected = static_cast<uint64_t>(*elements * block_bytes(info.dtype));
  if (end - begin != expected)
    throw fail(fmt::format("{} bytes of data, but {} of shape [{}] need {}", end - begin, name_of(info.dtype), fmt::join(info.shape, ", "), expected));
  info.offset = data_start + begin;
  info.bytes = end - begin;
  return info;
}

class SafetensorsSource final : public TensorSource {
 public:
  const std::vector<TensorInfo>& tensors() const override { return tensors_; }
  const std::vector<std::filesystem::path>& files() const override { return files_; }
  const TensorInfo* find(const std::string& name) const override {
    const auto it = index_.find(name);
    return it == index_.end() ? nullptr : &tensors_[it->second];
  }
  at::Tensor read(const std::string& name) const override {
    const TensorInfo* info = find(name);
    if (!info) throw InputError(fmt::format("{}: no tensor \"{}\"", files_.front().parent_path().string(), name));
    return view_mapped(maps_[static_cast<size_t>(info->file)], *info);
  }

  void add_file(const std::filesystem::path& path) {
    auto map = MappedFile::open(path);
    const std::string file = path.string();
    uint64_t header = 0;
    std::memcpy(&header, map->bytes(0, 8, "the header's length").data(), 8);
    if (header > kHeaderLimit) throw InputError(fmt::format("{}: header of {} bytes, expected at most {}; not a safetensors file?", file, header, kHeaderLimit));
    const auto text = map->bytes(8, header, "the header");
    const auto* begin = reinterpret_cast<const char*>(text.data());
    const Json root = parse_strictly(begin, begin + text.size(), file + ": header");
    if (!root.is_object()) throw InputError(file + ": header is not a JSON object");
    const size_t first = tensors_.size();
    const uint64_t data_start = 8 + header;
    for (const auto& [name, entry] : root.items()) {
      if (name == "__metadata__") continue;
      TensorInfo info = parse_entry(file, name, entry, data_start, map->size() - data_start);
      info.file = static_cast<int>(files_.size());
      if (!index_.emplace(name, tensors_.size()).second)
        throw InputError(fmt::format("{}: tensor \"{}\" stands in {} too", file, name, files_[static_cast<size_t>(find(name)->file)].string()));
      tensors_.push_back(std::move(info));
    }
    refuse_overlaps(file, first);
    files_.push_back(path);
    maps_.push_back(std::move(map));
  }

 private:
  void refuse_overlaps(const std::string& file, size_t first) const {
    std::vector<const TensorInfo*> by_offset;
    for (size_t i = first; i < tensors_.size(); ++i) by_offset.push_back(&tensors_[i]);
    std::sort(by_offset.begin(), by_offset.end(), [](auto* a, auto* b) { return a->offset != b->offset ? a->offset < b->offset : a->bytes < b->bytes; });
    for (size_t i = 1; i < by_offset.size(); ++i)
      if (by_offset[i - 1]->offset + by_offset[i - 1]->bytes > by_offset[i]->offset)
        throw InputError(fmt::format("{}: data of tensors \"{}\" and \"{}\" overlap", file, by_offset[i - 1]->name, by_offset[i]->name));
  }

  std::vector<TensorInfo> tensors_;
  std::vector<std::filesystem::path> files_;
  std::vector<std::shared_ptr<const MappedFile>> maps_;
  std::unordered_map<std::string, size_t> index_;
};

void add_shards(SafetensorsSource& source, const std::filesystem::path& index_path) {
  const std::string index_file = index_path.string();
  const std::string text = read_text(index_path, kHeaderLimit);
  const Json root = parse_strictly(text.data(), text.data() + text.size(), index_file);
  const auto map = root.is_object() ? root.find("weight_map") : root.end();
  if (!root.is_object() || map == root.end() || !map->is_object()) throw InputError(index_file + ": weight_map is missing or not an object");
  std::set<std::string> shards;
  for (const auto& [tensor, shard] : map->items()) {
    if (!shard.is_string()) throw InputError(fmt::format("{}: weight_map[\"{}\"] is not a file name", index_file, tensor));
    const auto name = shard.get<std::string>();
    // A shard lies beside its index; anything else could read files that are not the model's.
    if (name.empty() || std::filesystem::path(name).filename() != name || name == "." || name == "..")
      throw InputError(fmt::format("{}: weight_map[\"{}\"] is \"{}\", expected a file beside the index", index_file, tensor, name));
    shards.insert(name);
  }
  if (shards.empty()) throw InputError(index_file + ": weight_map is empty");
  for (const auto& shard : shards) source.add_file(index_path.parent_path() / shard);
  for (const auto& [tensor, shard] : map->items()) {
    const TensorInfo* info = source.find(tensor);
    const auto expected = shard.get<std::string>();
    if (!info) throw InputError(fmt::format("{}: tensor \"{}\" is not in {}", index_file, tensor, expected));
    const auto found = source.files()[static_cast<size_t>(info->file)].filename().string();
    if (found != expected) throw InputError(fmt::format("{}: tensor \"{}\" is in {}, expected in {}", index_file, tensor, found, expected));
  }
}

}  // namespace

TensorSourcePtr open_safetensors(const std::filesystem::path& file_or_folder) {
  auto source = std::make_shared<SafetensorsSource>();
  if (!std::filesystem::is_directory(file_or_folder)) {
    source->add_file(file_or_folder);
    return source;
  }
  const auto single = file_or_folder / "model.safetensors", index = file_or_folder / "model.safetensors.index.json";
  if (std::filesystem::exists(index))
    add_shards(*source, index);
  else if (std::filesystem::exists(single))
    source->add_file(single);
  else
    throw InputError(fmt::format("{}: neither model.safetensors nor model.safetensors.index.json is there", file_or_folder.string()));
  return source;
}

DType dtype_of(at::ScalarType type) {
  switch (type) {
    case at::kDouble: return DType::f64;
    case at::kFloat: return DType::f32;
    case at::kHalf: return DType::f16;
    case at::kBFloat16: return DType::bf16;
    case at::kFloat8_e4m3fn: return DType::f8_e4m3;
    case at::kFloat8_e5m2: return DType::f8_e5m2;
    case at::kLong: return DType::i64;
    case at::kInt: return DType::i32;
    case at::kShort: return DType::i16;
    case at::kChar: return DType::i8;
    case at::kByte: return DType::u8;
    case at::kBool: return DType::boolean;
    default: throw InputError(fmt::format("safetensors cannot hold tensors of type {}", at::toString(type)));
  }
}

at::ScalarType scalar_type_of(DType dtype) {
  switch (dtype) {
    case DType::f64: return at::kDouble;
    case DType::f32: return at::kFloat;
    case DType::f16: return at::kHalf;
    case DType::bf16: return at::kBFloat16;
    case DType::f8_e4m3: return at::kFloat8_e4m3fn;
    case DType::f8_e5m2: return at::kFloat8_e5m2;
    case DType::i64: return at::kLong;
    case DType::i32: return at::kInt;
    case DType::i16: return at::kShort;
    case DType::i8: return at::kChar;
    case DType::u8: return at::kByte;
    case DType::boolean: return at::kBool;
    default: throw InputError(fmt::format("{} has no plain tensor type", name_of(dtype)));
  }
}

}  // namespace qb
