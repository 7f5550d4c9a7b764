#include "core/format/safetensors_header.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "core/base/error.h"
#include "core/base/utf8.h"

namespace qb {
namespace {

constexpr DType kPlain[] = {DType::f64, DType::f32, DType::f16, DType::bf16, DType::f8_e4m3, DType::f8_e5m2, DType::i64,
                            DType::i32, DType::i16, DType::i8,  DType::u8,   DType::boolean, DType::u64,     DType::u32,
                            DType::u16, DType::c64, DType::f8_e8m0, DType::f8_e4m3fnuz, DType::f8_e5m2fnuz};
constexpr size_t kMaxDimensions = 64;  // torch's own bound
constexpr int kMaxDepth = 16;          // of values under keys that are not ours

// Takes the parser's events one by one, so that a header of many thousand tensors makes no tree first.
class HeaderEvents final : public nlohmann::json_sax<nlohmann::json> {
 public:
  HeaderEvents(const std::string& file, size_t expected) : file_(file) { tensors_.reserve(expected); }

  std::vector<TensorInfo> take() { return std::move(tensors_); }
  std::map<std::string, std::string> take_metadata() { return std::move(metadata_); }

  bool null() override { return unfit("null"); }
  bool boolean(bool value) override { return unfit(value ? "true" : "false"); }
  bool number_integer(number_integer_t value) override { return unfit(fmt::format("{}", value)); }
  bool number_float(number_float_t, const string_t& text) override { return unfit(printable(text)); }
  bool binary(binary_t&) override { return unfit("binary data"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (place_ == Place::shape) {
      if (value > uint64_t{INT64_MAX} || info_.shape.size() == kMaxDimensions) return unfit(fmt::format("{}", value));
      info_.shape.push_back(static_cast<int64_t>(value));
      return true;
    }
    if (place_ != Place::offsets || offsets_ == 2) return unfit(fmt::format("{}", value));
    (offsets_++ == 0 ? begin_ : end_) = value;
    return true;
  }

  bool string(string_t& value) override {
    if (place_ == Place::metadata) {
      metadata_[metadata_key_] = value;
      return true;
    }
    if (place_ != Place::entry || field_ != dtype_field) return unfit(qb::quoted(value));
    for (DType dtype : kPlain)
      if (name_of(dtype) == value) {
        info_.dtype = dtype;
        return true;
      }
    throw wrong(fmt::format("unknown dtype {}", qb::quoted(value)));
  }

  bool start_object(size_t) override {
    if (place_ == Place::outside) {
      place_ = Place::top;
    } else if (place_ == Place::top) {
      place_ = name_ == "__metadata__" ? Place::metadata : Place::entry;
      info_ = {};
      info_.name = name_;
      seen_ = 0;
      offsets_ = 0;
      other_keys_.clear();
    } else {
      return enter("an object");
    }
    return true;
  }

  bool key(string_t& name) override {
    if (place_ == Place::top) {
      name_ = name;
      if (!names_.insert(name).second) throw wrong("appears twice");
    } else if (place_ == Place::entry) {
      field_ = name == "dtype" ? dtype_field : name == "shape" ? shape_field : name == "data_offsets" ? offsets_field : other_field;
      if (field_ == other_field ? !other_keys_.insert(name).second : (seen_ & field_) != 0) throw wrong(qb::quoted(name) + " appears twice");
      seen_ |= field_;
    } else if (place_ == Place::metadata) {
      if (!other_keys_.insert(name).second) throw wrong(qb::quoted(name) + " appears twice");
      metadata_key_ = name;
    }
    return true;
  }

  bool end_object() override {
    if (place_ == Place::other) return leave();
    if (place_ == Place::entry) finish_entry();
    place_ = place_ == Place::top ? Place::outside : Place::top;
    return true;
  }

  bool start_array(size_t) override {
    if (place_ != Place::entry || (field_ != shape_field && field_ != offsets_field)) return enter("an array");
    place_ = field_ == shape_field ? Place::shape : Place::offsets;
    return true;
  }

  bool end_array() override {
    if (place_ == Place::other) return leave();
    if (place_ == Place::offsets && offsets_ != 2) throw wrong("data_offsets is not a pair of sizes");
    place_ = Place::entry;
    return true;
  }

  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception& error) override {
    throw InputError(fmt::format("{}: header is not valid JSON at byte {}: {}", file_, position, printable(error.what())));
  }

 private:
  enum class Place { outside, top, metadata, entry, shape, offsets, other };
  enum Field : unsigned { dtype_field = 1, shape_field = 2, offsets_field = 4, other_field = 8 };

  InputError wrong(const std::string& what) const { return InputError(fmt::format("{}: tensor {}: {}", file_, qb::quoted(name_), what)); }

  // A value where none of its kind belongs; under a key that is not ours anything goes.
  bool unfit(const std::string& found) const {
    switch (place_) {
      case Place::other: return true;
      case Place::outside: throw InputError(fmt::format("{}: header is {}, expected a JSON object", file_, found));
      case Place::top: throw wrong(fmt::format("is {}, expected an object with dtype, shape and data_offsets", found));
      case Place::metadata: throw InputError(fmt::format("{}: __metadata__ holds {}, expected only texts", file_, found));
      case Place::shape: throw wrong(fmt::format("shape has {}, expected at most {} sizes", found, kMaxDimensions));
      case Place::offsets: throw wrong(fmt::format("data_offsets has {}, expected a pair of sizes", found));
      case Place::entry: break;
    }
    if (field_ == other_field) return true;
    throw wrong(fmt::format("{} is {}", field_ == dtype_field ? "dtype" : field_ == shape_field ? "shape" : "data_offsets", found));
  }

  bool enter(const char* what) {
    if (place_ != Place::other && !(place_ == Place::entry && field_ == other_field)) return unfit(what);
    if (++depth_ > kMaxDepth) throw wrong(fmt::format("JSON nested deeper than {} levels", kMaxDepth));
    place_ = Place::other;
    return true;
  }

  bool leave() {
    if (--depth_ == 0) place_ = Place::entry;
    return true;
  }

  void finish_entry() {
    for (auto [bit, what] : {std::pair{dtype_field, "dtype"}, {shape_field, "shape"}, {offsets_field, "data_offsets"}})
      if ((seen_ & bit) == 0) throw wrong(fmt::format("{} is missing", what));
    const auto elements = element_count(info_.shape);
    if (!elements || *elements > INT64_MAX / 8) throw wrong("shape is too large to address");
    if (begin_ > end_) throw wrong(fmt::format("data_offsets [{}, {}] run backwards", begin_, end_));
    const auto expected = static_cast<uint64_t>(*elements * block_bytes(info_.dtype));
    if (end_ - begin_ != expected)
      throw wrong(fmt::format("{} bytes of data, but {} of shape [{}] need {}", end_ - begin_, name_of(info_.dtype),
                              fmt::join(info_.shape, ", "), expected));
    info_.offset = begin_;
    info_.bytes = expected;
    tensors_.push_back(std::move(info_));
  }

  const std::string& file_;
  std::vector<TensorInfo> tensors_;
  std::unordered_set<std::string> names_, other_keys_;
  Place place_ = Place::outside;
  Field field_ = other_field;
  int depth_ = 0;
  std::string name_, metadata_key_;
  std::map<std::string, std::string> metadata_;
  TensorInfo info_;
  unsigned seen_ = 0;
  uint64_t begin_ = 0, end_ = 0;
  int offsets_ = 0;
};

// Every byte of the data belongs to exactly one tensor.
void check_coverage(const std::vector<TensorInfo>& tensors, uint64_t data_bytes, const std::string& file) {
  std::vector<const TensorInfo*> order;
  order.reserve(tensors.size());
  for (const auto& info : tensors) order.push_back(&info);
  std::sort(order.begin(), order.end(), [](auto* a, auto* b) { return a->offset != b->offset ? a->offset < b->offset : a->bytes < b->bytes; });
  uint64_t at = 0;
  const TensorInfo* previous = nullptr;
  for (const TensorInfo* info : order) {
    if (info->offset < at)
      throw InputError(fmt::format("{}: data of tensors {} and {} overlap", file, qb::quoted(previous->name), qb::quoted(info->name)));
    if (info->offset > at)
      throw InputError(fmt::format("{}: tensor {}: data begin at {}, expected {}: no tensor owns the bytes between", file, qb::quoted(info->name),
                                   info->offset, at));
    at += info->bytes;
    if (at > data_bytes)
      throw InputError(fmt::format("{}: tensor {}: data_offsets end at {}, but the file holds {} bytes of data (truncated?)", file,
                                   qb::quoted(info->name), at, data_bytes));
    previous = info;
  }
  if (at != data_bytes) throw InputError(fmt::format("{}: {} bytes of data, but its tensors take {}", file, data_bytes, at));
}

}  // namespace

std::vector<TensorInfo> parse_safetensors_header(std::string_view header, uint64_t data_bytes, const std::string& file,
                                                 std::map<std::string, std::string>* metadata) {
  HeaderEvents events(file, header.size() / 96);  // about what an entry takes
  nlohmann::json::sax_parse(header.data(), header.data() + header.size(), &events);
  auto tensors = events.take();
  if (metadata) *metadata = events.take_metadata();
  check_coverage(tensors, data_bytes, file);
  return tensors;
}

}  // namespace qb
