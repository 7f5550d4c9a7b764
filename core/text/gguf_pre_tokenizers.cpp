#include "core/text/gguf_pre_tokenizers.h"

#include <fmt/format.h>

#include <map>
#include <vector>

#include "core/text/word_scanner.h"

namespace qb {
namespace {

// The patterns behind llama.cpp's names, each applied to the pieces the one before leaves; where the original tokenizer
// is written with Unicode categories and llama.cpp approximates it, the original.
enum class Kind { gpt2, digits_gpt2, llama3, qwen2, qwen35, tekken, o200k, deepseek3, falcon, bloom, classic };

const std::map<std::string, Kind>& kinds() {
  static const std::map<std::string, Kind> table = {
      {"default", Kind::classic},      {"gpt-2", Kind::gpt2},           {"phi-2", Kind::gpt2},         {"mpt", Kind::gpt2},
      {"olmo", Kind::gpt2},            {"jais", Kind::gpt2},            {"jina-es", Kind::gpt2},       {"jina-de", Kind::gpt2},
      {"jina-v2-es", Kind::gpt2},      {"jina-v2-de", Kind::gpt2},      {"jina-v2-code", Kind::gpt2},  {"gigachat", Kind::gpt2},
      {"roberta-bpe", Kind::gpt2},     {"a.x-4.0", Kind::gpt2},         {"mellum", Kind::gpt2},        {"modern-bert", Kind::gpt2},
      {"smollm", Kind::digits_gpt2},   {"starcoder", Kind::digits_gpt2}, {"refact", Kind::digits_gpt2}, {"command-r", Kind::digits_gpt2},
      {"codeshell", Kind::digits_gpt2}, {"exaone", Kind::digits_gpt2},  {"minerva-7b", Kind::digits_gpt2},
      {"llama3", Kind::llama3},        {"llama-v3", Kind::llama3},      {"llama-bpe", Kind::llama3},   {"falcon3", Kind::llama3},
      {"falcon-h1", Kind::llama3},     {"pixtral", Kind::llama3},       {"lfm2", Kind::llama3},        {"midm-2.0", Kind::llama3},
      {"dbrx", Kind::llama3},          {"smaug-bpe", Kind::llama3},     {"glm4", Kind::llama3},        {"chatglm-bpe", Kind::llama3},
      {"qwen2", Kind::qwen2},          {"stablelm2", Kind::qwen2},      {"deepseek-r1-qwen", Kind::qwen2}, {"hunyuan", Kind::qwen2},
      {"megrez", Kind::qwen2},         {"qwen35", Kind::qwen35},        {"tekken", Kind::tekken},      {"gpt-4o", Kind::o200k},
      {"llama4", Kind::o200k},         {"deepseek-v3", Kind::deepseek3}, {"falcon", Kind::falcon},     {"bloom", Kind::bloom},
      {"poro-chat", Kind::bloom},      {"gpt3-finnish", Kind::bloom}};
  return table;
}

std::vector<std::string> patterns(Kind kind) {
  const std::string tail = R"(\s*[\r\n]+|\s+(?!\S)|\s+)";
  const std::string upper = R"([\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}])", lower = R"([\p{Ll}\p{Lm}\p{Lo}\p{M}])";
  const std::string before = R"([^\r\n\p{L}\p{N}]?)", contraction = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
  const std::string cased = before + upper + "*" + lower + "+", capitals = before + upper + "+" + lower + "*";
  const std::string signs = R"( ?[^\s\p{L}\p{N}]+[\r\n/]*|)";
  switch (kind) {
    case Kind::gpt2: return {std::string(gpt2_pattern)};
    case Kind::digits_gpt2: return {R"(\p{N})", std::string(gpt2_pattern)};
    case Kind::llama3: return {contraction + "|" + before + R"(\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|)" + tail};
    case Kind::qwen2: return {contraction + "|" + before + R"(\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|)" + tail};
    case Kind::qwen35: return {contraction + "|" + before + R"([\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|)" + tail};
    case Kind::tekken: return {cased + "|" + capitals + R"(|\p{N}|)" + signs + tail};
    case Kind::o200k: return {cased + contraction + "?|" + capitals + contraction + R"(?|\p{N}{1,3}|)" + signs + tail};
    case Kind::deepseek3:
      return {R"(\p{N}{1,3})", "[一-龥\u3040-ゟ゠-ヿ]+",
              R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|)" + tail};
    case Kind::falcon: return {R"([\p{P}\$\+<=>\^~\|`]+)", std::string(gpt2_pattern), "[0-9][0-9][0-9]"};
    case Kind::bloom: return {" ?[^(\\s|.,!?…。，、।۔،)]+"};
    case Kind::classic: return {R"([\p{P}\$\+<=>\^~\|]+)", std::string(gpt2_pattern), R"(\p{N}+)", "[0-9][0-9][0-9]"};
  }
  return {};
}

}  // namespace

std::optional<GgufPreTokenizer> gguf_pre_tokenizer(const std::string& name) {
  const auto it = kinds().find(name);
  if (it == kinds().end()) return std::nullopt;
  const Kind kind = it->second;
  nlohmann::json steps = nlohmann::json::array();
  for (const auto& pattern : patterns(kind))
    steps.push_back({{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}});
  steps.push_back({{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}});
  GgufPreTokenizer out;
  out.description = {{"type", "Sequence"}, {"pretokenizers", steps}};
  const bool plain_llama3 = kind == Kind::llama3 && name != "dbrx" && name != "smaug-bpe" && name != "glm4" && name != "chatglm-bpe";
  out.ignore_merges = plain_llama3 || kind == Kind::tekken;
  out.add_bos = plain_llama3 || kind == Kind::tekken;
  return out;
}

std::string known_gguf_pre_tokenizers() {
  std::string out;
  for (const auto& [name, kind] : kinds()) out += (out.empty() ? "" : ", ") + name;
  return out;
}

}  // namespace qb
