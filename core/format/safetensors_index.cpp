#include "core/format/safetensors_index.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <unordered_set>

#include "core/base/error.h"
#include "core/base/utf8.h"

namespace qb {
namespace {

constexpr int kMaxDepth = 16;

// A shard lies beside its index; anything else could read files that are not the model's.
bool is_plain_file_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos;
}

// Only weight_map matters; the rest (metadata, total_size) is passed over.
class IndexEvents final : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit IndexEvents(const std::string& file) : file_(file) {}

  std::vector<std::pair<std::string, std::string>> take() {
    if (shards_.empty()) throw InputError(file_ + (seen_map_ ? ": weight_map is empty" : ": weight_map is missing"));
    return std::move(shards_);
  }

  bool null() override { return value("null"); }
  bool boolean(bool) override { return value("a truth value"); }
  bool number_integer(number_integer_t) override { return value("a number"); }
  bool number_unsigned(number_unsigned_t) override { return value("a number"); }
  bool number_float(number_float_t, const string_t&) override { return value("a number"); }
  bool binary(binary_t&) override { return value("binary data"); }

  bool string(string_t& shard) override {
    if (!in_map()) return value("a text");
    if (!is_plain_file_name(shard))
      throw InputError(fmt::format("{}: weight_map[{}] is {}, expected a file beside the index", file_, qb::quoted(key_), qb::quoted(shard)));
    shards_.emplace_back(key_, shard);
    return true;
  }

  bool key(string_t& name) override {
    if (depth_ == 1 || in_map()) {
      key_ = name;
      if (!(depth_ == 1 ? sections_ : tensors_).insert(name).second)
        throw InputError(fmt::format("{}: {}{} appears twice", file_, in_map() ? "weight_map: " : "", qb::quoted(name)));
      if (depth_ == 1) map_next_ = name == "weight_map";
    }
    return true;
  }

  bool start_object(size_t) override {
    if (depth_ == 1 && map_next_)
      map_depth_ = 2, seen_map_ = true;
    else if (depth_ > 0)
      value("an object");
    return deeper();
  }

  bool start_array(size_t) override {
    value("an array");
    return deeper();
  }

  bool end_object() override {
    if (in_map()) map_depth_ = 0;
    --depth_;
    return true;
  }

  bool end_array() override {
    --depth_;
    return true;
  }

  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception& error) override {
    throw InputError(fmt::format("{}: not valid JSON at byte {}: {}", file_, position, printable(error.what())));
  }

 private:
  bool in_map() const { return map_depth_ > 0 && depth_ == map_depth_; }

  bool value(const char* found) const {
    if (depth_ == 0) throw InputError(fmt::format("{}: is {}, expected an object with weight_map", file_, found));
    if (depth_ == 1 && map_next_) throw InputError(fmt::format("{}: weight_map is {}, expected an object", file_, found));
    if (in_map()) throw InputError(fmt::format("{}: weight_map[{}] is {}, expected a file name", file_, qb::quoted(key_), found));
    return true;
  }

  bool deeper() {
    if (++depth_ > kMaxDepth) throw InputError(fmt::format("{}: JSON nested deeper than {} levels", file_, kMaxDepth));
    return true;
  }

  const std::string& file_;
  std::vector<std::pair<std::string, std::string>> shards_;
  std::unordered_set<std::string> sections_, tensors_;
  std::string key_;
  int depth_ = 0, map_depth_ = 0;
  bool map_next_ = false, seen_map_ = false;
};

}  // namespace

std::vector<std::pair<std::string, std::string>> parse_safetensors_index(std::string_view text, const std::string& file) {
  IndexEvents events(file);
  nlohmann::json::sax_parse(text.data(), text.data() + text.size(), &events);
  return events.take();
}

}  // namespace qb
