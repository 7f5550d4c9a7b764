#include "core/format/gguf_write.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <unordered_set>

#include "core/base/atomic_writer.h"
#include "core/base/error.h"
#include "core/base/utf8.h"

namespace qb {
namespace {

constexpr uint64_t kAlignment = 32;
uint64_t padded(uint64_t at) { return (at + kAlignment - 1) / kAlignment * kAlignment; }

// The header, put together in memory: a few megabytes with a vocabulary in it.
class Header {
 public:
  explicit Header(std::string path) : path_(std::move(path)) {}

  template <class T>
  void number(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof(T));
  }
  void text(const std::string& text) {
    number(uint64_t{text.size()});
    bytes_ += text;
  }

  void value(const std::string& key, const GgufValue& value) {
    std::visit([&](const auto& v) { put(key, value.type, v); }, value.value);
  }
  void pad() { bytes_.append(padded(bytes_.size()) - bytes_.size(), '\0'); }
  const std::string& bytes() const { return bytes_; }
  InternalError wrong(const std::string& key, const std::string& what) const { return InternalError(fmt::format("{}: key {}: {}", path_, qb::quoted(key), what)); }

 private:
  template <class T>
  void put(const std::string& key, GgufType type, const T& value) {
    number(static_cast<uint32_t>(type));
    element(key, type, value);
  }
  template <class T>
  void put(const std::string& key, GgufType type, const std::vector<T>& values) {
    number(static_cast<uint32_t>(GgufType::array));
    number(static_cast<uint32_t>(type));
    number(uint64_t{values.size()});
    for (const auto& value : values) element(key, type, static_cast<const T&>(value));
  }

  template <class T>
  void bounded(const std::string& key, int64_t value) {
    const bool below = std::is_unsigned_v<T> ? value < 0 : value < static_cast<int64_t>(std::numeric_limits<T>::min());
    const bool above = sizeof(T) < 8 && value > static_cast<int64_t>(std::numeric_limits<T>::max());
    if (below || above) throw wrong(key, fmt::format("{} does not fit into {} bits, {}", value, 8 * sizeof(T), std::is_unsigned_v<T> ? "unsigned" : "signed"));
    number(static_cast<T>(value));
  }
  void element(const std::string& key, GgufType type, const int64_t& value) {
    switch (type) {
      case GgufType::u8: return bounded<uint8_t>(key, value);
      case GgufType::i8: return bounded<int8_t>(key, value);
      case GgufType::u16: return bounded<uint16_t>(key, value);
      case GgufType::i16: return bounded<int16_t>(key, value);
      case GgufType::u32: return bounded<uint32_t>(key, value);
      case GgufType::i32: return bounded<int32_t>(key, value);
      case GgufType::u64: return bounded<uint64_t>(key, value);
      case GgufType::i64: return bounded<int64_t>(key, value);
      default: throw wrong(key, "an integer with another type");
    }
  }
  void element(const std::string& key, GgufType type, const double& value) {
    if (type == GgufType::f64) return number(value);
    if (type != GgufType::f32) throw wrong(key, "a real number with another type");
    if (static_cast<double>(static_cast<float>(value)) != value && !std::isnan(value)) throw wrong(key, fmt::format("{} is no float32", value));
    number(static_cast<float>(value));
  }
  void element(const std::string& key, GgufType type, const bool& value) {
    if (type != GgufType::boolean) throw wrong(key, "a bool with another type");
    number(static_cast<uint8_t>(value));
  }
  void element(const std::string& key, GgufType type, const std::string& value) {
    if (type != GgufType::text) throw wrong(key, "a text with another type");
    text(value);
  }

  std::string path_, bytes_;
};

}  // namespace

void GgufMetadata::add(const std::string& key, GgufValue value) {
  for (auto& [name, old] : values_)
    if (name == key) return void(old = std::move(value));
  values_.emplace_back(key, std::move(value));
}

void GgufMetadata::f32s(const std::string& key, std::vector<double> values) {
  for (double& value : values) value = static_cast<double>(static_cast<float>(value));
  add(key, {std::move(values), GgufType::f32});
}

const GgufValue* GgufMetadata::find(const std::string& key) const {
  for (const auto& [name, value] : values_)
    if (name == key) return &value;
  return nullptr;
}

GgufWriter::GgufWriter(const std::filesystem::path& path, const GgufMetadata& metadata, std::vector<TensorInfo> tensors) : path_(path), tensors_(std::move(tensors)) {
  Header header(path.string());
  header.number(uint32_t{0x46554747});
  header.number(uint32_t{3});
  header.number(uint64_t{tensors_.size()});
  header.number(uint64_t{metadata.all().size()});
  for (const auto& [key, value] : metadata.all()) {
    if (key.empty() || key.size() > 65535 || !is_utf8(key)) throw header.wrong(key, fmt::format("{} bytes, expected 1 to 65535 of UTF-8", key.size()));
    if (key == "general.alignment" && value != GgufValue{int64_t{kAlignment}, GgufType::u32}) throw header.wrong(key, fmt::format("expected {}, u32", kAlignment));
    header.text(key);
    header.value(key, value);
  }
  std::unordered_set<std::string> names;
  uint64_t offset = 0;
  for (TensorInfo& info : tensors_) {
    const auto wrong = [&](const std::string& what) { return InternalError(fmt::format("{}: tensor {}: {}", path.string(), qb::quoted(info.name), what)); };
    if (info.name.empty() || info.name.size() > 63 || !is_utf8(info.name)) throw wrong(fmt::format("a name of {} bytes, expected 1 to 63 of UTF-8", info.name.size()));
    if (!names.insert(info.name).second) throw wrong("given twice");
    const auto type = ggml_type_of(info.dtype);
    if (!type) throw wrong(fmt::format("GGUF has no type {}", name_of(info.dtype)));
    const auto elements = element_count(info.shape);
    if (info.shape.size() > 4 || !elements || *elements > INT64_MAX / 8) throw wrong(fmt::format("{} dimensions, {} values", info.shape.size(), elements.value_or(-1)));
    const int64_t row = info.shape.empty() ? 1 : info.shape.back(), block = block_elements(info.dtype);
    if (row % block != 0) throw wrong(fmt::format("rows of {} values do not divide into {}'s blocks of {}", row, name_of(info.dtype), block));
    header.text(info.name);
    header.number(static_cast<uint32_t>(info.shape.size()));
    for (auto size = info.shape.rbegin(); size != info.shape.rend(); ++size) header.number(static_cast<uint64_t>(*size));
    header.number(*type);
    header.number(offset);
    info.file = 0;
    info.offset = offset;
    info.bytes = static_cast<uint64_t>(*elements / block * block_bytes(info.dtype));
    offset += padded(info.bytes);
  }
  header.pad();
  for (TensorInfo& info : tensors_) info.offset += header.bytes().size();
  file_ = std::make_unique<AtomicWriter>(path);
  file_->write(header.bytes());
}

GgufWriter::~GgufWriter() = default;

void GgufWriter::write(const std::string& tensor, std::span<const std::byte> bytes) {
  const auto wrong = [&](const std::string& what) { return InternalError(fmt::format("{}: tensor {}: {}", path_.string(), qb::quoted(tensor), what)); };
  while (current_ < tensors_.size() && tensors_[current_].bytes == 0 && tensors_[current_].name != tensor) ++current_;
  if (current_ == tensors_.size()) throw wrong("comes behind the last one");
  const TensorInfo& info = tensors_[current_];
  if (info.name != tensor) throw wrong(fmt::format("it is the turn of {}, of which {} of {} bytes are written", qb::quoted(info.name), written_, info.bytes));
  if (bytes.size() > info.bytes - written_) throw wrong(fmt::format("{} bytes more, where {} of {} are written", bytes.size(), written_, info.bytes));
  file_->write(bytes);
  written_ += bytes.size();
  if (written_ < info.bytes) return;
  static constexpr std::byte zeros[kAlignment] = {};
  file_->write(std::span(zeros).first(padded(info.bytes) - info.bytes));
  ++current_;
  written_ = 0;
}

void GgufWriter::commit() {
  while (current_ < tensors_.size() && tensors_[current_].bytes == 0) ++current_;
  if (current_ < tensors_.size())
    throw InternalError(fmt::format("{}: tensor {}: {} of {} bytes are written", path_.string(), qb::quoted(tensors_[current_].name), written_, tensors_[current_].bytes));
  file_->commit();
}

}  // namespace qb
