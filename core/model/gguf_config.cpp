#include "core/model/gguf_config.h"

#include <fmt/format.h>

#include <cmath>

#include "core/base/error.h"
#include "core/model/families.h"
#include "core/model/foreign_layers.h"
#include "core/model/gguf_translator.h"

// Keys as gguf-py's constants name them; which configuration field each one came from is llama.cpp's conversion script's
// knowledge, checked in tests/conformance against files written with gguf-py.
namespace qb {
namespace {

std::vector<double> divisors_of(const GgufFile& file, const std::string& tensor) {
  const at::Tensor values = file.read(tensor).to(at::kDouble).contiguous();
  return {values.const_data_ptr<double>(), values.const_data_ptr<double>() + values.numel()};
}

// RoPE: base, scaling and the tensors of frequency divisors. attn_factor multiplies what YaRN makes of its factor.
void translate_rope(const GgufFile& file, const GgufForm& form, GgufTranslator& t) {
  t.real("rope.freq_base", form.theta);
  if (file.contains("rope_freqs.weight")) {
    t.set("rope_scaling.rope_type", "divisors");
    t.set("rope_scaling.divisors", divisors_of(file, "rope_freqs.weight"));
  } else if (file.contains("rope_factors_long.weight") && file.contains("rope_factors_short.weight")) {
    t.set("rope_scaling.rope_type", "longrope");
    t.set("rope_scaling.long_factor", divisors_of(file, "rope_factors_long.weight"));
    t.set("rope_scaling.short_factor", divisors_of(file, "rope_factors_short.weight"));
    t.real("rope.scaling.attn_factor", "rope_scaling.attention_factor");
    t.integer("rope.scaling.original_context_length", "rope_scaling.original_max_position_embeddings");
  } else if (auto type = t.text_of("rope.scaling.type"); type && *type != "none") {
    t.text("rope.scaling.type", "rope_scaling.rope_type");
    t.real("rope.scaling.factor", "rope_scaling.factor");
    if (*type == "yarn") {
      t.integer("rope.scaling.original_context_length", "rope_scaling.original_max_position_embeddings");
      t.real("rope.scaling.yarn_beta_fast", "rope_scaling.beta_fast");
      t.real("rope.scaling.yarn_beta_slow", "rope_scaling.beta_slow");
      const double factor = t.real_of("rope.scaling.factor").value_or(1), attention = t.real_of("rope.scaling.attn_factor").value_or(1);
      const double divided = t.real_of("rope.scaling.yarn_log_multiplier").value_or(0);
      t.real("rope.scaling.yarn_log_multiplier", "rope_scaling.mscale_all_dim");
      t.real("rope.scaling.attn_factor", "rope_scaling.attention_factor");
      auto magnitude = [&](double scale) { return factor > 1 ? 1 + 0.1 * scale * std::log(factor) : 1.0; };
      t.set("rope_scaling.attention_factor", nullptr);
      if (attention != 1 || divided != 0) t.set("rope_scaling.attention_factor", attention * magnitude(1) / (divided != 0 ? magnitude(divided) : 1));
    }
  } else if (auto scale = t.real_of("rope.scale_linear"); scale && *scale != 1) {
    t.set("rope_scaling.rope_type", "linear");
    t.real("rope.scale_linear", "rope_scaling.factor");
  }
}

// dimension_count: how many of a head's dimensions rotate.
void translate_partial_rotation(const GgufForm& form, GgufTranslator& t, int64_t head_dim) {
  if (const auto dim = t.integer_of("rope.dimension_count"); dim && head_dim > 0) {
    t.real("rope.dimension_count", form.fraction);
    // A little above, so that the product rounds down to exactly dim.
    t.set(form.fraction, std::min(1.0, (static_cast<double>(*dim) + 1e-6) / static_cast<double>(head_dim)));
  }
}

}  // namespace

ConfigFields config_from_gguf(const GgufFile& file, const std::string& origin) {
  const auto arch = file.text("general.architecture");
  if (!arch) throw InputError(fmt::format("{}: key \"general.architecture\" is missing", origin));
  const Family* family = family_of_gguf(*arch);
  if (!family) refuse_foreign_gguf(origin, *arch);
  std::string known;
  for (const Family& candidate : families())
    for (const std::string& name : candidate.gguf.names) known += (known.empty() ? "" : ", ") + name;
  if (!family) throw InputError(fmt::format("{}: general.architecture \"{}\" is not a known architecture, expected one of {}", origin, *arch, known));
  const GgufForm& form = family->gguf;

  GgufTranslator t(file, origin, *arch);
  t.integer("block_count", "num_hidden_layers");
  t.integer("context_length", "max_position_embeddings");
  t.integer("embedding_length", "hidden_size");
  t.integer("feed_forward_length", "intermediate_size");
  t.integer("attention.head_count", "num_attention_heads");
  t.integer("vocab_size", "vocab_size");
  t.real("attention.layer_norm_rms_epsilon", "rms_norm_eps");
  if (!t.has("vocab_size"))
    if (const TensorInfo* embedding = file.find("token_embd.weight"); embedding && embedding->shape.size() == 2) t.set("vocab_size", embedding->shape[0]);
  t.set("tie_word_embeddings", !file.contains("output.weight"));
  translate_rope(file, form, t);
  if (!form.own_heads) {
    // Heads as wide as hidden_size says, unless a key says otherwise; all of a head rotates, except in some families.
    int64_t head_dim = t.heads() > 0 ? t.hidden() / t.heads() : 0;
    if (form.equal_heads) {
      t.must_be("attention.key_length", head_dim);
    } else {
      head_dim = std::max<int64_t>(0, t.integer_of("attention.key_length").value_or(head_dim));
      t.integer("attention.key_length", "head_dim");
    }
    t.must_be("attention.value_length", head_dim);
    if (form.partial_rotation) {
      translate_partial_rotation(form, t, head_dim);
    } else {
      t.must_be("rope.dimension_count", head_dim);
    }
    if (form.kv_heads.empty()) {
      t.must_be("attention.head_count_kv", t.heads());
    } else {
      t.integer("attention.head_count_kv", form.kv_heads);
      if (!t.has(form.kv_heads)) t.set(form.kv_heads, nullptr);  // as many as heads
    }
  }
  std::string type = family->model_types.front();
  if (form.translate)
    if (const std::string other = form.translate(t); !other.empty()) type = other;
  t.set("model_type", type);
  return std::move(t).done();
}

}  // namespace qb
