#include "core/format/gguf.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <unordered_map>
#include <unordered_set>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/utf8.h"
#include "core/format/mapped_tensor.h"

namespace qb {

struct GgufFile::Content {
  std::vector<std::filesystem::path> files;
  std::vector<std::shared_ptr<const MappedFile>> maps;  // of files; empty where the file is imagined
  std::map<std::string, GgufValue> metadata;
  std::vector<TensorInfo> tensors;
  std::unordered_map<std::string, size_t> index;
  std::map<std::string, at::Tensor> values;  // of an imagined file

  const std::shared_ptr<const MappedFile>& map_of(const TensorInfo& info) const { return maps[static_cast<size_t>(info.file)]; }
  void add(const std::filesystem::path& path, std::shared_ptr<const MappedFile> map, std::vector<TensorInfo> added);
};

void GgufFile::Content::add(const std::filesystem::path& path, std::shared_ptr<const MappedFile> map, std::vector<TensorInfo> added) {
  for (TensorInfo& info : added) {
    info.file = static_cast<int>(files.size());
    if (!index.emplace(info.name, tensors.size()).second)
      throw InputError(fmt::format("{}: tensor {} stands in another part too", path.string(), qb::quoted(info.name)));
    tensors.push_back(std::move(info));
  }
  files.push_back(path);
  maps.push_back(std::move(map));
}

namespace {

// GgufType's numbers, as they are read before they are known to be one.
enum ValueType : uint32_t { kU8, kI8, kU16, kI16, kU32, kI32, kF32, kBool, kString, kArray, kU64, kI64, kF64 };

struct NumberedType {
  uint32_t number;
  DType dtype;
};
constexpr NumberedType kGgmlTypes[] = {
    {0, DType::f32},   {1, DType::f16},   {2, DType::q4_0},  {3, DType::q4_1},  {6, DType::q5_0}, {7, DType::q5_1}, {8, DType::q8_0}, {10, DType::q2_k},
    {11, DType::q3_k}, {12, DType::q4_k}, {13, DType::q5_k}, {14, DType::q6_k}, {20, DType::iq4_nl}, {23, DType::iq4_xs}, {24, DType::i8}, {25, DType::i16}, {26, DType::i32},
    {27, DType::i64},  {28, DType::f64},  {30, DType::bf16}, {34, DType::tq1_0}, {35, DType::tq2_0}, {39, DType::mxfp4}};

// Others of ggml's, by the names that files are called after; those that it has given up too.
constexpr std::pair<uint32_t, const char*> kUnread[] = {
    {4, "Q4_2"},      {5, "Q4_3"},      {9, "Q8_1"},      {15, "Q8_K"},      {16, "IQ2_XXS"},   {17, "IQ2_XS"},   {18, "IQ3_XXS"}, {19, "IQ1_S"},
    {21, "IQ3_S"},    {22, "IQ2_S"},    {29, "IQ1_M"},    {31, "Q4_0_4_4"},  {32, "Q4_0_4_8"},  {33, "Q4_0_8_8"}, {36, "IQ4_NL_4_4"},
    {37, "IQ4_NL_4_8"}, {38, "IQ4_NL_8_8"}, {40, "NVFP4"}, {41, "Q1_0"}};

std::string unread_type(uint32_t number) {
  for (const auto& [unread, name] : kUnread)
    if (unread == number) return name;
  return fmt::format("type {}, which ggml does not have,", number);
}

std::optional<DType> dtype_of_ggml(uint32_t number) {
  for (const NumberedType& type : kGgmlTypes)
    if (type.number == number) return type.dtype;
  return std::nullopt;
}

// Walks the header; every read is checked against the file's end before memory is taken for it.
class Cursor {
 public:
  Cursor(const MappedFile& file, uint64_t at) : file_(file), at_(at) {}

  uint64_t position() const { return at_; }
  uint64_t remaining() const { return file_.size() - at_; }

  template <class T>
  T number(std::string_view what) {
    T value;
    std::memcpy(&value, file_.bytes(at_, sizeof(T), what).data(), sizeof(T));
    at_ += sizeof(T);
    return value;
  }

  std::string text(std::string_view what) {
    const auto length = number<uint64_t>(what);
    if (length > remaining()) throw damaged(fmt::format("{} is {} bytes long, but {} are left", printable(what), length, remaining()));
    const auto bytes = file_.bytes(at_, length, what);
    at_ += length;
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

  // A name: UTF-8 without control characters, 1 to `limit` bytes, as it goes into messages, JSON and files.
  std::string name(std::string_view what, size_t limit) {
    std::string name = text(what);
    if (name.empty() || name.size() > limit) throw damaged(fmt::format("{} of {} bytes, expected 1 to {}: {}", what, name.size(), limit, qb::quoted(name)));
    if (!is_utf8(name) || std::any_of(name.begin(), name.end(), [](unsigned char c) { return c < 0x20; }))
      throw damaged(fmt::format("{} is not plain UTF-8 text: {}", what, qb::quoted(name)));
    return name;
  }

  InputError damaged(const std::string& what) const {
    return InputError(fmt::format("{}: {} (at byte {})", file_.path().string(), what, at_));
  }

 private:
  const MappedFile& file_;
  uint64_t at_;
};

int64_t integer_value(Cursor& cursor, uint32_t type, const std::string& key) {
  switch (type) {
    case kU8: return cursor.number<uint8_t>(key);
    case kI8: return cursor.number<int8_t>(key);
    case kU16: return cursor.number<uint16_t>(key);
    case kI16: return cursor.number<int16_t>(key);
    case kU32: return cursor.number<uint32_t>(key);
    case kI32: return cursor.number<int32_t>(key);
    case kI64: return cursor.number<int64_t>(key);
    default: {
      const auto value = cursor.number<uint64_t>(key);
      if (value > uint64_t{INT64_MAX}) throw cursor.damaged(fmt::format("key {} is {}, above 2^63", qb::quoted(key), value));
      return static_cast<int64_t>(value);
    }
  }
}

bool bool_value(Cursor& cursor, const std::string& key) {
  const auto value = cursor.number<uint8_t>(key);
  if (value > 1) throw cursor.damaged(fmt::format("key {} is a bool with value {}", qb::quoted(key), value));
  return value != 0;
}

bool is_integer(uint32_t type) { return type <= kI32 || type == kU64 || type == kI64; }
uint64_t smallest_bytes(uint32_t type) {
  switch (type) {
    case kU8: case kI8: case kBool: return 1;
    case kU16: case kI16: return 2;
    case kU32: case kI32: case kF32: return 4;
    default: return 8;  // 64-bit numbers, and a string's length
  }
}

GgufValue array_value(Cursor& cursor, const std::string& key) {
  const auto type = cursor.number<uint32_t>(key);
  const auto count = cursor.number<uint64_t>(key);
  if (type == kArray || type > kF64) throw cursor.damaged(fmt::format("key {} is an array of type {}, which is not supported", qb::quoted(key), type));
  if (count > cursor.remaining() / smallest_bytes(type))
    throw cursor.damaged(fmt::format("key {} has {} elements, more than the {} bytes left can hold", qb::quoted(key), count, cursor.remaining()));
  auto collect = [&](auto read) {
    std::vector<decltype(read())> values;
    values.reserve(count);
    for (uint64_t i = 0; i < count; ++i) values.push_back(read());
    return GgufValue{std::move(values), static_cast<GgufType>(type)};
  };
  if (is_integer(type)) return collect([&] { return integer_value(cursor, type, key); });
  if (type == kF32) return collect([&] { return static_cast<double>(cursor.number<float>(key)); });
  if (type == kF64) return collect([&] { return cursor.number<double>(key); });
  if (type == kBool) return collect([&] { return bool_value(cursor, key); });
  return collect([&] { return cursor.text(key); });
}

GgufValue read_value(Cursor& cursor, const std::string& key) {
  const auto type = cursor.number<uint32_t>(key);
  const auto stored = static_cast<GgufType>(type);
  if (is_integer(type)) return {integer_value(cursor, type, key), stored};
  switch (type) {
    case kF32: return {static_cast<double>(cursor.number<float>(key)), stored};
    case kF64: return {cursor.number<double>(key), stored};
    case kBool: return {bool_value(cursor, key), stored};
    case kString: return {cursor.text(key), stored};
    case kArray: return array_value(cursor, key);
    default: throw cursor.damaged(fmt::format("key {} has unknown type {}", qb::quoted(key), type));
  }
}

TensorInfo read_tensor_info(Cursor& cursor) {
  TensorInfo info;
  info.name = cursor.name("a tensor's name", 64);
  auto fail = [&](const std::string& what) { return cursor.damaged(fmt::format("tensor {}: {}", qb::quoted(info.name), what)); };
  const auto dimensions = cursor.number<uint32_t>(info.name);
  if (dimensions > 4) throw fail(fmt::format("{} dimensions, expected at most 4", dimensions));
  for (uint32_t d = 0; d < dimensions; ++d) {
    const auto size = cursor.number<uint64_t>(info.name);
    if (size > uint64_t{INT64_MAX}) throw fail(fmt::format("dimension {} is {}", d, size));
    info.shape.insert(info.shape.begin(), static_cast<int64_t>(size));  // ggml's first dimension is the fastest
  }
  const auto type = cursor.number<uint32_t>(info.name);
  const auto dtype = dtype_of_ggml(type);
  if (!dtype) throw fail(fmt::format("{} is not supported, expected Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K to Q6_K, IQ4_NL, IQ4_XS, TQ1_0, TQ2_0, MXFP4 or numbers", unread_type(type)));
  info.dtype = *dtype;
  const auto elements = element_count(info.shape);
  if (!elements || *elements > INT64_MAX / 8) throw fail("too large to address");
  const int64_t row = info.shape.empty() ? 1 : info.shape.back();
  if (row % block_elements(*dtype) != 0)
    throw fail(fmt::format("rows of {} values do not divide into {}'s blocks of {}", row, name_of(*dtype), block_elements(*dtype)));
  info.bytes = static_cast<uint64_t>(*elements / block_elements(*dtype) * block_bytes(*dtype));
  info.offset = cursor.number<uint64_t>(info.name);
  return info;
}

// Turns offsets from the start of the data into offsets in the file. Tensors must follow each other, to the end, with no
// more between them than padding, as ggml writes them: so a wrong count, size, offset or alignment cannot pass unseen.
// The order in which the header lists them is free.
void place_data(std::vector<TensorInfo>& tensors, const MappedFile& file, uint64_t header_end, uint64_t alignment) {
  const auto padded = [&](uint64_t at) { return (at + alignment - 1) / alignment * alignment; };
  const uint64_t data_start = padded(header_end);
  const uint64_t data_bytes = file.size() > data_start ? file.size() - data_start : 0;
  std::vector<TensorInfo*> order;
  order.reserve(tensors.size());
  for (TensorInfo& info : tensors) order.push_back(&info);
  std::sort(order.begin(), order.end(), [](auto* a, auto* b) { return a->offset != b->offset ? a->offset < b->offset : a->bytes < b->bytes; });
  uint64_t expected = 0;
  for (TensorInfo* info : order) {
    const auto fail = [&](const std::string& what) { return InputError(fmt::format("{}: tensor {}: {}", file.path().string(), qb::quoted(info->name), what)); };
    if (info->offset % alignment != 0) throw fail(fmt::format("offset {} is not a multiple of {}", info->offset, alignment));
    if (info->offset > data_bytes || info->bytes > data_bytes - info->offset)
      throw fail(fmt::format("needs {} bytes at {} of the data, but there are {} bytes of data (truncated?)", info->bytes, info->offset, data_bytes));
    if (info->offset != expected)
      throw fail(fmt::format("offset {}, expected {} where the data before it end ({})", info->offset, expected,
                             info->offset < expected ? "they overlap" : "a hole lies between"));
    expected = padded(info->offset + info->bytes);
    info->offset += data_start;
  }
  if (data_bytes > expected)
    throw InputError(fmt::format("{}: {} bytes of data, but its {} tensors take {}", file.path().string(), data_bytes, tensors.size(), expected));
}

// One file, as it is read.
struct Part {
  std::filesystem::path path;
  std::shared_ptr<const MappedFile> map;
  std::map<std::string, GgufValue> metadata;
  std::vector<TensorInfo> tensors;
};

int64_t integer_of(const std::map<std::string, GgufValue>& metadata, const std::filesystem::path& path, const std::string& key, int64_t absent) {
  const auto it = metadata.find(key);
  if (it == metadata.end()) return absent;
  if (const auto* value = std::get_if<int64_t>(&it->second.value)) return *value;
  throw InputError(fmt::format("{}: key {} is not an integer", path.string(), qb::quoted(key)));
}
int64_t integer_of(const Part& part, const std::string& key, int64_t absent) { return integer_of(part.metadata, part.path, key, absent); }

Part read_part(const std::filesystem::path& path) {
  Part part;
  part.path = path;
  part.map = MappedFile::open(path);
  Cursor cursor(*part.map, 0);
  const auto magic = cursor.number<uint32_t>("the magic number");
  if (magic != 0x46554747) throw InputError(fmt::format("{}: not a GGUF file: starts with {:#010x}, expected \"GGUF\"", path.string(), magic));
  const auto version = cursor.number<uint32_t>("the version");
  if (version != 2 && version != 3)
    throw InputError(fmt::format("{}: GGUF version {}, expected 2 or 3{}", path.string(), version,
                                 (version & 0xffff) == 0 && version != 0 ? " (a big-endian file?)" : ""));
  const auto tensor_count = cursor.number<uint64_t>("the tensor count");
  const auto key_count = cursor.number<uint64_t>("the key count");
  // A tensor's description takes at least 24 bytes, a key 13.
  if (tensor_count > cursor.remaining() / 24) throw cursor.damaged(fmt::format("{} tensors do not fit into the file", tensor_count));
  if (key_count > cursor.remaining() / 13) throw cursor.damaged(fmt::format("{} keys do not fit into the file", key_count));
  for (uint64_t i = 0; i < key_count; ++i) {
    std::string key = cursor.name("a metadata key", 65535);
    GgufValue value = read_value(cursor, key);
    if (!part.metadata.emplace(key, std::move(value)).second) throw cursor.damaged(fmt::format("key {} appears twice", qb::quoted(key)));
  }
  part.tensors.reserve(tensor_count);
  std::unordered_set<std::string> names;
  for (uint64_t i = 0; i < tensor_count; ++i) {
    part.tensors.push_back(read_tensor_info(cursor));
    if (!names.insert(part.tensors.back().name).second) throw cursor.damaged(fmt::format("tensor {} appears twice", qb::quoted(part.tensors.back().name)));
  }
  const int64_t alignment = integer_of(part, "general.alignment", 32);
  if (alignment <= 0 || alignment > (1 << 20) || !std::has_single_bit(static_cast<uint64_t>(alignment)))
    throw InputError(fmt::format("{}: general.alignment is {}, expected a power of two", path.string(), alignment));
  place_data(part.tensors, *part.map, cursor.position(), static_cast<uint64_t>(alignment));
  return part;
}

// "…-00002-of-00003.gguf" → that name with another number.
std::filesystem::path sibling(const std::filesystem::path& path, int64_t number, int64_t other, int64_t parts) {
  const std::string end = fmt::format("-{:05}-of-{:05}.gguf", number + 1, parts), name = path.filename().string();
  if (!name.ends_with(end)) throw InputError(fmt::format("{}: part {} of a model in {} files, expected a name that ends in \"{}\", which says what the others are called", path.string(), number + 1, parts, end));
  const auto found = path.parent_path() / (name.substr(0, name.size() - end.size()) + fmt::format("-{:05}-of-{:05}.gguf", other + 1, parts));
  std::error_code ignored;
  if (!std::filesystem::exists(found, ignored)) throw InputError(fmt::format("{}: missing, expected part {} of the {} files of {}", found.string(), other + 1, parts, path.string()));
  return found;
}

// The named metadata value if it holds a T; nullptr when absent, an error when it holds something else.
template <class T>
const T* value_of(const GgufFile& file, const std::string& key, const char* expected) {
  const auto it = file.metadata().find(key);
  if (it == file.metadata().end()) return nullptr;
  if (const T* value = std::get_if<T>(&it->second.value)) return value;
  throw InputError(fmt::format("{}: key {} is not {}", file.files().front().string(), qb::quoted(key), expected));
}

template <class T>
std::optional<T> optional_of(const T* value) {
  return value ? std::optional<T>(*value) : std::nullopt;
}

}  // namespace

std::optional<uint32_t> ggml_type_of(DType dtype) {
  for (const NumberedType& type : kGgmlTypes)
    if (type.dtype == dtype) return type.number;
  return std::nullopt;
}

GgufFile::GgufFile() : content_(std::make_unique<Content>()) {}
GgufFile::~GgufFile() = default;

std::shared_ptr<const GgufFile> GgufFile::open(const std::filesystem::path& path) {
  std::shared_ptr<GgufFile> file(new GgufFile);
  Content& content = *file->content_;
  Part given = read_part(path);
  const int64_t parts = integer_of(given, "split.count", 1);
  if (parts <= 1) {
    content.metadata = std::move(given.metadata);
    content.add(path, std::move(given.map), std::move(given.tensors));
    return file;
  }
  const int64_t number = integer_of(given, "split.no", 0);
  if (number < 0 || number >= parts) throw InputError(fmt::format("{}: key \"split.no\" is {}, expected 0 to {}", path.string(), number, parts - 1));
  int64_t listed = 0;
  for (int64_t i = 0; i < parts; ++i) {
    Part part = i == number ? std::move(given) : read_part(sibling(path, number, i, parts));
    for (const auto& [key, expected] : {std::pair{"split.no", i}, {"split.count", parts}})
      if (const int64_t found = integer_of(part, key, -1); found != expected)
        throw InputError(fmt::format("{}: key \"{}\" is {}, expected {}: a part of another model?", part.path.string(), key, found < 0 ? "missing" : std::to_string(found), expected));
    if (i == 0) {
      content.metadata = std::move(part.metadata);
      listed = integer_of(content.metadata, part.path, "split.tensors.count", 0);
    }
    content.add(part.path, std::move(part.map), std::move(part.tensors));
  }
  if (listed > 0 && listed != static_cast<int64_t>(content.tensors.size()))
    throw InputError(fmt::format("{}: key \"split.tensors.count\" is {}, but its {} parts hold {} tensors", content.files.front().string(), listed, parts, content.tensors.size()));
  return file;
}

std::shared_ptr<const GgufFile> GgufFile::imagined(const std::filesystem::path& path, std::map<std::string, GgufValue> metadata, std::vector<TensorInfo> tensors,
                                                   std::map<std::string, at::Tensor> values) {
  std::shared_ptr<GgufFile> file(new GgufFile);
  Content& content = *file->content_;
  content.files = {path};
  content.metadata = std::move(metadata);
  content.tensors = std::move(tensors);
  content.values = std::move(values);
  for (size_t i = 0; i < content.tensors.size(); ++i) content.index.emplace(content.tensors[i].name, i);
  return file;
}

const std::map<std::string, GgufValue>& GgufFile::metadata() const { return content_->metadata; }

std::optional<int64_t> GgufFile::integer(const std::string& key) const { return optional_of(value_of<int64_t>(*this, key, "an integer")); }

std::optional<double> GgufFile::real(const std::string& key) const {
  const auto it = metadata().find(key);
  if (it != metadata().end() && std::holds_alternative<int64_t>(it->second.value)) return static_cast<double>(std::get<int64_t>(it->second.value));
  return optional_of(value_of<double>(*this, key, "a number"));
}

std::optional<bool> GgufFile::boolean(const std::string& key) const { return optional_of(value_of<bool>(*this, key, "a bool")); }
std::optional<std::string> GgufFile::text(const std::string& key) const { return optional_of(value_of<std::string>(*this, key, "a string")); }

const std::vector<std::string>* GgufFile::texts(const std::string& key) const {
  return value_of<std::vector<std::string>>(*this, key, "an array of strings");
}
const std::vector<double>* GgufFile::reals(const std::string& key) const { return value_of<std::vector<double>>(*this, key, "an array of floats"); }
const std::vector<int64_t>* GgufFile::integers(const std::string& key) const {
  return value_of<std::vector<int64_t>>(*this, key, "an array of integers");
}

const std::vector<TensorInfo>& GgufFile::tensors() const { return content_->tensors; }
const std::vector<std::filesystem::path>& GgufFile::files() const { return content_->files; }

const TensorInfo* GgufFile::find(const std::string& name) const {
  const auto it = content_->index.find(name);
  return it == content_->index.end() ? nullptr : &content_->tensors[it->second];
}

at::Tensor GgufFile::read(const std::string& name) const {
  const TensorInfo* info = find(name);
  if (!info) throw InputError(fmt::format("{}: no tensor {}", content_->files.front().string(), qb::quoted(name)));
  if (content_->maps.empty()) {
    const auto value = content_->values.find(name);
    if (value == content_->values.end()) throw InternalError(fmt::format("{}: tensor {} is not written yet", content_->files.front().string(), qb::quoted(name)));
    return value->second;
  }
  if (!is_block_quantized(info->dtype)) return view_mapped(content_->map_of(*info), *info);
  at::Tensor out = at::empty(info->shape, at::kFloat);
  if (info->elements() > 0)
    dequantize_ggml(info->dtype, content_->map_of(*info)->bytes(info->offset, info->bytes, "tensor " + name), out.data_ptr<float>(), info->elements());
  return out;
}

at::Tensor GgufFile::bytes(const std::string& name) const {
  const TensorInfo* info = find(name);
  if (!info) throw InputError(fmt::format("{}: no tensor {}", content_->files.front().string(), qb::quoted(name)));
  if (content_->maps.empty()) throw InternalError(fmt::format("{}: tensor {} is not written yet", content_->files.front().string(), qb::quoted(name)));
  TensorInfo plain = *info;
  int64_t rows = 1;
  for (size_t d = 0; d + 1 < info->shape.size(); ++d) rows *= info->shape[d];
  plain.dtype = DType::u8;
  plain.shape = {rows, rows > 0 ? static_cast<int64_t>(info->bytes) / rows : 0};
  return view_mapped(content_->map_of(*info), plain);
}

}  // namespace qb
