#pragma once
#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "core/format/gguf_write.h"
#include "core/model/architecture.h"

namespace qb {

// GgufTranslator the other way round: writes "<arch>.<key>" with the type on disk that llama.cpp asks for. Families say their keys
// with it beside what reads them.
class GgufDescriber {
 public:
  // text_config: the configuration of the text model. out is filled.
  GgufDescriber(const Architecture& model, const nlohmann::json& text_config, std::string arch, GgufMetadata& out)
      : a(model), config(text_config), arch_(std::move(arch)), out_(out) {}

  const Architecture& a;
  const nlohmann::json& config;

  const std::string& arch() const { return arch_; }
  std::string full(const std::string& key) const { return arch_ + "." + key; }
  void integer(const std::string& key, int64_t value) { out_.u32(full(key), value); }
  void real(const std::string& key, double value) { out_.f32(full(key), value); }
  void boolean(const std::string& key, bool value) { out_.boolean(full(key), value); }
  void text(const std::string& key, const std::string& value) { out_.text(full(key), value); }
  void integers(const std::string& key, std::vector<int64_t> values) { out_.i32s(full(key), std::move(values)); }
  void reals(const std::string& key, std::vector<double> values) { out_.f32s(full(key), std::move(values)); }
  bool has(const std::string& key) const { return out_.find(full(key)) != nullptr; }

  // Numbers of experts, and how wide one is.
  void experts() {
    if (a.experts == 0) return;
    integer("expert_count", a.experts);
    integer("expert_used_count", a.experts_per_token);
  }
  void expert_width() { integer("expert_feed_forward_length", a.expert_intermediate_size); }
  int64_t dense_blocks_first() const {
    return std::find_if(a.layers.begin(), a.layers.end(), [](const LayerSpec& layer) { return layer.experts; }) - a.layers.begin();
  }
  // 1: a softmax, 2: sigmoids.
  void gating() { integer("expert_gating_func", a.router.score == RouterScore::sigmoid ? 2 : 1); }
  // What translate_deepseek_experts reads.
  void deepseek_experts() {
    experts();
    expert_width();
    integer("expert_shared_count", a.shared_intermediate_size / a.expert_intermediate_size);
    real("expert_weights_scale", a.router.scale);
    if (a.normalise_expert_weights) boolean("expert_weights_norm", true);
    gating();
    integer("leading_dense_block_count", dense_blocks_first());
    integer("expert_group_count", a.router.groups);
    integer("expert_group_used_count", a.router.used_groups);
  }
  // The window of the layers that slide; 0: none slides.
  int64_t window() const {
    int64_t smallest = 0;
    for (const LayerSpec& layer : a.layers)
      if (layer.window > 0 && (smallest == 0 || layer.window < smallest)) smallest = layer.window;
    return smallest;
  }
  void sliding_window() {
    if (window() > 0) integer("attention.sliding_window", window());
  }
  void window_pattern() {
    if (window() == 0) return;
    std::vector<bool> slides;
    for (const LayerSpec& layer : a.layers) slides.push_back(layer.window > 0);
    out_.booleans(full("attention.sliding_window_pattern"), slides);
  }
  void scales() {
    real("embedding_scale", a.embedding_scale);
    real("residual_scale", a.residual_scale);
    real("logit_scale", 1 / a.logit_scale);
  }
  // A number of the configuration's rotary parameters.
  double rope_parameter(const char* key, double missing) const {
    for (const char* name : {"rope_scaling", "rope_parameters"}) {
      if (!config.contains(name) || !config[name].is_object()) continue;
      const nlohmann::json& all = config[name];
      const nlohmann::json& rope = all.contains("full_attention") ? all["full_attention"] : all;
      if (rope.contains(key) && rope[key].is_number()) return rope[key].get<double>();
    }
    return missing;
  }
  // How text, height and width share the rotated dimensions, by turns or one after the other; for text all positions are the same.
  void rope_sections(bool turns) {
    std::vector<int64_t> sections;
    for (const char* object : {"rope_scaling", "rope_parameters"})
      if (config.contains(object) && config[object].is_object() && config[object].contains("mrope_section")) sections = config[object]["mrope_section"].get<std::vector<int64_t>>();
    // By turns: a pair that belongs to none would not be rotated.
    if (const int64_t pairs = a.ropes.front().dim / 2; sections.empty()) sections = turns ? std::vector<int64_t>{(pairs + 2) / 3, (pairs + 1) / 3, pairs / 3} : std::vector<int64_t>{pairs};
    sections.resize(4);
    integers("rope.dimension_sections", sections);
  }

 private:
  std::string arch_;
  GgufMetadata& out_;
};

}  // namespace qb
