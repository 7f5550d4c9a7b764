#include "core/quant/stored_spec.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <set>

#include "core/base/error.h"
#include "core/quant/spec_fields.h"

namespace qb {
namespace {

constexpr const char *kZeroPoint = "zero_point", *kCode = "code", *kFloat = "float";
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

// Activations have all that numbers can have, "dynamic" too.
const std::vector<SpecField>& fields() { return spec_fields(SpecRole::activations); }
// Which numbers they are counts here, not how they were found: "zero_point" is "code" or "float".
bool is_zero_point(const SpecField& field) { return field.knob.name == "round_zero_point"; }

}  // namespace

QuantSpec meaning_of(const QuantSpec& spec) {
  if (spec.storage != Storage::none) {
    QuantSpec meaning = spec_of(spec.storage);
    meaning.dynamic = spec.dynamic;
    return meaning;
  }
  QuantSpec said = spec;
  said.symmetric = spec.symmetric || spec.type.kind != NumberType::Kind::integer;
  said.scale_type_open = false;
  QuantSpec meaning;
  meaning.type = spec.type;
  for (const SpecField& field : fields())
    if (field.knob.name != "type" && field.stored(said)) field.set(meaning, field.get(said));
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
  nlohmann::ordered_json json;
  for (const SpecField& field : fields()) {
    if (!field.stored(spec)) continue;
    if (is_zero_point(field)) json[kZeroPoint] = spec.round_zero_point ? kCode : kFloat;
    else std::visit([&](const auto& value) { json[field.knob.name] = value; }, field.get(spec));
  }
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
  // A field that depends on others stands behind them in the table.
  for (const SpecField& field : fields()) {
    const std::string& name = field.knob.name;
    const char* key = is_zero_point(field) ? kZeroPoint : name.c_str();
    if (name == "dynamic" ? !keys.has(key) : !field.stored(spec)) continue;
    if (is_zero_point(field)) {
      const std::string zero = keys.text(key);
      if (zero != kCode && zero != kFloat) keys.fail(key, "code or float");
      spec.round_zero_point = zero == kCode;
    } else if (name == "type") {
      if (const auto type = NumberType::parse(keys.text(key))) spec.type = *type; else keys.fail(key, "int1 to int8 or a float eXmY");
    } else if (field.knob.type == KnobType::choice) {
      if (!field.set(spec, keys.text(key))) keys.fail(key, field.expected);
    } else if (field.knob.type == KnobType::boolean) {
      field.set(spec, keys.boolean(key));
      if (!spec.symmetric && spec.type.kind == NumberType::Kind::floating) keys.fail(key, "true for a float type");
    } else {
      field.set(spec, keys.size(key));
    }
  }
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
