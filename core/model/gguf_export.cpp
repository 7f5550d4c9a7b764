#include "core/model/gguf_export.h"

#include <fmt/format.h>

#include <cmath>
#include <map>
#include <numeric>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/python_json.h"
#include "core/format/ggml_pack.h"
#include "core/model/canonical_source.h"
#include "core/model/families.h"
#include "core/model/gguf_check.h"
#include "core/model/gguf_config.h"
#include "core/model/gguf_describer.h"
#include "core/model/gguf_limits.h"
#include "core/model/model_files.h"
#include "core/model/multimodal.h"
#include "core/model/rotary.h"
#include "core/text/gguf_tokenizer_writer.h"

namespace qb {
namespace {

constexpr int64_t kUnboundedContext = 2048;  // of models that say nothing, as their authors trained them

// general.architecture of a family; llama.cpp knows some under another's name.
std::string gguf_name(const Family& family) {
  static const std::map<std::string, std::string> others = {
      {"mistral", "llama"}, {"mixtral", "llama"}, {"olmo3", "olmo2"}, {"granitemoeshared", "granitemoe"}, {"solar_open", "glm4moe"},
      {"deepseek_v2", "deepseek2"}, {"glm4_moe_lite", "deepseek2"}, {"youtu", "deepseek2"}};
  if (const auto other = others.find(family.name); other != others.end()) return other->second;
  return family.gguf.names.empty() ? "" : family.gguf.names.front();
}

// The configuration of the text model, whatever the file.
nlohmann::json text_config(const ModelFiles& files) {
  if (files.gguf) return config_from_gguf(*GgufFile::open(files.weights), files.weights.string()).json();
  const ConfigFields whole(parse_python_json(read_text(files.config, uint64_t{1} << 26)), files.config.string());
  const auto text = text_part(whole);
  return text ? text->fields.json() : whole.json();
}

int64_t trained_context(const Architecture& a, const nlohmann::json& config) {
  if (a.context_length > 0) return a.context_length;
  for (const char* key : {"seq_length", "n_positions", "max_position_embeddings", "model_max_length"})
    if (config.contains(key) && config[key].is_number_integer() && config[key].get<int64_t>() > 0) return config[key].get<int64_t>();
  return kUnboundedContext;
}

// Rotary base, scaling and, in `made`, the tensors of divisors.
void describe_rope(GgufDescriber& d, const GgufForm& form, std::vector<GgufTensor>& made) {
  if (d.a.position != PositionKind::rotary) return;
  const RopeSpec& rope = d.a.ropes.front();
  d.real("rope.freq_base", rope.theta);
  if (!form.own_heads) d.integer("rope.dimension_count", rope.dim);
  const auto divisors = [&](const std::string& name, const std::vector<double>& values) {
    made.push_back({.name = name, .shape = {static_cast<int64_t>(values.size())}, .values = at::tensor(values, at::kFloat)});
  };
  const auto magnitude = [&](double scale) { return rope.factor > 1 ? 1 + 0.1 * scale * std::log(rope.factor) : 1.0; };
  switch (rope.kind) {
    case RopeSpec::Kind::plain: case RopeSpec::Kind::dynamic: break;
    case RopeSpec::Kind::linear:
      d.text("rope.scaling.type", "linear");
      d.real("rope.scaling.factor", rope.factor);
      break;
    case RopeSpec::Kind::llama3: case RopeSpec::Kind::divisors: {
      RopeSpec plain = rope;
      plain.kind = RopeSpec::Kind::plain;
      std::vector<double> values = rotary_frequencies(plain, 1);
      const std::vector<double> scaled = rotary_frequencies(rope, 1);
      for (size_t i = 0; i < values.size(); ++i) values[i] /= scaled[i];
      divisors("rope_freqs.weight", values);
      break;
    }
    case RopeSpec::Kind::yarn: {
      d.text("rope.scaling.type", "yarn");
      d.real("rope.scaling.factor", rope.factor);
      d.integer("rope.scaling.original_context_length", rope.original_context);
      if (rope.beta_fast != 32 || d.rope_parameter("beta_fast", -1) > 0) d.real("rope.scaling.yarn_beta_fast", rope.beta_fast);
      if (rope.beta_slow != 1 || d.rope_parameter("beta_slow", -1) > 0) d.real("rope.scaling.yarn_beta_slow", rope.beta_slow);
      if (form.own_heads) break;  // latent attention has its own way with the magnitude
      // llama.cpp multiplies by magnitude(1) / magnitude(multiplier), the latter where there is one.
      const double all = d.arch() == "mistral3" ? d.rope_parameter("mscale_all_dim", 0) : 0;
      if (all != 0) d.real("rope.scaling.yarn_log_multiplier", all);
      const double rest = rope.attention_factor * (all != 0 ? magnitude(all) : 1) / magnitude(1);
      if (std::abs(rest - 1) > 1e-7) d.real("rope.scaling.attn_factor", rest);
      break;
    }
    case RopeSpec::Kind::longrope:
      d.text("rope.scaling.type", "longrope");
      d.integer("rope.scaling.original_context_length", rope.original_context);
      d.real("rope.scaling.attn_factor", rope.attention_factor);
      divisors("rope_factors_long.weight", rope.long_factor);
      divisors("rope_factors_short.weight", rope.short_factor);
      break;
  }
}

// What llama.cpp asks for of layers that take keys and values of earlier ones, although it reads nothing of it: the model's own tensors, where
// its files have them, else zeros.
void add_unread(const Model& model, std::vector<GgufTensor>& made) {
  const Architecture& a = model.architecture;
  const TensorSource* files = model.files ? model.files->stored().get() : nullptr;
  for (int64_t i = 0; i < a.blocks; ++i) {
    const LayerSpec& layer = a.layers[static_cast<size_t>(i)];
    if (layer.takes_kv < 0) continue;
    const std::string stored = a.gguf.block + std::to_string(i) + ".";
    const auto add = [&](const std::string& name, const std::string& gguf, std::vector<int64_t> shape) {
      GgufTensor tensor{.name = stored + gguf + ".weight", .shape = shape, .role = shape.size() > 1 ? GgufRole::linear : GgufRole::other};
      for (const std::string& own : files ? std::vector<std::string>{model.files->stored_name(a.block_prefix(i) + name + ".weight"), tensor.name} : std::vector<std::string>())
        if (const TensorInfo* found = files->find(own); found && found->shape == shape) {
          tensor.values = files->read(own);
          break;
        }
      if (!tensor.values.defined()) tensor.values = at::zeros({1}).expand(shape);
      made.push_back(std::move(tensor));
    };
    add(a.names.k, a.gguf.k, {a.kv_heads * a.head_dim, a.hidden_size});
    add(a.names.v, a.gguf.v, {a.kv_heads * a.head_dim, a.hidden_size});
    add(a.names.k_norm, a.gguf.k_norm, {a.head_dim});
  }
}

// What all architectures have, then the family's own keys.
void describe(GgufDescriber& d, const GgufForm& form, int64_t context, std::vector<GgufTensor>& made) {
  const Architecture& a = d.a;
  d.integer("block_count", a.blocks);
  d.integer("context_length", context);
  d.integer("embedding_length", a.hidden_size);
  d.integer("feed_forward_length", a.intermediate_size);
  d.integer("attention.head_count", a.heads);
  d.integer("attention.head_count_kv", a.kv_heads);
  d.integer("vocab_size", a.vocabulary);
  d.real(is_layer_norm(a.norm) && !form.rms_epsilon ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon", a.norm_eps);
  if (!form.own_heads && !form.equal_heads && (a.head_dim * a.heads != a.hidden_size || d.config.contains("head_dim"))) {
    d.integer("attention.key_length", a.head_dim);
    d.integer("attention.value_length", a.head_dim);
  }
  describe_rope(d, form, made);
  if (form.describe) form.describe(d);
}

// The licence that a model card's head names.
std::string licence_of(const std::filesystem::path& folder) {
  const std::filesystem::path card = folder / "README.md";
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(card, ignored)) return "";
  const std::string text = read_text(card, uint64_t{1} << 26);
  if (!text.starts_with("---\n")) return "";
  const size_t end = text.find("\n---", 4), at = text.find("\nlicense:");
  if (at == std::string::npos || end == std::string::npos || at >= end) return "";
  std::string value = text.substr(at + 9, text.find('\n', at + 1) - at - 9);
  value.erase(0, value.find_first_not_of(" \"'"));
  value.erase(value.find_last_not_of(" \"'\r") + 1);
  return value;
}

void describe_general(const Model& model, const ModelFiles& files, const std::string& arch, GgufMetadata& out) {
  out.text("general.architecture", arch);
  out.text("general.type", "model");
  out.text("general.name", model.info.name);
  if (files.gguf) {
    // Who made it and under which terms, as the file says.
    const auto file = GgufFile::open(files.weights);
    for (const auto& [key, value] : file->metadata())
      if (key.starts_with("general.") && !out.find(key) && key != "general.file_type" && key != "general.quantization_version" && key != "general.alignment") out.add(key, value);
  } else if (const std::string licence = licence_of(files.folder); !licence.empty()) {
    out.text("general.license", licence);
  }
  out.u64("general.parameter_count", model.info.parameters);
  out.u32("general.quantization_version", 2);
}

std::vector<int64_t> inverse(const std::vector<int64_t>& order) {
  std::vector<int64_t> back(order.size());
  for (size_t i = 0; i < order.size(); ++i) back[static_cast<size_t>(order[i])] = static_cast<int64_t>(i);
  return back;
}

// A table that may be the largest tensor of all, some rows at a time; rows that it does not have are its first.
std::vector<GgufPart> rows_by_rows(const std::string& table, int64_t own, int64_t all) {
  constexpr int64_t kRows = 4096;
  std::vector<GgufPart> parts;
  for (int64_t begin = 0; begin < all; begin += kRows) {
    GgufPart part{table, {}, {}};
    for (int64_t row = begin; row < std::min(all, begin + kRows); ++row) part.rows.push_back(row < own ? row : 0);
    parts.push_back(std::move(part));
  }
  return parts;
}

// How each stored tensor is made of canonical ones, from how those are read.
class Inverter {
 public:
  Inverter(const Architecture& a, const std::vector<TensorInfo>& stored) : a_(a) {
    for (const TensorInfo& info : stored) {
      index_.emplace(info.name, tensors_.size());
      tensors_.push_back({.name = info.name, .shape = info.shape});
    }
  }

  void add(const CanonicalTensor& entry) {
    const std::string& source = entry.info.name;
    GgufTensor& first = at(entry.stored.front());
    if (entry.joined) {
      // Keys are stored as columns, of each head its own.
      const LatentSpec& l = a_.latent;
      GgufPart keys{source, {}, {}}, values{source, {}, {}};
      for (int64_t h = 0; h < a_.heads; ++h) {
        const int64_t head = h * (l.nope_dim + l.value_dim);
        for (int64_t i = 0; i < l.nope_dim; ++i) keys.rows.push_back(head + i);
        for (int64_t i = 0; i < l.value_dim; ++i) values.rows.push_back(head + l.nope_dim + i);
      }
      first.parts = {keys};
      first.transposed_heads = a_.heads;
      at(entry.stored[1]).parts = {values};
      return;
    }
    for (const std::string& stored : entry.stored) {
      at(stored).add = -entry.add;
      at(stored).minus_exponential = entry.minus_exponential;
    }
    const bool row_of_many = entry.order.size() == 1 && first.shape.size() > entry.info.shape.size();
    if (entry.slice >= 0 || row_of_many) {
      const auto place = static_cast<size_t>(row_of_many ? entry.order.front() : entry.slice);
      first.parts.resize(std::max(first.parts.size(), static_cast<size_t>(first.shape.front())));
      first.parts[place] = {source, row_of_many ? std::vector<int64_t>() : inverse(entry.order), inverse(entry.columns)};
      return;
    }
    std::vector<int64_t> rows = inverse(entry.order);
    if (rows.empty() && entry.stored.size() > 1) {
      rows.resize(static_cast<size_t>(entry.info.shape.front()));
      std::iota(rows.begin(), rows.end(), int64_t{0});
    }
    size_t begin = 0;
    for (const std::string& stored : entry.stored) {
      GgufTensor& tensor = at(stored);
      const size_t end = rows.empty() ? 0 : begin + static_cast<size_t>(tensor.shape.front());
      tensor.parts = {{source, {rows.begin() + static_cast<std::ptrdiff_t>(begin), rows.begin() + static_cast<std::ptrdiff_t>(end)}, inverse(entry.columns)}};
      begin = end;
    }
  }

  std::vector<GgufTensor> done() && {
    std::map<std::string, GgufRole> roles = {{a_.names.embedding + ".weight", GgufRole::embedding}, {a_.names.head + ".weight", GgufRole::head}};
    for (int64_t i = 0; i < a_.blocks; ++i)
      for (const LinearSpec& linear : a_.layers[static_cast<size_t>(i)].linears) roles[a_.block_prefix(i) + linear.name + ".weight"] = GgufRole::linear;
    for (GgufTensor& tensor : tensors_)
      if (const auto role = roles.find(tensor.parts.front().source); role != roles.end()) {
        tensor.role = role->second;
        tensor.unit_rows = role->second == GgufRole::head && a_.normalise_head;
      }
    return std::move(tensors_);
  }

 private:
  GgufTensor& at(const std::string& name) { return tensors_[index_.at(name)]; }
  const Architecture& a_;
  std::vector<GgufTensor> tensors_;
  std::map<std::string, size_t> index_;
};

}  // namespace

GgufPlan plan_gguf(const Model& model, GgufReader reader) {
  const Architecture& a = model.architecture;
  const std::string origin = model.path.string();
  const ModelFiles files = locate_model(model.path);
  const auto family = std::find_if(families().begin(), families().end(), [&](const Family& row) { return row.name == a.family; });
  // As the file has it: its table of each layer's inputs has a row for every token, those that have none the first one.
  Architecture whole = a;
  const std::string token_table = a.names.token_inputs + ".weight";
  if (a.streams.count > 1) {
    whole.streams.token_rows = a.embedding_rows > 0 ? a.embedding_rows : a.vocabulary;
    for (TensorSpec& spec : whole.globals)
      if (spec.name == token_table) spec.shape.front() = whole.streams.token_rows;
  }
  GgufPlan plan;
  plan.architecture = gguf_name(*family);
  if (plan.architecture.empty()) throw InputError(fmt::format("{}: GGUF has no architecture for the family {}", origin, family->title));
  const GgufForm& form = family_of_gguf(plan.architecture)->gguf;
  if (const std::string limit = llama_cpp_limit(plan.architecture, a); !limit.empty() && reader == GgufReader::llama_cpp) throw InputError(fmt::format("{}: {}", origin, limit));

  const nlohmann::json config = text_config(files);
  const std::vector<TensorInfo> stored = gguf_tensors(whole, form);
  const auto attempt = [&](int64_t context) {
    plan.metadata = {};
    plan.tensors.clear();
    describe_general(model, files, plan.architecture, plan.metadata);
    GgufDescriber d(a, config, plan.architecture, plan.metadata);
    describe(d, form, context, plan.tensors);
    add_unread(model, plan.tensors);
    // What this would read as.
    std::vector<TensorInfo> all = stored;
    std::map<std::string, at::Tensor> values;
    for (const GgufTensor& made : plan.tensors) {
      all.push_back({made.name, DType::f32, made.shape});
      values.emplace(made.name, made.values);
    }
    std::map<std::string, GgufValue> metadata;
    for (const auto& [key, value] : plan.metadata.all()) metadata.emplace(key, value);
    const auto file = GgufFile::imagined(origin, metadata, all, values);
    Architecture read = architecture_from_config(config_from_gguf(*file, fmt::format("{} as {}", origin, plan.architecture)));
    read.normalise_head = a.normalise_head;  // rows that have length 1 keep it
    std::string text = difference(whole, read, context);
    if (text.empty()) canonical_gguf(file, read, form, origin);  // nothing missing, nothing unread
    return text;
  };
  // A window or a stretched rotation that the format cannot say, or llama.cpp not compute, changes nothing in texts that are short enough.
  const int64_t trained = trained_context(a, config);
  int64_t shorter = trained;
  for (const LayerSpec& layer : a.layers)
    if (layer.window > 0) shorter = std::min(shorter, layer.window);
  const int64_t context = reader == GgufReader::llama_cpp && llama_cpp_ignores_window(plan.architecture) ? shorter : trained;
  for (const RopeSpec& rope : a.ropes)
    if (rope.kind == RopeSpec::Kind::dynamic) shorter = std::min(shorter, rope.original_context);
  if (const std::string found = attempt(context); !found.empty()) {
    if (shorter == context || !attempt(shorter).empty())
      throw InputError(fmt::format("{}: a GGUF file of {} cannot say what the model computes: {}", origin, plan.architecture, found));
  }
  Inverter inverter(a, stored);
  const auto base = GgufFile::imagined(origin, {}, stored, {});
  for (const CanonicalTensor& entry : gguf_entries(*base, whole, form, origin)) inverter.add(entry);
  std::vector<GgufTensor> weights = std::move(inverter).done();
  for (GgufTensor& tensor : weights)
    if (a.streams.count > 1 && tensor.parts.front().source == token_table) {
      tensor.role = GgufRole::embedding;
      tensor.parts = rows_by_rows(token_table, a.streams.token_rows, whole.streams.token_rows);
    }
  plan.tensors.insert(plan.tensors.end(), std::make_move_iterator(weights.begin()), std::make_move_iterator(weights.end()));
  describe_tokenizer(files.gguf ? files.weights : files.folder, a.embedding_rows > 0 ? a.embedding_rows : a.vocabulary, plan.metadata);
  return plan;
}

at::Tensor gguf_values(const TensorSource& canonical, const GgufTensor& tensor, size_t part) {
  if (tensor.values.defined()) return tensor.values.to(at::kFloat).contiguous();
  const GgufPart& from = tensor.parts[part];
  at::Tensor value = canonical.read(from.source);
  if (!from.rows.empty()) value = value.index_select(0, at::tensor(from.rows, at::kLong));
  value = value.to(at::kFloat);
  if (!from.columns.empty()) value = value.index_select(1, at::tensor(from.columns, at::kLong));
  if (tensor.minus_exponential) value = value.exp().neg();
  if (tensor.add != 0) value = value + tensor.add;
  if (tensor.unit_rows) value = value / value.norm(2, {1}, true).clamp_min(1e-12);
  if (tensor.transposed_heads > 0) value = value.reshape({tensor.transposed_heads, -1, value.size(1)}).transpose(1, 2);
  return value.contiguous();
}

at::Tensor gguf_rows(const at::Tensor& of_source, const GgufPart& part) {
  return part.rows.empty() ? of_source : of_source.index_select(0, at::tensor(part.rows, at::kLong));
}

std::optional<std::vector<int64_t>> gguf_blocks(const GgufPart& part, int64_t block) {
  const auto columns = static_cast<int64_t>(part.columns.size());
  if (columns % block != 0) return std::nullopt;
  std::vector<int64_t> blocks(static_cast<size_t>(columns / block));
  for (int64_t c = 0; c < columns; ++c) {
    const int64_t source = part.columns[static_cast<size_t>(c)];
    if (c % block == 0) blocks[static_cast<size_t>(c / block)] = source / block;
    if (source != blocks[static_cast<size_t>(c / block)] * block + c % block) return std::nullopt;
  }
  return blocks;
}

void write_gguf_floats(const Model& model, const std::filesystem::path& path, DType matrices, GgufReader reader) {
  GgufPlan plan = plan_gguf(model, reader);
  plan.metadata.u32("general.file_type", matrices == DType::f32 ? 0 : matrices == DType::f16 ? 1 : 32);
  std::vector<TensorInfo> infos;
  for (const GgufTensor& tensor : plan.tensors) infos.push_back({tensor.name, tensor.role == GgufRole::other ? DType::f32 : matrices, tensor.shape});
  GgufWriter writer(path, plan.metadata, infos);
  for (size_t i = 0; i < plan.tensors.size(); ++i) {
    const GgufTensor& tensor = plan.tensors[i];
    for (size_t part = 0; part < std::max<size_t>(1, tensor.parts.size()); ++part) {
      const at::Tensor bytes = pack_ggml_floats(infos[i].dtype, gguf_values(*model.source, tensor, part).reshape({1, -1}));
      writer.write(tensor.name, {static_cast<const std::byte*>(bytes.const_data_ptr()), bytes.nbytes()});
    }
  }
  writer.commit();
}

}  // namespace qb
