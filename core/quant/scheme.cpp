#include "core/quant/scheme.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <regex>

#include "core/base/error.h"

namespace qb {

std::optional<NumberType> NumberType::parse(const std::string& text) {
  static const std::regex integer("int([1-8])"), floating("e([1-8])m(\\d|10)");
  std::smatch match;
  if (std::regex_match(text, match, integer)) return NumberType{Kind::integer, std::stoi(match[1]), 0, 0};
  if (std::regex_match(text, match, floating)) {
    const int exponent = std::stoi(match[1]), mantissa = std::stoi(match[2]);
    return NumberType{Kind::floating, 1 + exponent + mantissa, exponent, mantissa};
  }
  return std::nullopt;
}

std::string NumberType::text() const {
  return kind == Kind::integer ? fmt::format("int{}", bits) : fmt::format("e{}m{}", exponent_bits, mantissa_bits);
}

namespace {

template <class E>
struct Name {
  E value;
  const char* text;
};

constexpr Name<Granularity> kGranularities[] = {{Granularity::tensor, "tensor"}, {Granularity::channel, "channel"}, {Granularity::group, "group"},
                                                {Granularity::block, "block"},   {Granularity::token, "token"},     {Granularity::head, "head"}};
constexpr Name<HeadRounding> kHeadRoundings[] = {{HeadRounding::rtn, "rtn"}, {HeadRounding::gptq, "gptq"}};
constexpr Name<RangeMethod> kRanges[] = {{RangeMethod::minmax, "minmax"}, {RangeMethod::mse, "mse"}, {RangeMethod::hqq, "hqq"}};
constexpr Name<ScaleType> kScaleTypes[] = {{ScaleType::f32, "float32"}, {ScaleType::f16, "float16"}, {ScaleType::bf16, "bfloat16"},
                                              {ScaleType::e8m0, "e8m0"},   {ScaleType::e4m3, "e4m3"}};

template <class E, size_t N>
std::string text_of(const Name<E> (&names)[N], E value) {
  for (const auto& name : names)
    if (name.value == value) return name.text;
  throw InternalError("value outside its enumeration");
}

template <class E, size_t N>
std::optional<E> value_of(const Name<E> (&names)[N], const std::string& text) {
  for (const auto& name : names)
    if (text == name.text) return name.value;
  return std::nullopt;
}

// Glob with * and ?, matched against the whole text.
bool glob(const char* pattern, const char* text) {
  const char *star = nullptr, *retry = nullptr;
  while (*text) {
    if (*pattern == '*') {
      star = pattern++;
      retry = text;
    } else if (*pattern == '?' || *pattern == *text) {
      ++pattern;
      ++text;
    } else if (star) {
      pattern = star + 1;
      text = ++retry;
    } else {
      return false;
    }
  }
  while (*pattern == '*') ++pattern;
  return *pattern == 0;
}

// Sizes that divide n, largest first: multiples of 8 up to 256, which kernels know, or any where there are none.
std::string fitting_groups(int64_t n) {
  std::vector<int64_t> sizes, others;
  for (int64_t g = std::min<int64_t>(n, 256); g >= 2; --g)
    if (n % g == 0) (g % 8 == 0 ? sizes : others).push_back(g);
  if (sizes.empty()) sizes = others;
  if (sizes.empty()) return "none; quantize it per channel";
  if (sizes.size() > 10) sizes.resize(10);
  return fmt::format("{}", fmt::join(sizes, ", "));
}

}  // namespace

std::string to_text(Granularity value) { return text_of(kGranularities, value); }
std::string to_text(RangeMethod value) { return text_of(kRanges, value); }
std::string to_text(ScaleType value) { return text_of(kScaleTypes, value); }
std::string to_text(HeadRounding value) { return text_of(kHeadRoundings, value); }
std::optional<HeadRounding> parse_head_rounding(const std::string& text) { return value_of(kHeadRoundings, text); }
std::optional<Granularity> parse_granularity(const std::string& text) { return value_of(kGranularities, text); }
std::optional<RangeMethod> parse_range_method(const std::string& text) { return value_of(kRanges, text); }
std::optional<ScaleType> parse_scale_type(const std::string& text) { return value_of(kScaleTypes, text); }

QuantSpec spec_of(Storage storage) {
  const StorageInfo& info = info_of(storage);
  QuantSpec spec;
  spec.storage = storage;
  spec.type = *NumberType::parse(info.number);
  spec.symmetric = !info.minimum;
  spec.granularity = Granularity::group;
  spec.group_size = info.group;
  spec.round_zero_point = !info.minimum;
  spec.narrow_range = storage == Storage::q8_0;  // llama.cpp's kernels negate codes
  spec.scale_type = storage == Storage::mxfp4 || storage == Storage::mxfp8 ? ScaleType::e8m0 : storage == Storage::nvfp4 ? ScaleType::e4m3 : ScaleType::f16;
  spec.range = RangeMethod::mse;
  return spec;
}

QuantSpec input_spec_of(Storage storage) {
  QuantSpec spec = spec_of(storage);
  spec.dynamic = storage != Storage::nvfp4;
  return spec;
}

QuantSpec default_cache_spec() {
  QuantSpec spec;
  spec.type = {NumberType::Kind::integer, 8};
  spec.granularity = Granularity::head;
  spec.scale_type = ScaleType::f32;
  return spec;
}

std::string type_text(const QuantSpec& spec) { return spec.storage == Storage::none ? spec.type.text() : info_of(spec.storage).name; }

int64_t grid_width(const QuantSpec& spec, int64_t in_features) {
  if (spec.storage != Storage::none && info_of(spec.storage).super > 0) return info_of(spec.storage).super;
  if (spec.granularity == Granularity::group) return spec.group_size;
  return spec.granularity == Granularity::block ? spec.block_cols : in_features;
}

bool has_exact_zero(const QuantSpec& spec) {
  if (spec.storage != Storage::none) return !info_of(spec.storage).minimum && spec.storage != Storage::iq4_nl;
  return spec.type.kind != NumberType::Kind::integer || spec.symmetric || spec.round_zero_point;
}

bool matches(const std::string& pattern, const std::string& module) {
  if (pattern.rfind("re:", 0) == 0) {
    try {
      return std::regex_match(module, std::regex(pattern.substr(3)));
    } catch (const std::regex_error& e) {
      throw InputError(fmt::format("pattern \"{}\" is not a regular expression: {}", pattern, e.what()));
    }
  }
  return glob(pattern.c_str(), module.c_str());
}

std::optional<QuantSpec> Scheme::weights_of(const std::string& module) const {
  for (const auto& pattern : ignore)
    if (matches(pattern, module)) return std::nullopt;
  for (const auto& entry : overrides)
    if (matches(entry.match, module)) return entry.weights;
  return weights;
}

std::optional<QuantSpec> Scheme::activations_of(const std::string& module) const {
  // What enters a linear is quantized where its weight is, kernels have no other combination; or, where no weights are, unless
  // the linear is kept in float.
  Scheme any = *this;
  if (!weights) any.weights = QuantSpec{};
  return any.weights_of(module) ? activations : std::nullopt;
}

std::string describe(const QuantSpec& spec) {
  if (spec.storage != Storage::none) return type_text(spec) + (spec.range == RangeMethod::hqq ? " hqq" : "");
  std::string text = spec.type.text();
  switch (spec.granularity) {
    case Granularity::group: text += fmt::format(" g{}", spec.group_size); break;
    case Granularity::block: text += fmt::format(" block {}×{}", spec.block_rows, spec.block_cols); break;
    default: text += " per " + to_text(spec.granularity);
  }
  const bool integer = spec.type.kind == NumberType::Kind::integer;
  if (integer) text += spec.symmetric ? " symmetric" : " asymmetric";
  if (integer && !spec.symmetric && !spec.round_zero_point) text += " float zero";
  if (spec.range != RangeMethod::minmax) text += " " + to_text(spec.range);
  return text;
}

namespace {

std::string describe_blocks(const Scheme& scheme) {
  auto short_type = [](const QuantSpec& spec) {
    return spec.type.kind == NumberType::Kind::integer || spec.storage != Storage::none ? std::to_string(spec.type.bits) : spec.type.text();
  };
  if (!scheme.weights && !scheme.activations && !scheme.kv_cache) return "float";
  const std::string cache = scheme.kv_cache ? "KV" + short_type(*scheme.kv_cache) : "";
  const std::string inputs = (scheme.activations ? " A" + short_type(*scheme.activations) : "") + (cache.empty() ? "" : " " + cache);
  if (!scheme.mix.empty()) return scheme.mix + inputs;
  if (scheme.weights && scheme.weights->storage != Storage::none)
    return describe(*scheme.weights) + inputs;
  std::string text = scheme.weights ? "W" + short_type(*scheme.weights) : "W16";
  text += scheme.activations ? "A" + short_type(*scheme.activations) : "A16";
  text += cache;
  if (scheme.weights) {
    const std::string whole = describe(*scheme.weights);
    text += whole.substr(whole.find(' '));
  }
  return text;
}

}  // namespace

std::string describe(const Scheme& scheme) {
  std::string text = describe_blocks(scheme);
  const std::string rounding = scheme.head_rounding == HeadRounding::gptq ? " gptq" : "";
  if (scheme.embedding && scheme.head && *scheme.embedding == *scheme.head) return fmt::format("{}, embedding and head {}{}", text, describe(*scheme.head), rounding);
  if (scheme.embedding) text += ", embedding " + describe(*scheme.embedding) + (scheme.head ? "" : rounding);
  if (scheme.head) text += ", head " + describe(*scheme.head) + rounding;
  return text;
}

double bits_per_weight(const QuantSpec& spec, int64_t out_features, int64_t in_features) {
  const double weights = static_cast<double>(out_features) * static_cast<double>(in_features);
  if (spec.storage != Storage::none) return info_of(spec.storage).bits + (spec.storage == Storage::nvfp4 ? 32 / weights : 0);
  auto ceil_div = [](int64_t a, int64_t b) { return (a + b - 1) / b; };
  double units = 0;
  switch (spec.granularity) {
    case Granularity::tensor: units = 1; break;
    case Granularity::channel:
    case Granularity::token: units = static_cast<double>(out_features); break;
    case Granularity::group: units = static_cast<double>(out_features * (in_features / spec.group_size)); break;
    case Granularity::block: units = static_cast<double>(ceil_div(out_features, spec.block_rows) * ceil_div(in_features, spec.block_cols)); break;
    case Granularity::head: units = static_cast<double>(spec.heads); break;
  }
  const double scale_bits = spec.scale_type == ScaleType::f32 ? 32 : 16;
  const bool has_zero = spec.type.kind == NumberType::Kind::integer && !spec.symmetric;
  const double zero_bits = has_zero ? (spec.round_zero_point ? spec.type.bits : scale_bits) : 0;
  return spec.type.bits + units * (scale_bits + zero_bits) / weights;
}

namespace {

// What is wrong with a spec whatever the matrix.
std::string range_misfit(const QuantSpec& spec) {
  if (spec.storage != Storage::none) {
    if (spec.range == RangeMethod::hqq && spec.storage != Storage::q4_1 && spec.storage != Storage::q5_1)
      return fmt::format("range hqq optimises zero points, which {} does not store freely; q4_1 and q5_1 do", type_text(spec));
    return {};
  }
  if (spec.scale_type == ScaleType::e8m0 || spec.scale_type == ScaleType::e4m3)
    return fmt::format("scale_type {} belongs to the types {}", to_text(spec.scale_type), spec.scale_type == ScaleType::e8m0 ? "mxfp4 and mxfp8" : "nvfp4");
  const bool integer = spec.type.kind == NumberType::Kind::integer;
  if (integer && spec.symmetric && spec.type.bits < 2) return "1-bit symmetric codes have no positive value; use asymmetric";
  if (spec.range == RangeMethod::hqq && (!integer || spec.symmetric)) return "range hqq optimises zero points and needs an asymmetric integer type";
  if (spec.range == RangeMethod::hqq && spec.granularity == Granularity::block) return "range hqq works per tensor, channel, group or head";
  return {};
}

}  // namespace

std::string misfit(const QuantSpec& spec, int64_t out_features, int64_t in_features) {
  if (spec.storage != Storage::none) {
    const StorageInfo& info = info_of(spec.storage);
    if (in_features % grid_width(spec, in_features) != 0) {
      const std::string found = fmt::format("{} has blocks of {} inputs, which do not divide in_features {}", info.name, grid_width(spec, in_features), in_features);
      if (info.super == 0) return fmt::format("{}; keep the layer in float (llama.cpp takes f16)", found);
      const bool fits = in_features % info_of(*parse_storage(info.fallback)).group == 0;
      return fits ? fmt::format("{}; llama.cpp falls back to {} there: give it by an override", found, info.fallback)
                  : fmt::format("{}; llama.cpp falls back to f16 there: keep the layer in float", found);
    }
    return range_misfit(spec);
  }
  if (spec.granularity == Granularity::group && (spec.group_size <= 0 || in_features % spec.group_size != 0))
    return fmt::format("group_size {} does not divide in_features {}; sizes that do: {}", spec.group_size, in_features, fitting_groups(in_features));
  if (spec.granularity == Granularity::head && (spec.heads <= 0 || out_features % spec.heads != 0))
    return fmt::format("{} heads do not divide out_features {}", spec.heads, out_features);
  if (spec.granularity == Granularity::block && (spec.block_rows <= 0 || spec.block_cols <= 0))
    return fmt::format("blocks of {}×{}, expected positive sizes", spec.block_rows, spec.block_cols);
  return range_misfit(spec);
}

std::string activation_misfit(const QuantSpec& spec, int64_t in_features) {
  if (spec.storage != Storage::none) {
    if (spec.scale_type != ScaleType::e8m0 && spec.scale_type != ScaleType::e4m3)
      return fmt::format("{} is a type of weights; activations have numbers such as int8 or e4m3, or are nvfp4, mxfp4 or mxfp8", type_text(spec));
    if (spec.range == RangeMethod::hqq) return "range hqq searches too long for activations";
    return in_features % spec.group_size == 0 ? "" : fmt::format("{} has groups of {}, which do not divide the {} input features", type_text(spec), spec.group_size, in_features);
  }
  if (!spec.dynamic && spec.granularity != Granularity::tensor)
    return fmt::format("static ranges are one for all that enters a linear, not one per {}; use granularity tensor, or dynamic ranges", to_text(spec.granularity));
  if (!spec.dynamic && !spec.symmetric && !spec.round_zero_point) return "static ranges have zero points that are codes; use round_zero_point: true";
  if (spec.granularity == Granularity::channel || spec.granularity == Granularity::block)
    return fmt::format("activations cannot be quantized per {}; use token, tensor, group or head", to_text(spec.granularity));
  if (spec.granularity == Granularity::group && (spec.group_size <= 0 || in_features % spec.group_size != 0))
    return fmt::format("group_size {} does not divide the {} input features; sizes that do: {}", spec.group_size, in_features,
                       fitting_groups(in_features));
  if (spec.granularity == Granularity::head && (spec.heads <= 0 || in_features % spec.heads != 0))
    return fmt::format("{} heads do not divide the {} input features", spec.heads, in_features);
  if (spec.range != RangeMethod::minmax)
    return fmt::format("range {} searches too long for activations; use minmax", to_text(spec.range));
  return range_misfit(spec);
}

std::string cache_misfit(const QuantSpec& spec, int64_t head_dim) {
  if (spec.storage != Storage::none) return fmt::format("{} is a type of weights; keys and values have numbers such as int8 or e4m3", type_text(spec));
  if (!spec.dynamic && spec.granularity != Granularity::tensor && spec.granularity != Granularity::head)
    return fmt::format("static ranges of keys and values are one for all, or one for each head, not one per {}; use granularity tensor or head, or dynamic ranges", to_text(spec.granularity));
  if (!spec.dynamic && !spec.symmetric && !spec.round_zero_point) return "static ranges have zero points that are codes; use round_zero_point: true";
  if (spec.dynamic && spec.granularity == Granularity::tensor)
    return "a range over all tokens would change with each new one what the cache holds already; use token, head or group, or static ranges (dynamic: false)";
  if (spec.granularity == Granularity::channel || spec.granularity == Granularity::block)
    return fmt::format("keys and values cannot be quantized per {} as tokens come; use token, head or group, or static ranges per tensor or head", to_text(spec.granularity));
  if (spec.granularity == Granularity::group && (spec.group_size <= 0 || head_dim % spec.group_size != 0))
    return fmt::format("group_size {} does not divide the {} channels of a head; sizes that do: {}", spec.group_size, head_dim, fitting_groups(head_dim));
  if (spec.heads != 0) return "heads are those that the layer has: leave heads out";
  if (spec.range != RangeMethod::minmax) return fmt::format("range {} searches too long for keys and values; use minmax", to_text(spec.range));
  return range_misfit(spec);
}

}  // namespace qb
