#include "core/quant/stored_spec.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <set>

#include "core/base/error.h"

namespace qb {
namespace {

constexpr const char *kCode = "code", *kFloat = "float";
constexpr int64_t kLargest = int64_t{1} << 40;

// Reads an object's keys one by one; a key that nobody asked for is an error.
class Keys {
 public:
  Keys(const nlohmann::json& object, const std::string& what) : object_(object), what_(what) {
    if (!object.is_object()) throw InputError(fmt::format("{}: is {}, expected an object", what, object.type_name()));
  }
  bool has(const char* key) const { return object_.contains(key); }
  std::string text(const char* key) { return value(key, object_.contains(key) && object_[key].is_string(), "a text").get<std::string>(); }
  bool boolean(const char* key) { return value(key, object_.contains(key) && object_[key].is_boolean(), "true or false").get<bool>(); }
  int64_t size(const char* key) {
    const auto& found = value(key, object_.contains(key) && object_[key].is_number_integer(), "a positive integer");
    const auto number = found.get<int64_t>();
    if (number < 1 || number > kLargest) fail(key, "a positive integer");
    return number;
  }
  [[noreturn]] void fail(const char* key, const std::string& expected) const {
    throw InputError(fmt::format("{}: \"{}\" is {}, expected {}", what_, key, object_.contains(key) ? object_[key].dump() : "missing", expected));
  }
  void require_all_read() const {
    for (const auto& [key, ignored] : object_.items())
      if (!read_.contains(key)) throw InputError(fmt::format("{}: key \"{}\" is not known; written by a newer version?", what_, key));
  }

 private:
  const nlohmann::json& value(const char* key, bool sound, const char* expected) {
    read_.insert(key);
    if (!sound) fail(key, expected);
    return object_[key];
  }
  const nlohmann::json& object_;
  const std::string& what_;
  std::set<std::string> read_;
};

}  // namespace

QuantSpec meaning_of(const QuantSpec& spec) {
  if (spec.storage != Storage::none) {
    QuantSpec meaning = spec_of(spec.storage);
    meaning.dynamic = spec.dynamic;
    return meaning;
  }
  const bool integer = spec.type.kind == NumberType::Kind::integer;
  QuantSpec meaning;
  meaning.type = spec.type;
  meaning.symmetric = spec.symmetric || !integer;
  meaning.granularity = spec.granularity;
  if (spec.granularity == Granularity::group) meaning.group_size = spec.group_size;
  if (spec.granularity == Granularity::block) meaning.block_rows = spec.block_rows, meaning.block_cols = spec.block_cols;
  if (spec.granularity == Granularity::head) meaning.heads = spec.heads;
  if (!meaning.symmetric) meaning.round_zero_point = spec.round_zero_point;
  meaning.scale_type = spec.scale_type;
  meaning.dynamic = spec.dynamic;
  return meaning;
}

QuantSpec cache_meaning(const QuantSpec& spec) {
  QuantSpec meaning = meaning_of(spec);
  if (spec.type.kind != NumberType::Kind::integer || !spec.symmetric) return meaning;
  meaning.narrow_range = spec.narrow_range;
  if (spec.dynamic && !spec.narrow_range) meaning.full_scale = spec.full_scale;  // a narrow range has its own
  return meaning;
}

std::string stored_spec(const QuantSpec& given) {
  const QuantSpec spec = meaning_of(given);
  if (spec.storage != Storage::none) {
    nlohmann::ordered_json json = {{"storage", info_of(spec.storage).name}};
    if (!spec.dynamic) json["dynamic"] = false;
    return json.dump();
  }
  nlohmann::ordered_json json = {{"type", spec.type.text()}, {"symmetric", spec.symmetric}, {"granularity", to_text(spec.granularity)}};
  if (spec.granularity == Granularity::group) json["group_size"] = spec.group_size;
  if (spec.granularity == Granularity::block) json["block_rows"] = spec.block_rows, json["block_cols"] = spec.block_cols;
  if (spec.granularity == Granularity::head) json["heads"] = spec.heads;
  if (!spec.symmetric) json["zero_point"] = spec.round_zero_point ? kCode : kFloat;
  json["scale_type"] = to_text(spec.scale_type);
  if (!spec.dynamic) json["dynamic"] = false;
  return json.dump();
}

QuantSpec parse_stored_spec(const std::string& text, const std::string& what) {
  const auto json = nlohmann::json::parse(text, nullptr, false);
  if (json.is_discarded()) throw InputError(fmt::format("{}: is not valid JSON", what));
  Keys keys(json, what);
  if (keys.has("storage")) {
    const auto storage = parse_storage(keys.text("storage"));
    if (!storage) keys.fail("storage", "a storage type such as q4_K");
    QuantSpec spec = spec_of(*storage);
    if (keys.has("dynamic")) spec.dynamic = keys.boolean("dynamic");
    keys.require_all_read();
    return spec;
  }
  QuantSpec spec;
  if (const auto type = NumberType::parse(keys.text("type"))) spec.type = *type; else keys.fail("type", "int1 to int8 or a float eXmY");
  spec.symmetric = keys.boolean("symmetric");
  if (!spec.symmetric && spec.type.kind == NumberType::Kind::floating) keys.fail("symmetric", "true for a float type");
  if (const auto found = parse_granularity(keys.text("granularity"))) spec.granularity = *found; else keys.fail("granularity", "tensor, channel, group, block, token or head");
  if (spec.granularity == Granularity::group) spec.group_size = keys.size("group_size");
  if (spec.granularity == Granularity::block) spec.block_rows = keys.size("block_rows"), spec.block_cols = keys.size("block_cols");
  if (spec.granularity == Granularity::head) spec.heads = keys.size("heads");
  if (!spec.symmetric) {
    const std::string zero = keys.text("zero_point");
    if (zero != kCode && zero != kFloat) keys.fail("zero_point", "code or float");
    spec.round_zero_point = zero == kCode;
  }
  if (const auto found = parse_scale_type(keys.text("scale_type"))) spec.scale_type = *found; else keys.fail("scale_type", "float32, float16 or bfloat16");
  if (keys.has("dynamic")) spec.dynamic = keys.boolean("dynamic");
  keys.require_all_read();
  return spec;
}

std::string stored_cache_spec(const QuantSpec& given) {
  const QuantSpec spec = cache_meaning(given);
  auto json = nlohmann::ordered_json::parse(stored_spec(spec));
  json.erase("heads");  // those that the layer has
  if (spec.narrow_range) json["narrow_range"] = true;
  if (!spec.full_scale) json["full_scale"] = false;
  return json.dump();
}

QuantSpec parse_stored_cache_spec(const std::string& text, const std::string& what) {
  auto json = nlohmann::json::parse(text, nullptr, false);
  if (!json.is_object()) throw InputError(fmt::format("{}: is not a JSON object", what));
  auto taken = [&](const char* key, bool otherwise) {
    if (!json.contains(key)) return otherwise;
    if (!json[key].is_boolean()) throw InputError(fmt::format("{}: \"{}\" is {}, expected true or false", what, key, json[key].dump()));
    const bool value = json[key].get<bool>();
    json.erase(key);
    return value;
  };
  const bool narrow = taken("narrow_range", false), full = taken("full_scale", true);
  const bool by_head = json.contains("granularity") && json["granularity"] == to_text(Granularity::head);
  if (by_head) json["heads"] = 1;
  QuantSpec spec = parse_stored_spec(json.dump(), what);
  if (by_head) spec.heads = 0;
  spec.narrow_range = narrow;
  spec.full_scale = full;
  return spec;
}

}  // namespace qb
