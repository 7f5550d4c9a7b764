#include "core/model/multimodal.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/model/family_fields.h"
#include "core/model/gguf_describer.h"
#include "core/model/gguf_translator.h"

// Facts as in families.cpp: the classes …ForConditionalGeneration and the defaults of the text models' configurations.
namespace qb {
namespace {

struct Wrapper {
  std::vector<std::string> model_types;
  std::string text_type;   // where the text part does not say
  bool tied = false;       // where the whole does not say
  bool text_ties = false;  // the text part's flag ties as well
  bool plain_head = true;  // as in TextPart
};

const Wrapper* find_wrapper(const std::string& model_type) {
  static const std::vector<Wrapper> all = {
      {{"qwen2_vl"}, "qwen2_vl_text", false, true}, {{"qwen2_5_vl"}, "qwen2_5_vl_text", false, true}, {{"qwen3_vl"}, "qwen3_vl_text"},
      {{"mistral3"}, "mistral", true}, {{"idefics2"}, "mistral"}, {{"idefics3", "smolvlm"}, "llama"}, {{"internvl"}, "qwen2", true},
      {{"mllama"}, "mllama_text_model"}, {{"llama4"}, "llama4_text"}, {{"gemma3"}, "gemma3_text", true}, {{"gemma3n"}, "gemma3n_text", true, false, false}};
  for (const Wrapper& wrapper : all)
    if (std::find(wrapper.model_types.begin(), wrapper.model_types.end(), model_type) != wrapper.model_types.end()) return &wrapper;
  return nullptr;
}

// What a text part leaves out because it equals its class's default.
nlohmann::json text_defaults(const std::string& model_type) {
  auto sizes = [](int vocabulary, int hidden, int inner, int blocks, int heads, int kv_heads, int context, int head_dim = 0) {
    nlohmann::json values = {{"vocab_size", vocabulary}, {"hidden_size", hidden}, {"intermediate_size", inner}, {"num_hidden_layers", blocks},
                             {"num_attention_heads", heads}, {"max_position_embeddings", context}};
    if (kv_heads > 0) values["num_key_value_heads"] = kv_heads;  // else as many as heads
    if (head_dim > 0) values["head_dim"] = head_dim;
    return values;
  };
  if (model_type == "llama") return sizes(32000, 4096, 11008, 32, 32, 0, 2048);
  if (model_type == "mistral") return sizes(32000, 4096, 14336, 32, 32, 8, 131072);
  if (model_type == "qwen2") return sizes(151936, 4096, 22016, 32, 32, 32, 32768);
  if (model_type == "qwen3") return sizes(151936, 4096, 22016, 32, 32, 32, 32768, 128);
  if (model_type == "qwen2_vl_text" || model_type == "qwen2_5_vl_text") return sizes(152064, 8192, 29568, 80, 64, 8, 32768);
  if (model_type == "qwen3_vl_text") return sizes(151936, 4096, 22016, 32, 32, 32, 128000, 128);
  if (model_type == "mllama_text_model") return sizes(128256, 4096, 14336, 40, 32, 8, 131072);
  if (model_type == "gemma") return sizes(256000, 3072, 24576, 28, 16, 16, 8192, 256);
  if (model_type == "gemma2") return sizes(256000, 2304, 9216, 26, 8, 4, 8192, 256);
  if (model_type == "gemma3_text" || model_type == "gemma3") return sizes(262208, 2304, 9216, 26, 8, 4, 131072, 256);
  if (model_type == "gemma3n_text") return sizes(262400, 2048, 16384, 35, 8, 2, 32768, 256);
  if (model_type != "ministral3") return nlohmann::json::object();
  nlohmann::json values = sizes(131072, 4096, 14336, 34, 32, 8, 262144, 128);
  values["rope_parameters"] = {{"rope_type", "yarn"}, {"rope_theta", 1e6}, {"factor", 16.0}, {"original_max_position_embeddings", 16384}, {"beta_fast", 32.0},
                               {"beta_slow", 1.0}, {"mscale", 1.0}, {"mscale_all_dim", 1.0}, {"llama_4_scaling_beta", 0.1}};
  return values;
}

}  // namespace

std::optional<TextPart> text_part(const ConfigFields& whole) {
  const std::string outer = whole.text({"model_type"});
  // InternVL's remote code has another name for it, and builds the text model from that alone.
  const bool own = outer == "internvl_chat" && whole.has("llm_config");
  const std::string key = own ? "llm_config" : "text_config", flag = "tie_word_embeddings";
  if (!whole.has(key)) return {};
  if (outer == "paligemma") whole.fail("model_type", "a model whose tokens see those before them (the tokens of PaliGemma's prompt see each other)");
  const Wrapper* wrapper = find_wrapper(outer);
  TextPart part{whole.child(key), "", wrapper ? wrapper->plain_head : !own};
  whole.without_effect({key});
  part.model_type = part.fields.text({"model_type"}, wrapper ? wrapper->text_type : outer);
  const bool stated = whole.has(flag), tied = whole.boolean(flag, false), text = part.fields.boolean(flag, false);
  if (wrapper) {
    part.fields.replace(flag, (stated ? tied : wrapper->tied) || (wrapper->text_ties && text));
  } else if (stated && !(own && part.fields.has(flag))) {
    // Older checkpoints may have only the text part's.
    part.fields.replace(flag, tied || text);
  }
  const nlohmann::json defaults = text_defaults(part.model_type);
  for (const auto& [name, value] : defaults.items())
    if (!part.fields.json().contains(name) && !(name == "rope_parameters" && part.fields.has("rope_scaling"))) part.fields.replace(name, value);
  return part;
}

const std::vector<HarmlessKey>& harmless_in_text_part() {
  static const std::vector<HarmlessKey> keys = {{"perceiver_config", {}}, {"pixel_shuffle_factor", {}}, {"use_resampler", {}}, {"qk_layer_norms", {false}}};
  return keys;
}

namespace {

void configure_qwen2_vl(const ConfigFields& f, Architecture& a) {
  RopeDefaults rope = whole_rotation(1e6);
  rope.mrope = true;
  llama_like(f, a, 8, rope);
  a.norm_eps = f.real({"rms_norm_eps"}, 1e-5);
  a.qkv_bias = true;
  read_qwen_windows(f, a);
}

void configure_qwen3_vl(const ConfigFields& f, Architecture& a) {
  f.integer({"head_dim"});
  RopeDefaults rope = whole_rotation(5e5);
  rope.mrope = true;
  llama_like(f, a, 32, rope);
  a.qkv_bias = a.o_bias = f.boolean("attention_bias", false);
  a.head_norm = HeadNorm::rms;
}

// Llama 3.2 Vision. Layers of cross-attention see images only: text passes them by.
void configure_mllama(const ConfigFields& f, Architecture& a) {
  llama_like(f, a, 8, whole_rotation(5e5));
  a.norm_eps = f.real({"rms_norm_eps"}, 1e-5);
  a.tied_embeddings = false;  // whatever the flags say
  std::vector<int64_t> skipped = f.integers("cross_attention_layers");
  if (!f.json().contains("cross_attention_layers"))
    for (int64_t i = 3; i < 40; i += 5) skipped.push_back(i);
  for (int64_t i : skipped)
    if (i < 0 || i >= a.blocks) f.fail("cross_attention_layers", fmt::format("numbers from 0 to {}", a.blocks - 1));
  for (int64_t i = 0; i < a.blocks; ++i)
    if (std::find(skipped.begin(), skipped.end(), i) == skipped.end()) a.stored_blocks.push_back(i);
  if (a.stored_blocks.empty()) f.fail("cross_attention_layers", "some layers left for the text");
  a.blocks = static_cast<int64_t>(a.stored_blocks.size());
  a.layers.resize(a.stored_blocks.size());
  a.embedding_rows = a.vocabulary + 8;  // the image's and spare ones
}

std::string translate_qwen_vl(GgufTranslator& t) {
  t.set("attention_bias", t.qkv_bias());
  return "";
}

void describe_qwen_vl(GgufDescriber& d) {
  d.rope_sections(d.arch() == "qwen3vl");
  // Without its picture tower the model has no layers that are fed from there.
  if (d.arch() == "qwen3vl") d.integer("n_deepstack_layers", 0);
}

}  // namespace

std::vector<Family> multimodal_families() {
  // Qwen2-VL's and Qwen2.5-VL's published configurations hold the text model's keys beside the others.
  return {
      {"qwen2_vl", "Qwen2-VL and Qwen2.5-VL (text)", {"qwen2_vl", "qwen2_vl_text", "qwen2_5_vl", "qwen2_5_vl_text"}, {.names = {"qwen2vl"}, .translate = translate_qwen_vl, .describe = describe_qwen_vl}, llama_names(), configure_qwen2_vl,
       {{"vision_config", {}}, {"rope.dimension_sections", {}}}},
      {"qwen3_vl", "Qwen3-VL (text)", {"qwen3_vl", "qwen3_vl_text"}, {.names = {"qwen3vl"}, .translate = translate_qwen_vl, .describe = describe_qwen_vl}, qwen3_names(), configure_qwen3_vl,
       {{"rope.dimension_sections", {}}, {"n_deepstack_layers", {}}}},
      {"mllama", "Llama 3.2 Vision (text)", {"mllama_text_model"}, {}, llama_names(), configure_mllama},
  };
}

}  // namespace qb
