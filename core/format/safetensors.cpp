#include "core/format/safetensors.h"

#include <fmt/format.h>

#include <bit>
#include <cstring>

#include "core/base/error.h"
#include "core/base/utf8.h"
#include "core/format/file_tensors.h"
#include "core/format/mapped_tensor.h"
#include "core/format/safetensors_header.h"

namespace qb {

static_assert(std::endian::native == std::endian::little, "safetensors and GGUF are little-endian; so is every supported machine");

namespace {

constexpr uint64_t kHeaderLimit = 100'000'000;  // the reference implementation's own bound

// The tensors of a file, and where its data begin.
std::pair<std::vector<TensorInfo>, uint64_t> read_header(const MappedFile& map, std::map<std::string, std::string>* metadata) {
  const std::string file = map.path().string();
  uint64_t header = 0;
  std::memcpy(&header, map.bytes(0, 8, "the header's length").data(), 8);
  if (header > kHeaderLimit) throw InputError(fmt::format("{}: header of {} bytes, expected at most {}; not a safetensors file?", file, header, kHeaderLimit));
  const auto text = map.bytes(8, header, "the header");
  return {parse_safetensors_header({reinterpret_cast<const char*>(text.data()), text.size()}, map.size() - 8 - header, file, metadata), 8 + header};
}

class SafetensorsSource final : public FileTensors {
 public:
  at::Tensor read(const std::string& name) const override {
    const TensorInfo& info = require(name);
    return view_mapped(map_of(info), info);
  }

  void open_file(const std::filesystem::path& path) {
    auto map = MappedFile::open(path);
    auto [added, data_start] = read_header(*map, nullptr);
    for (TensorInfo& info : added) info.offset += data_start;
    add_file(std::move(map), std::move(added));
  }
};

}  // namespace

TensorSourcePtr open_safetensors(const std::filesystem::path& place) {
  auto source = std::make_shared<SafetensorsSource>();
  const auto open_index = [&](const std::filesystem::path& index) { open_shards(*source, index, [&](const auto& shard) { source->open_file(shard); }); };
  // What cannot be looked at (no permission, a name too long) counts as a file, whose opening then says why.
  std::error_code error;
  if (!std::filesystem::is_directory(place, error)) {
    place.extension() == ".json" ? open_index(place) : source->open_file(place);
    return source;
  }
  // The single file first, as transformers does where a folder has both.
  const auto single = place / "model.safetensors", index = place / "model.safetensors.index.json";
  if (std::filesystem::exists(single, error))
    source->open_file(single);
  else if (std::filesystem::exists(index, error))
    open_index(index);
  else
    throw InputError(fmt::format("{}: neither model.safetensors nor model.safetensors.index.json is there", place.string()));
  return source;
}

std::map<std::string, std::string> read_safetensors_metadata(const std::filesystem::path& file) {
  std::map<std::string, std::string> metadata;
  read_header(*MappedFile::open(file), &metadata);
  return metadata;
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
    case at::kUInt64: return DType::u64;
    case at::kUInt32: return DType::u32;
    case at::kUInt16: return DType::u16;
    case at::kComplexFloat: return DType::c64;
    case at::kFloat8_e8m0fnu: return DType::f8_e8m0;
    case at::kFloat8_e4m3fnuz: return DType::f8_e4m3fnuz;
    case at::kFloat8_e5m2fnuz: return DType::f8_e5m2fnuz;
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
    case DType::u64: return at::kUInt64;
    case DType::u32: return at::kUInt32;
    case DType::u16: return at::kUInt16;
    case DType::c64: return at::kComplexFloat;
    case DType::f8_e8m0: return at::kFloat8_e8m0fnu;
    case DType::f8_e4m3fnuz: return at::kFloat8_e4m3fnuz;
    case DType::f8_e5m2fnuz: return at::kFloat8_e5m2fnuz;
    default: throw InputError(fmt::format("{} has no plain tensor type", name_of(dtype)));
  }
}

}  // namespace qb
