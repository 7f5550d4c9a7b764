#include "core/model/foreign_layers.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/base/error.h"
#include "core/model/shown_value.h"

namespace qb {
namespace {

struct Sign {
  std::vector<const char*> marks;
  const char* layers;
};

// Keys, the more telling first. A "*" at the end stands for anything.
const std::vector<Sign> kKeys = {
    {{"mamba_d_state", "mamba_d_ssm", "mamba_*", "ssm_state_size", "ssm_*", "state_size", "time_step_rank", "hybrid_override_pattern", "n_mamba_heads"}, "state-space layers"},
    {{"lru_width", "rescale_every", "qk_dim_factor", "wkv_head_dim", "head_size_divisor"}, "recurrent layers"},
    {{"linear_attn_config", "linear_attn_*", "linear_head_dim"}, "linear attention layers of this kind"},
    {{"index_topk"}, "attention layers that an indexer makes sparse"},
    {{"zero_expert_num"}, "experts that return their input"},
    {{"num_mel_bins", "num_codebooks", "codebook_size", "audio_config", "sampling_rate", "sample_rate", "feat_extract_*", "speech_*"}, "audio layers"},
};

// Types whose configurations have no such key of their own, by how they begin.
const std::vector<Sign> kTypes = {
    {{"mamba*", "falcon_mamba*", "jamba*", "bamba*", "falcon_h1*", "zamba*", "nemotron_h*", "granitemoehybrid*", "plamo2*", "plamo3*"}, "state-space layers"},
    {{"rwkv*", "xlstm*", "recurrent_gemma*"}, "recurrent layers"},
    {{"minimax", "minimax_text_01", "kimi_linear*"}, "linear attention layers of this kind"},
    {{"whisper*", "wav2vec2*", "hubert*", "speech*", "seamless*", "musicgen*", "bark*", "encodec*", "moshi*", "mimi*", "audio*", "csm*", "dia", "vits*",
      "gemma3n_audio"}, "audio layers"},
    {{"gemma3n_vision"}, "layers that see images"},
    {{"llada*", "dream*", "diffusion*"}, "diffusion models"},
};

const std::vector<Sign> kGguf = {
    {{"mamba*", "jamba*", "falcon-h1*", "plamo2*", "plamo3*", "nemotron_h*", "granitehybrid*"}, "state-space layers"},
    {{"rwkv*", "arwkv*"}, "recurrent layers"},
    {{"kimi-linear*", "minimax-01*", "minimax-text*"}, "linear attention layers of this kind"},
    {{"whisper*", "wavtokenizer*"}, "audio layers"},
    {{"llada*", "dream*"}, "diffusion models"},
};

bool matches(std::string_view mark, std::string_view text) {
  return mark.back() == '*' ? text.substr(0, mark.size() - 1) == mark.substr(0, mark.size() - 1) : text == mark;
}

const char* layers_of(const std::vector<Sign>& signs, const std::string& name) {
  for (const Sign& sign : signs)
    if (std::any_of(sign.marks.begin(), sign.marks.end(), [&](const char* mark) { return matches(mark, name); })) return sign.layers;
  return nullptr;
}

[[noreturn]] void refuse(const std::string& origin, const std::string& key, const nlohmann::json& value, const char* layers, const std::string& model_type) {
  throw InputError(fmt::format("{}: key \"{}\" is {}: {} are not supported{}", origin, key, shown(value), layers, model_type.empty() ? "" : fmt::format(" (model_type \"{}\")", model_type)));
}

}  // namespace

void refuse_foreign_layers(const ConfigFields& fields, const ConfigFields& outer, const std::string& model_type) {
  for (const ConfigFields* object : {&fields, &outer})
    for (const Sign& sign : kKeys)
      for (const char* mark : sign.marks)
        for (const auto& [key, value] : object->json().items())
          if (!value.is_null() && value != false && value != 0 && matches(mark, key)) refuse(object->origin(), key, value, sign.layers, model_type);
  if (const char* layers = layers_of(kTypes, model_type)) refuse(fields.origin(), "model_type", model_type, layers, "");
}

void refuse_pipeline_part(const ConfigFields& fields) {
  if (!fields.has("model_type") && fields.has("_diffusers_version"))
    refuse(fields.origin(), "_diffusers_version", fields.json().at("_diffusers_version"), "diffusion models", "");
}

void refuse_foreign_gguf(const std::string& origin, const std::string& architecture) {
  if (const char* layers = layers_of(kGguf, architecture)) refuse(origin, "general.architecture", architecture, layers, "");
}

}  // namespace qb
