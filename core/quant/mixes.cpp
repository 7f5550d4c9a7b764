#include "core/quant/mixes.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <functional>

#include "core/base/error.h"

namespace qb {
namespace {

enum class Mix { q2_k, q3_k_s, q3_k_m, q3_k_l, q4_0, q4_k_s, q4_k_m, q5_0, q5_k_s, q5_k_m, q6_k };

struct Row {
  Mix mix;
  const char* name;
  Storage base;
};
constexpr Row kRows[] = {{Mix::q2_k, "Q2_K", Storage::q2_k},       {Mix::q3_k_s, "Q3_K_S", Storage::q3_k}, {Mix::q3_k_m, "Q3_K_M", Storage::q3_k}, {Mix::q3_k_l, "Q3_K_L", Storage::q3_k},
                         {Mix::q4_0, "Q4_0", Storage::q4_0},       {Mix::q4_k_s, "Q4_K_S", Storage::q4_k}, {Mix::q4_k_m, "Q4_K_M", Storage::q4_k}, {Mix::q5_0, "Q5_0", Storage::q5_0},
                         {Mix::q5_k_s, "Q5_K_S", Storage::q5_k},   {Mix::q5_k_m, "Q5_K_M", Storage::q5_k}, {Mix::q6_k, "Q6_K", Storage::q6_k}};

const Row* find(const std::string& name) {
  auto same = [](char a, char b) { return std::tolower(static_cast<unsigned char>(a)) == std::tolower(static_cast<unsigned char>(b)); };
  for (const Row& row : kRows) {
    const std::string own = row.name;
    if (std::equal(own.begin(), own.end(), name.begin(), name.end(), same)) return &row;
  }
  return nullptr;
}

const Row& row_of(const std::string& name) {
  if (const Row* row = find(name)) return *row;
  throw InternalError(fmt::format("mix \"{}\" is not known", name));
}

// The first and last eighth of the layers, and every third between.
bool gets_more(int64_t layer, int64_t layers) { return layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2; }

// stem: GGUF's name of the linear inside its block.
Storage type_of(const Row& row, const std::string& stem, int64_t layer, const Architecture& a) {
  const Mix mix = row.mix;
  const int64_t layers = a.blocks, shared = a.kv_heads > 0 ? a.heads / a.kv_heads : 1;
  const bool falcon = a.family == "falcon", eight = a.experts == 8, three = mix == Mix::q2_k || mix == Mix::q3_k_s || mix == Mix::q3_k_m, four = mix == Mix::q4_k_s || mix == Mix::q4_k_m;
  Storage type = row.base;
  if (stem == "attn_v") {
    if (mix == Mix::q2_k) type = shared >= 4 ? Storage::q4_k : Storage::q3_k;
    if (mix == Mix::q3_k_m) type = layer < 2 ? Storage::q5_k : Storage::q4_k;
    if (mix == Mix::q3_k_l) type = Storage::q5_k;
    if ((mix == Mix::q4_k_m || mix == Mix::q5_k_m) && gets_more(layer, layers)) type = Storage::q6_k;
    if (mix == Mix::q4_k_s && layer < 4) type = Storage::q5_k;
    const bool llama_70b = a.family == "llama" && layers == 80 && shared == 8;  // its values are an eighth of its queries
    if (llama_70b && (type == Storage::q3_k || type == Storage::q4_k)) type = Storage::q5_k;
    if (eight) type = Storage::q8_0;
  } else if (stem == "attn_k") {
    if (eight) type = Storage::q8_0;
  } else if (stem.starts_with("ffn_down")) {
    if (mix == Mix::q2_k) type = Storage::q3_k;
    if (mix == Mix::q3_k_m) type = layer < layers / 16 ? Storage::q5_k : !falcon || gets_more(layer, layers) ? Storage::q4_k : Storage::q3_k;
    if (mix == Mix::q3_k_l) type = falcon ? Storage::q4_k : Storage::q5_k;
    if (mix == Mix::q4_k_m) {
      if (falcon)
        type = layer < layers / 16 ? Storage::q6_k : gets_more(layer, layers) ? Storage::q5_k : Storage::q4_k;
      else if (gets_more(layer, layers))
        type = Storage::q6_k;
    }
    if (mix == Mix::q5_k_m && gets_more(layer, layers)) type = Storage::q6_k;
    if (mix == Mix::q4_k_s && !falcon && layer < layers / 8) type = Storage::q5_k;
    if (mix == Mix::q4_0 && layer < layers / 8) type = Storage::q4_1;
    if (mix == Mix::q5_0 && layer < layers / 8) type = Storage::q5_1;
  } else if (stem == "attn_output") {
    if (falcon) {
      if (mix == Mix::q3_k_l) type = Storage::q4_k;
    } else if (eight) {
      if (three || four) type = Storage::q5_k;
    } else {
      if (mix == Mix::q2_k) type = Storage::q3_k;
      if (mix == Mix::q3_k_m) type = Storage::q4_k;
      if (mix == Mix::q3_k_l) type = Storage::q5_k;
    }
  } else if (stem == "attn_qkv") {
    if (mix == Mix::q3_k_m || mix == Mix::q3_k_l) type = Storage::q4_k;
    if (mix == Mix::q4_k_m) type = Storage::q5_k;
    if (mix == Mix::q5_k_m) type = Storage::q6_k;
  }
  return type;
}

// What a row of so many values can have.
std::optional<Storage> fitting(Storage type, int64_t in) {
  const StorageInfo* info = &info_of(type);
  if (info->super > 0 && in % info->super != 0) info = &info_of(*parse_storage(info->fallback));
  if (in % std::max(info->group, info->super) != 0) return std::nullopt;
  return info->storage;
}

}  // namespace

const std::vector<std::string>& mix_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> all;
    for (const Row& row : kRows) all.emplace_back(row.name);
    return all;
  }();
  return names;
}

bool is_mix(const std::string& name) { return find(name) != nullptr; }

std::string mix_name(const std::string& name) { return row_of(name).name; }

Storage first_type(const std::string& mix) { return row_of(mix).base; }

Scheme with_mix(Scheme scheme, const std::string& mix, const Architecture& a) {
  const Row& row = row_of(mix);
  scheme.weights = spec_of(row.base);
  int64_t with_values = 0;  // layers that have a matrix of values: llama.cpp counts those
  for (int64_t block = 0; block < a.blocks; ++block) {
    const auto& linears = a.layers[static_cast<size_t>(block)].linears;
    for (const LinearSpec& linear : linears) {
      const Storage wanted = type_of(row, linear.gguf, linear.gguf == "attn_v" ? with_values : block, a);
      const auto type = fitting(wanted, linear.in);
      if (type == row.base) continue;
      scheme.overrides.push_back({a.block_prefix(block) + linear.name, type ? std::optional(spec_of(*type)) : std::nullopt});
    }
    if (std::any_of(linears.begin(), linears.end(), [](const LinearSpec& linear) { return linear.gguf == "attn_v"; })) ++with_values;
  }
  return scheme;
}

Storage head_type(const std::string& mix, const Architecture& a) {
  const StorageInfo& base = info_of(row_of(mix).base);
  const int64_t block = std::max(base.group, base.super);
  if (a.family == "falcon" || a.hidden_size % block != 0) return Storage::q8_0;
  return fitting(Storage::q6_k, a.hidden_size).value_or(Storage::q8_0);
}

Storage embedding_type(const std::string& mix, const Architecture& a) {
  return a.tied_embeddings ? head_type(mix, a) : fitting(row_of(mix).base, a.hidden_size).value_or(Storage::q8_0);
}

}  // namespace qb
