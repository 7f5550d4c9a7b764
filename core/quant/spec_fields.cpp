#include "core/quant/spec_fields.h"

#include <algorithm>

#include "core/base/error.h"

namespace qb {
namespace {

using ByType = SpecField::ByType;
using Test = bool (*)(const QuantSpec&);

constexpr int64_t kLargestGroup = 1 << 20, kMostHeads = 1 << 16;

bool always(const QuantSpec&) { return true; }
bool never(const QuantSpec&) { return false; }
bool plain(const QuantSpec& s) { return s.storage == Storage::none; }
bool integer(const QuantSpec& s) { return plain(s) && s.type.kind == NumberType::Kind::integer; }
bool asymmetric(const QuantSpec& s) { return !s.symmetric; }
bool symmetric_integer(const QuantSpec& s) { return integer(s) && s.symmetric; }
template <Granularity G>
bool per(const QuantSpec& s) { return plain(s) && s.granularity == G; }
template <RangeMethod M>
bool ranged(const QuantSpec& s) { return s.range == M; }

// Whether one of these is not at its default: settings of what is not chosen only stand when they were changed, and then together.
template <class... Members>
bool changed(const QuantSpec& s, Members... members) {
  static const QuantSpec defaults;
  return ((s.*members != defaults.*members) || ...);
}
bool writes_blocks(const QuantSpec& s) { return per<Granularity::block>(s) || changed(s, &QuantSpec::block_rows, &QuantSpec::block_cols); }
bool writes_mse(const QuantSpec& s) { return ranged<RangeMethod::mse>(s) || changed(s, &QuantSpec::mse_grid, &QuantSpec::mse_max_shrink, &QuantSpec::mse_norm); }
bool writes_hqq(const QuantSpec& s) {
  return ranged<RangeMethod::hqq>(s) || changed(s, &QuantSpec::hqq_norm, &QuantSpec::hqq_beta, &QuantSpec::hqq_kappa, &QuantSpec::hqq_iterations);
}

template <class T>
void bind(SpecField& field, T QuantSpec::*member) {
  field.knob.type = std::is_same_v<T, bool> ? KnobType::boolean : std::is_same_v<T, int64_t> ? KnobType::integer : KnobType::real;
  field.get = [member](const QuantSpec& spec) { return KnobValue(spec.*member); };
  field.set = [member](QuantSpec& spec, const KnobValue& value) {
    if constexpr (std::is_same_v<T, double>)
      if (const auto* whole = std::get_if<int64_t>(&value)) {  // 1 for 1.0
        spec.*member = static_cast<double>(*whole);
        return true;
      }
    if (!std::holds_alternative<T>(value)) return false;
    spec.*member = std::get<T>(value);
    return true;
  };
}

// A choice through its parse function.
template <class T>
void bind(SpecField& field, T QuantSpec::*member, std::optional<T> (*parse)(const std::string&)) {
  field.knob.type = KnobType::choice;
  field.get = [member](const QuantSpec& spec) { return KnobValue(to_text(spec.*member)); };
  field.set = [member, parse](QuantSpec& spec, const KnobValue& value) {
    const auto* text = std::get_if<std::string>(&value);
    const auto parsed = text ? parse(*text) : std::nullopt;
    if (parsed) spec.*member = *parsed;
    return parsed.has_value();
  };
}

struct Choices {
  std::vector<std::string> values, titles;
};

bool has_storage(SpecRole role, Storage storage) {
  return role == SpecRole::weights || (role == SpecRole::activations && activation_misfit(input_spec_of(storage), spec_of(storage).group_size).empty());
}

SpecField type_field(SpecRole role) {
  SpecField field;
  field.knob = {"type", "Number type", KnobType::choice, {}, 0, 0, {"int8", "int6", "int5", "int4", "int3", "int2", "e4m3", "e5m2", "e3m2", "e2m1"}, "",
                "Integers of 1 to 8 bits, floats written eXmY: exponent and mantissa bits; or a file format's type, which fixes the rest.", ""};
  if (role == SpecRole::cache) field.knob.help = "Integers of 1 to 8 bits, or floats written eXmY: exponent and mantissa bits.";
  for (const StorageInfo& info : storage_types())
    if (has_storage(role, info.storage)) field.knob.choices.push_back(info.name);
  field.expected = "int1 … int8, a float such as e4m3, or a storage type such as q4_K or nvfp4";
  field.by_type = ByType::free;
  field.get = [](const QuantSpec& spec) { return KnobValue(type_text(spec)); };
  field.set = [role](QuantSpec& spec, const KnobValue& value) {
    const auto* text = std::get_if<std::string>(&value);
    if (!text) return false;
    if (const auto storage = parse_storage(*text); storage && has_storage(role, *storage)) {
      spec = role == SpecRole::weights ? spec_of(*storage) : input_spec_of(*storage);
      return true;
    }
    const auto type = NumberType::parse(*text);
    if (!type) return false;
    if (spec.storage != Storage::none) spec = default_spec(role);  // what the type before fixed
    spec.type = *type;
    return true;
  };
  field.settle = [](QuantSpec& spec) {
    if (plain(spec) && spec.type.kind == NumberType::Kind::floating) spec.symmetric = true;
  };
  field.applies = field.written = field.stored = always;
  return field;
}

Choices granularities(SpecRole role) {
  if (role == SpecRole::weights)
    return {{"tensor", "channel", "group", "block", "head"}, {"One per tensor", "One per output channel", "One per group of inputs", "One per block", "One per head"}};
  return {{"tensor", "token", "group", "head"}, {"One per tensor", "One per token", "One per group of channels", "One per head"}};
}

const char* granularity_help(SpecRole role) {
  switch (role) {
    case SpecRole::weights: return "How many weights share one scale.";
    case SpecRole::activations: return "How many inputs share one scale; ranges of the calibration text (Dynamic off) have one per tensor.";
    case SpecRole::cache:
      return "How many values share one scale: of each token one for all heads, one a head or one a group of its channels; fixed ranges are one for all or one a head.";
  }
  throw InternalError("unknown role");
}

std::vector<SpecField> make_fields(SpecRole role) {
  const bool weights = role == SpecRole::weights, cache = role == SpecRole::cache;
  std::vector<SpecField> fields = {type_field(role)};
  auto add = [&](const char* name, const char* title, const char* help, Test applies, Test written, Test stored) -> SpecField& {
    SpecField& field = fields.emplace_back();
    field.knob.name = name;
    field.knob.title = title;
    field.knob.help = help;
    field.applies = applies;
    field.written = written;
    field.stored = stored;
    return field;
  };
  auto number = [](SpecField& field, auto member, double minimum, double maximum, const char* unit = "") {
    bind(field, member);
    field.knob.minimum = minimum;
    field.knob.maximum = maximum;
    field.knob.unit = unit;
  };

  bind(add("symmetric", "Symmetric", "The range is centred on zero, so that no zero point is stored.", integer, always, always), &QuantSpec::symmetric);

  SpecField& granularity = add("granularity", "Scales", granularity_help(role), plain, always, always);
  bind(granularity, &QuantSpec::granularity, parse_granularity);
  granularity.knob.choices = granularities(role).values;
  granularity.choice_titles = granularities(role).titles;
  granularity.expected = "tensor, channel, group, block, token or head";
  if (role == SpecRole::activations)
    granularity.settle = [](QuantSpec& s) { s.dynamic = s.dynamic || s.granularity != Granularity::tensor; };  // of the calibration text are those of a tensor
  if (cache)
    granularity.settle = [](QuantSpec& s) {
      if (s.granularity != Granularity::head) s.dynamic = s.granularity != Granularity::tensor;
    };

  number(add("group_size", "Group size", cache ? "Channels of a head that share one scale; must divide a head's." : "Inputs that share one scale; must divide every layer's number of inputs.",
             per<Granularity::group>, [](const QuantSpec& s) { return per<Granularity::group>(s) || changed(s, &QuantSpec::group_size); }, per<Granularity::group>),
         &QuantSpec::group_size, 1, kLargestGroup, cache ? "channels" : "inputs");

  SpecField& rows = add("block_rows", "Block rows", "Output channels of a block that shares one scale.", per<Granularity::block>, writes_blocks, per<Granularity::block>);
  number(rows, &QuantSpec::block_rows, 1, kLargestGroup, "rows");
  rows.offered = weights;
  SpecField& cols = add("block_cols", "Block columns", "Inputs of a block that shares one scale.", per<Granularity::block>, writes_blocks, per<Granularity::block>);
  number(cols, &QuantSpec::block_cols, 1, kLargestGroup, "columns");
  cols.offered = weights;

  SpecField& heads = add("heads", "Heads", weights ? "Number of heads along the rows." : "Number of heads along the channels.", per<Granularity::head>,
                         [](const QuantSpec& s) { return changed(s, &QuantSpec::heads); }, per<Granularity::head>);
  number(heads, &QuantSpec::heads, 0, kMostHeads);
  heads.offered = !cache;  // those that the layer has

  bind(add("round_zero_point", "Integer zero point", "Off: the zero point stays a float.", [](const QuantSpec& s) { return integer(s) && asymmetric(s); },
           [](const QuantSpec& s) { return integer(s) || changed(s, &QuantSpec::round_zero_point); }, asymmetric),
       &QuantSpec::round_zero_point);
  bind(add("narrow_range", "Narrow range", "Drops the lowest code, so that codes are symmetric too.", symmetric_integer,
           [](const QuantSpec& s) { return integer(s) || changed(s, &QuantSpec::narrow_range); }, never),
       &QuantSpec::narrow_range);
  bind(add("full_scale", "Full scale", "Scale = largest value / half the code range, as compressed-tensors does; off: as LLMC and AutoGPTQ do.", symmetric_integer,
           [](const QuantSpec& s) { return integer(s) || changed(s, &QuantSpec::full_scale); }, never),
       &QuantSpec::full_scale);

  SpecField& scale = add("scale_type", "Scale format", "How the target format stores scales; what is evaluated is rounded the same way. By the target: as its engines compute.", plain,
                         [](const QuantSpec& s) { return !s.scale_type_open || changed(s, &QuantSpec::scale_type); }, always);
  bind(scale, &QuantSpec::scale_type, parse_scale_type);
  const std::vector<std::string> types = {"float32", "float16", "bfloat16"}, or_open = {"", "float32", "float16", "bfloat16"}, open_titles = {"By the target, else float16", "float32", "float16", "bfloat16"};
  scale.knob.choices = weights ? or_open : types;  // weights may leave it to the target
  scale.choice_titles = weights ? open_titles : types;
  scale.expected = "float32, float16 or bfloat16";
  scale.get = [written = scale.written](const QuantSpec& s) { return KnobValue(written(s) ? to_text(s.scale_type) : std::string()); };
  scale.set = [weights, set = scale.set](QuantSpec& s, const KnobValue& value) {
    const bool open = weights && value == KnobValue(std::string());
    if (!set(s, open ? KnobValue(to_text(QuantSpec().scale_type)) : value)) return false;
    s.scale_type_open = open;
    return true;
  };

  SpecField& range = add("range", "Range", "How the range of each scale is found.", plain, [](const QuantSpec& s) { return plain(s) || s.range != spec_of(s.storage).range; }, never);
  bind(range, &QuantSpec::range, parse_range_method);
  range.knob.choices = {"minmax", "mse", "hqq"};
  range.choice_titles = {"Smallest to largest", "Least squared error", "Half-quadratic (HQQ)"};
  range.expected = "minmax, mse or hqq";
  range.by_type = ByType::free;
  range.offered = weights;

  auto search = [&](const char* name, const char* title, const char* help, RangeMethod method) -> SpecField& {
    const bool mse = method == RangeMethod::mse;
    SpecField& field = mse ? add(name, title, help, [](const QuantSpec& s) { return plain(s) && ranged<RangeMethod::mse>(s); }, writes_mse, never)
                           : add(name, title, help, ranged<RangeMethod::hqq>, writes_hqq, never);
    field.by_type = mse ? ByType::own_search : ByType::free;
    field.offered = weights;
    return field;
  };
  number(search("mse_grid", "Grid steps", "Shrink steps tried.", RangeMethod::mse), &QuantSpec::mse_grid, 1, 10000, "steps");
  number(search("mse_max_shrink", "Largest shrink", "Largest shrink tried, as a part of the range.", RangeMethod::mse), &QuantSpec::mse_max_shrink, 0, 0.999);
  number(search("mse_norm", "Error norm", "The error counts to this power.", RangeMethod::mse), &QuantSpec::mse_norm, 0.1, 10);
  number(search("hqq_norm", "Sparse norm", "The sparse norm of the error.", RangeMethod::hqq), &QuantSpec::hqq_norm, 0.05, 1);
  number(search("hqq_beta", "Splitting weight", "Weight of the quadratic term at the start.", RangeMethod::hqq), &QuantSpec::hqq_beta, 1e-6, 1e6);
  number(search("hqq_kappa", "Growth of the splitting weight", "Factor on that weight at each step.", RangeMethod::hqq), &QuantSpec::hqq_kappa, 1, 100);
  number(search("hqq_iterations", "Iterations", "Alternations between error and zero points.", RangeMethod::hqq), &QuantSpec::hqq_iterations, 0, 1000, "steps");

  if (!weights) {
    SpecField& dynamic = add("dynamic", "Dynamic",
                             cache ? "Ranges are computed for each token; off: fixed ones, taken from the calibration text."
                                   : "Ranges are computed at each call. Off: one range for each linear's input, taken from the calibration text; such ranges have one scale per tensor, so that Scales changes too.",
                             plain, plain, [](const QuantSpec& s) { return !s.dynamic; });
    bind(dynamic, &QuantSpec::dynamic);
    dynamic.settle = [cache](QuantSpec& s) {
      if (!s.dynamic && !(cache && s.granularity == Granularity::head)) s.granularity = Granularity::tensor;
      if (s.dynamic && cache && s.granularity == Granularity::tensor) s.granularity = Granularity::token;
    };
  }
  const QuantSpec defaults = default_spec(role);
  for (SpecField& field : fields) field.knob.default_value = field.get(defaults);
  return fields;
}

}  // namespace

std::string to_text(SpecRole role) {
  switch (role) {
    case SpecRole::weights: return "weights";
    case SpecRole::activations: return "activations";
    case SpecRole::cache: return "kv_cache";
  }
  throw InternalError("unknown role");
}

QuantSpec default_spec(SpecRole role) {
  if (role == SpecRole::cache) return default_cache_spec();
  QuantSpec spec;
  if (role == SpecRole::activations) {
    spec.type.bits = 8;
    spec.granularity = Granularity::token;
  }
  spec.scale_type_open = role == SpecRole::weights;
  return spec;
}

const std::vector<SpecField>& spec_fields(SpecRole role) {
  static const std::vector<SpecField> weights = make_fields(SpecRole::weights), activations = make_fields(SpecRole::activations), cache = make_fields(SpecRole::cache);
  return role == SpecRole::weights ? weights : role == SpecRole::activations ? activations : cache;
}

const SpecField* find_spec_field(SpecRole role, const std::string& name) {
  const auto& fields = spec_fields(role);
  const auto found = std::find_if(fields.begin(), fields.end(), [&](const SpecField& field) { return field.knob.name == name; });
  return found == fields.end() ? nullptr : &*found;
}

bool choose(QuantSpec& spec, const SpecField& field, const KnobValue& value) {
  if (!field.set(spec, value)) return false;
  if (field.settle) field.settle(spec);
  return true;
}

bool is_written(const SpecField& field, const QuantSpec& spec) {
  if (spec.storage != Storage::none && field.by_type != ByType::free) return false;  // the type says it
  return field.written(spec);
}

}  // namespace qb
