#include <fmt/format.h>

#include <cmath>
#include <numeric>

#include "core/base/error.h"
#include "core/model/families.h"

namespace qb {
namespace {

double yarn_magnitude(double scale, double mscale) { return scale <= 1 ? 1.0 : 0.1 * mscale * std::log(scale) + 1.0; }

// `params` holds type, factor and the like; `fields` is the whole configuration.
RopeSpec read_parameters(const ConfigFields& fields, const ConfigFields& params, const Architecture& a, double theta, double fraction,
                         const RopeDefaults& family) {
  RopeSpec rope;
  rope.theta = theta;
  rope.dim = static_cast<int64_t>(static_cast<double>(a.head_dim) * fraction);
  if (rope.dim < 2 || rope.dim % 2 != 0 || rope.dim > a.head_dim)
    throw InputError(fmt::format("{}: {} rotated dimensions of a head of {}, expected an even number from 2 to {}", fields.origin(), rope.dim,
                                 a.head_dim, a.head_dim));
  std::string type = params.text({"rope_type", "type"}, "default");
  if (family.all_longrope && (type == "su" || type == "yarn")) type = "longrope";
  if (family.mrope) {
    if (type == "mrope") type = "default";
    const auto sections = params.integers("mrope_section");
    if (!sections.empty() && std::accumulate(sections.begin(), sections.end(), int64_t{0}) != rope.dim / 2)
      params.fail("mrope_section", fmt::format("numbers that add up to {}, half the rotated dimensions of a head", rope.dim / 2));
    params.without_effect({"mrope_interleaved"});
  }
  if (type == "dynamic" && family.alpha && params.has("alpha")) {
    // Another base, as long as a text is within max_position_embeddings.
    if (rope.dim < 4) params.fail("alpha", "none: it needs at least 4 rotated dimensions");
    rope.theta *= std::pow(params.real({"alpha"}), static_cast<double>(rope.dim) / static_cast<double>(rope.dim - 2));
    for (const char* unused : {"factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim"}) params.real({unused}, 0.0, -1);
    return rope;
  }
  if (type == "default") return rope;

  auto original_context = [&] {
    const std::string key = "original_max_position_embeddings";
    if (!fields.has(key) && family.all_longrope) fields.fail(key, "a number of tokens");  // Phi-3: a default of 4096 hides the rope's own
    if (!fields.has(key)) return params.integer({key}, a.context_length);
    const int64_t value = fields.integer({key});
    if (params.has(key) && params.integer({key}) != value) params.fail(key, fmt::format("{}, as {} says", value, fields.spell(key)));
    return value;
  };
  if (type == "linear") {
    rope.kind = RopeSpec::Kind::linear;
    rope.factor = params.real({"factor"});
  } else if (type == "dynamic") {
    rope.kind = RopeSpec::Kind::dynamic;
    rope.factor = params.real({"factor"});
    rope.original_context = a.context_length;
    if (rope.dim < 4) params.fail(params.has("rope_type") ? "rope_type" : "type", "another type: dynamic needs at least 4 rotated dimensions");
  } else if (type == "llama3") {
    rope.kind = RopeSpec::Kind::llama3;
    rope.factor = params.real({"factor"});
    rope.low_freq_factor = params.real({"low_freq_factor"});
    rope.high_freq_factor = params.real({"high_freq_factor"});
    if (rope.high_freq_factor <= rope.low_freq_factor) params.fail("high_freq_factor", fmt::format("more than low_freq_factor, {}", rope.low_freq_factor));
    rope.original_context = original_context();
  } else if (type == "yarn") {
    rope.kind = RopeSpec::Kind::yarn;
    rope.original_context = original_context();
    // A null asks for it; a missing key is a mistake.
    std::optional<double> factor;
    if (params.json().contains("factor")) factor = static_cast<double>(a.context_length) / static_cast<double>(rope.original_context);
    rope.factor = params.real({"factor"}, factor);
    // A zero counts as absent here.
    auto stated = [&](const char* key) { return params.has(key) && params.json().at(key) != 0; };
    if (stated("beta_fast")) rope.beta_fast = params.real({"beta_fast"});
    if (stated("beta_slow")) rope.beta_slow = params.real({"beta_slow"});
    rope.truncate = params.boolean("truncate", true);
    double magnitude = yarn_magnitude(rope.factor, 1);
    if (stated("mscale") && stated("mscale_all_dim"))
      magnitude = yarn_magnitude(rope.factor, params.real({"mscale"})) / yarn_magnitude(rope.factor, params.real({"mscale_all_dim"}));
    params.without_effect({"beta_fast", "beta_slow", "mscale", "mscale_all_dim"});  // zeros, one alone, or beside an attention_factor
    rope.attention_factor = params.real({"attention_factor"}, magnitude);
  } else if (type == "longrope") {
    rope.kind = RopeSpec::Kind::longrope;
    rope.original_context = original_context();
    rope.factor = params.real({"factor"}, static_cast<double>(a.context_length) / static_cast<double>(rope.original_context));
    if (params.has("short_mscale") || params.has("long_mscale")) {  // PhiMoE's
      rope.attention_factor = params.real({"short_mscale"});
      rope.long_attention_factor = params.real({"long_mscale"});
      params.without_effect({"attention_factor"});
    } else {
      rope.attention_factor = params.real({"attention_factor"}, rope.factor <= 1 ? 1.0 : std::sqrt(1 + std::log(rope.factor) / std::log(static_cast<double>(rope.original_context))));
    }
    rope.short_factor = params.reals("short_factor");
    rope.long_factor = params.reals("long_factor");
    const std::string expected = fmt::format("{} numbers, half the rotated dimensions of a head", rope.dim / 2);
    if (static_cast<int64_t>(rope.short_factor.size()) != rope.dim / 2) params.fail("short_factor", expected);
    if (static_cast<int64_t>(rope.long_factor.size()) != rope.dim / 2) params.fail("long_factor", expected);
    if (rope.long_attention_factor > 0) rope.long_factor = rope.short_factor;  // transformers' PhiMoE changes the magnitude only
  } else if (type == "divisors") {  // made from GGUF's rope_freqs tensor, never in a config.json
    rope.kind = RopeSpec::Kind::divisors;
    rope.short_factor = params.reals("divisors");
    if (static_cast<int64_t>(rope.short_factor.size()) != rope.dim / 2) params.fail("divisors", fmt::format("{} numbers", rope.dim / 2));
  } else {
    params.fail(params.has("rope_type") ? "rope_type" : "type", "default, linear, dynamic, llama3, yarn or longrope");
  }
  return rope;
}

ConfigFields empty_like(const ConfigFields& fields) { return ConfigFields(nlohmann::json::object(), fields.origin()); }

// One value that may stand in two places: in `params` it counts, and elsewhere it must say the same.
double real_of_two(const ConfigFields& params, const std::string& key, const ConfigFields& fields, const std::vector<std::string>& keys, double missing, double high) {
  if (!params.has(key)) return fields.real(keys, missing, 0, high);
  const double value = params.real({key}, {}, 0, high);
  for (const std::string& other : keys)
    if (fields.has(other) && fields.real({other}, {}, 0, high) != value) fields.fail(other, fmt::format("{}, as {} says", value, params.spell(key)));
  return value;
}

}  // namespace

ConfigFields rope_fields(const ConfigFields& fields) {
  const bool older = fields.has("rope_scaling") && fields.json().at("rope_scaling") != nlohmann::json::object();
  if (!older) fields.without_effect({"rope_scaling"});
  return older ? fields.child("rope_scaling") : fields.has("rope_parameters") ? fields.child("rope_parameters") : empty_like(fields);
}

void read_rope(const ConfigFields& fields, Architecture& a, const RopeDefaults& defaults) {
  const ConfigFields params = rope_fields(fields);
  const double theta = real_of_two(params, "rope_theta", fields, defaults.theta_keys, defaults.theta, 1e15);
  double fraction = defaults.fraction;
  if (!defaults.fraction_keys.empty()) fraction = real_of_two(params, "partial_rotary_factor", fields, defaults.fraction_keys, defaults.fraction, 1);
  a.ropes = {read_parameters(fields, params, a, theta, fraction, defaults)};
}

void read_rope_per_layer_type(const ConfigFields& fields, Architecture& a, double global_theta, double local_theta, const std::string& local_key) {
  ConfigFields full = empty_like(fields), sliding = full;
  if (fields.has("rope_parameters")) {
    const ConfigFields both = fields.child("rope_parameters");
    if (both.has("full_attention")) full = both.child("full_attention");
    if (both.has("sliding_attention")) sliding = both.child("sliding_attention");
    if (!both.has("full_attention") && !both.has("sliding_attention") && !both.json().empty()) full = both;
  }
  if (fields.has("rope_scaling")) full = fields.child("rope_scaling");
  const double theta = real_of_two(full, "rope_theta", fields, {"rope_theta"}, global_theta, 1e15);
  const double local = real_of_two(sliding, "rope_theta", fields, {local_key}, local_theta, 1e15);
  for (const ConfigFields* params : {&full, &sliding})
    if (fields.has("rope_parameters") && !params->boolean("truncate", true)) params->fail("truncate", "true: it is not seen in parameters of one kind of layer");
  a.ropes = {read_parameters(fields, full, a, theta, 1, {}), read_parameters(fields, sliding, a, local, 1, {})};
}

}  // namespace qb
