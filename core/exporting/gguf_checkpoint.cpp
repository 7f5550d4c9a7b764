#include "core/exporting/gguf_checkpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <unordered_map>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/engine/module_name.h"
#include "core/exporting/codec.h"
#include "core/exporting/export_steps.h"
#include "core/exporting/ggml_grid.h"
#include "core/format/gguf_write.h"
#include "core/model/canonical_source.h"
#include "core/model/gguf_export.h"
#include "core/quant/mixes.h"
#include "core/quant/stored_spec.h"

namespace qb {
namespace {

namespace fs = std::filesystem;

const std::string kWeight = ".weight";

// general.file_type of a file whose matrices are mostly of one type (llama.cpp's llama_ftype).
int64_t file_type(DType type) {
  switch (type) {
    case DType::f32: return 0;
    case DType::f16: return 1;
    case DType::q4_0: return 2;
    case DType::q4_1: return 3;
    case DType::q8_0: return 7;
    case DType::q5_0: return 8;
    case DType::q5_1: return 9;
    case DType::q2_k: return 10;
    case DType::q3_k: return 12;  // Q3_K_M
    case DType::q4_k: return 15;  // Q4_K_M
    case DType::q5_k: return 17;  // Q5_K_M
    case DType::q6_k: return 18;
    case DType::iq4_nl: return 25;
    case DType::bf16: return 32;
    case DType::mxfp4: return 38;
    default: return 1024;  // guessed by who reads
  }
}

// Blocks in another order; each part has so many values for each of them.
at::Tensor moved_blocks(const at::Tensor& part, const std::vector<int64_t>& blocks) {
  if (blocks.empty() || !part.defined()) return part;
  return part.reshape({part.size(0), static_cast<int64_t>(blocks.size()), -1}).index_select(1, at::tensor(blocks, at::kLong)).reshape(part.sizes());
}

// Why the codes of a tensor cannot lie in a file; empty: they can.
std::string obstacle(const GgufTensor& tensor, const std::map<std::string, QuantSpec>& types) {
  size_t coded = 0;
  std::pair<std::string, const QuantSpec*> first;  // module
  for (const GgufPart& part : tensor.parts)
    if (const auto it = types.find(part.source); it != types.end()) {
      const std::string module = part.source.substr(0, part.source.size() - kWeight.size());
      const QuantSpec& spec = it->second;
      if (coded++ == 0) first = {module, &spec};
      if (ggml_type(spec) != ggml_type(*first.second))
        return fmt::format("{}: GGUF keeps it with {} in one tensor ({}) of one type, but they are {} and {}; give both the same", module, first.first, tensor.name, describe(spec), describe(*first.second));
      if (const auto type = ggml_type(spec); type && !gguf_blocks(part, block_elements(*type)))
        return fmt::format("{}: llama.cpp wants its input features in another order, which blocks of {} do not follow; {}keep it in float (overrides: [{{match: \"{}\", weights: float}}])", module,
                           block_elements(*type), gguf_blocks(part, 32) ? "give it a type in blocks of 32 (q8_0, q4_0, iq4_nl …) or " : "", module);
    }
  if (coded > 0 && coded < tensor.parts.size())
    return fmt::format("{}: GGUF keeps it with linears that stay float in one tensor ({}); quantize all of them or none", first.first, tensor.name);
  return {};
}

class Planner {
 public:
  explicit Planner(const QuantizedModel& model, const std::string& embeddings)
      : model_(model), plan_(plan_gguf(*model.model)), numbers_(overlay(model.model->source, model.changed)), rounded_(dequantized(model)), coded_(linears_by_weight(model)) {
    for (const GgufTensor& tensor : plan_.tensors)
      if (tensor.transposed_heads > 0)
        for (const GgufPart& part : tensor.parts)
          if (coded_.contains(part.source)) halved_.insert(part.source);
    if (!embeddings.empty()) {
      const Architecture& a = model.model->architecture;
      const auto type = [&](bool head) {
        const auto storage = is_mix(embeddings) ? std::optional(head ? head_type(embeddings, a) : embedding_type(embeddings, a)) : parse_storage(embeddings);
        const auto found = storage ? ggml_type(spec_of(*storage)) : std::nullopt;
        if (!found) throw InputError(fmt::format("embeddings: \"{}\" is no type that GGUF has; expected q8_0, q6_K … or a mix such as Q4_K_M", embeddings));
        return found;
      };
      head_ = type(true);
      embeddings_ = type(false);
      // Codes of another type than is asked for are made anew, of the numbers before them.
      for (const QuantizedLinear& matrix : model.vocabulary)
        if (ggml_type(matrix.weights) != (matrix.module == a.names.head ? head_ : embeddings_)) coded_.erase(matrix.module + kWeight);
    }
    if (model.model->source.get() == static_cast<const TensorSource*>(model.model->files.get())) file_ = std::dynamic_pointer_cast<const GgufFile>(model.model->files->stored());
    std::map<DType, int64_t> elements;
    for (const GgufTensor& tensor : plan_.tensors) {
      TensorInfo info;
      info.name = tensor.name;
      info.shape = tensor.shape;
      info.dtype = type_of(tensor);
      if (tensor.shape.back() % block_elements(info.dtype) != 0) info.dtype = number_type();  // an embedding that blocks do not divide
      if (tensor.role == GgufRole::linear) elements[info.dtype] += info.elements();
      bytes_ += static_cast<uint64_t>(info.elements() / block_elements(info.dtype) * block_bytes(info.dtype));
      infos_.push_back(std::move(info));
    }
    DType most = number_type();
    int64_t count = 0;
    for (const auto& [type, n] : elements)
      if (n > count) most = type, count = n;
    plan_.metadata.u32("general.file_type", file_type(most));
    plan_.metadata.u32("general.quantization_version", 2);
  }

  const GgufPlan& plan() const { return plan_; }
  const std::vector<TensorInfo>& infos() const { return infos_; }
  uint64_t bytes() const { return bytes_; }

  // Codes of a part of it are numbers in the file: the rows of that part lie as columns there.
  bool halved(const std::string& source) const { return halved_.contains(source); }
  size_t halves() const { return halved_.size(); }
  // Every tensor as it is measured: codes as numbers.
  const TensorSourcePtr& rounded() const { return rounded_; }

  // The model's own codes of an embedding or a head, bytes as its GGUF file has them, where they go into this one as they are; undefined: none do.
  at::Tensor own_codes(size_t index) const {
    const TensorInfo* stored = stored_codes(plan_.tensors[index]);
    return stored && stored->dtype == infos_[index].dtype ? file_->bytes(stored->name) : at::Tensor();
  }
  // Whether an embedding or a head is rounded by the export.
  bool rounds() const {
    for (size_t i = 0; i < infos_.size(); ++i)
      if (const GgufRole role = plan_.tensors[i].role; !coded(plan_.tensors[i]) && (role == GgufRole::embedding || role == GgufRole::head) && is_block_quantized(infos_[i].dtype) && !own_codes(i).defined()) return true;
    return false;
  }

  // The linear in codes that all parts are of, or nullptr; a transposed tensor has none.
  const QuantizedLinear* coded(const GgufTensor& tensor) const {
    if (tensor.transposed_heads > 0) return nullptr;
    for (const GgufPart& part : tensor.parts)
      if (!coded_.contains(part.source)) return nullptr;
    return tensor.parts.empty() ? nullptr : coded_.at(tensor.parts.front().source);
  }

  std::vector<std::string> obstacles() const {
    std::map<std::string, QuantSpec> types;
    for (const auto& [weight, linear] : coded_) types.emplace(weight, linear->weights);
    return gguf_obstacles(plan_, types);
  }

  // The bytes of a tensor, part after part.
  void write(GgufWriter& writer, size_t index, LinearReader& reader, const std::function<void(uint64_t)>& written) const {
    const GgufTensor& tensor = plan_.tensors[index];
    const DType type = infos_[index].dtype;
    auto put = [&](const at::Tensor& bytes) {
      const at::Tensor plain = bytes.contiguous();
      writer.write(tensor.name, std::span(static_cast<const std::byte*>(plain.const_data_ptr()), plain.nbytes()));
      written(plain.nbytes());
    };
    if (tensor.values.defined()) return put(pack_ggml_floats(type, gguf_values(*numbers_, tensor, 0).reshape({1, -1})));
    if (const at::Tensor own = own_codes(index); own.defined()) {
      for (int64_t row = 0; row < own.size(0); row += kRows) put(own.slice(0, row, std::min(row + kRows, own.size(0))));
      return;
    }
    const bool codes = coded(tensor) != nullptr;
    for (size_t p = 0; p < tensor.parts.size(); ++p) {
      if (codes) {
        GgmlParts parts = parts_of(reader.weight(*coded_.at(tensor.parts[p].source)), type);
        const auto blocks = gguf_blocks(tensor.parts[p], block_elements(type));
        if (!blocks) throw InternalError(fmt::format("{}: its columns move apart from each other inside of blocks", tensor.name));
        for (at::Tensor* part : {&parts.codes, &parts.d, &parts.m, &parts.scales, &parts.mins})
          if (part->defined()) *part = gguf_rows(moved_blocks(*part, *blocks), tensor.parts[p]);
        put(pack_ggml(type, parts));
        continue;
      }
      const at::Tensor values = gguf_values(halved(tensor.parts[p].source) ? *rounded_ : *numbers_, tensor, p);
      const at::Tensor rows = values.dim() < 2 ? values.reshape({1, -1}) : values.reshape({-1, values.size(-1)});
      if (!is_block_quantized(type)) {
        put(pack_ggml_floats(type, rows));
        continue;
      }
      // An embedding or a head, rounded here: a slice of rows at a time.
      const QuantSpec spec = *spec_of_ggml(type);
      for (int64_t row = 0; row < rows.size(0); row += kRows) put(pack_ggml(type, parts_of(quantize(rows.slice(0, row, std::min(row + kRows, rows.size(0))), spec), type)));
    }
  }

 private:
  static constexpr int64_t kRows = 4096;

  // What float matrices are written as: the model's own type.
  DType number_type() const {
    const TensorInfo* embedding = model_.model->source->find(model_.model->architecture.names.embedding + kWeight);
    return embedding && (embedding->dtype == DType::f32 || embedding->dtype == DType::bf16) ? embedding->dtype : DType::f16;
  }

  DType type_of(const GgufTensor& tensor) const {
    if (tensor.role == GgufRole::other) return DType::f32;
    if (tensor.role == GgufRole::linear) {
      const bool exact = tensor.transposed_heads > 0 && halved(tensor.parts.front().source);  // what the codes stand for, to the bit
      if (exact) return DType::f32;
      const QuantizedLinear* linear = coded(tensor);
      return linear ? *ggml_type(linear->weights) : number_type();
    }
    if (const QuantizedLinear* matrix = coded(tensor)) return *ggml_type(matrix->weights);
    const TensorInfo* own = stored_codes(tensor);
    return (tensor.role == GgufRole::head ? head_ : embeddings_).value_or(own ? own->dtype : number_type());
  }

  // How the model's GGUF file has an embedding or a head; nullptr: in numbers, otherwise than here, or nowhere.
  const TensorInfo* stored_codes(const GgufTensor& tensor) const {
    if (!file_ || coded(tensor) || (tensor.role != GgufRole::embedding && tensor.role != GgufRole::head) || tensor.unit_rows) return nullptr;
    const std::string& source = tensor.parts.front().source;
    const CanonicalTensor* entry = model_.model->files->entry(source);
    if (!entry || !entry->plain() || (model_.changed && model_.changed->contains(source))) return nullptr;
    const TensorInfo* stored = file_->find(entry->stored.front());
    return stored && is_block_quantized(stored->dtype) && stored->shape == tensor.shape ? stored : nullptr;
  }

  const QuantizedModel& model_;
  GgufPlan plan_;
  TensorSourcePtr numbers_, rounded_;
  std::shared_ptr<const GgufFile> file_;  // that the model was opened from, as it is; may be empty
  std::set<std::string> halved_;  // weights
  std::unordered_map<std::string, const QuantizedLinear*> coded_;  // by weight
  std::optional<DType> embeddings_, head_;
  std::vector<TensorInfo> infos_;
  uint64_t bytes_ = 0;
};

// What is in codes is compared code for code, all else as numbers in the file's types.
std::string compare(const QuantizedModel& model, const Planner& planner, const fs::path& path, const Control& control, const std::function<void(double)>& progress) {
  const QuantizedModel back = open_gguf_checkpoint(path);
  const auto our_linears = linears_by_weight(model), their_linears = linears_by_weight(back);
  double total = 0, done = 0;  // elements
  for (const TensorInfo& info : planner.infos()) total += static_cast<double>(info.elements());
  const TensorSourcePtr numbers = overlay(model.model->source, model.changed);
  for (size_t i = 0; i < planner.plan().tensors.size(); ++i) {
    control.checkpoint();
    progress(done / total);
    done += static_cast<double>(planner.infos()[i].elements());
    const GgufTensor& tensor = planner.plan().tensors[i];
    if (tensor.values.defined()) continue;
    if (const at::Tensor own = planner.own_codes(i); own.defined()) {
      const auto file = std::static_pointer_cast<const GgufFile>(back.model->files->stored());
      if (const TensorInfo* found = file->find(tensor.name); found->dtype == planner.infos()[i].dtype && !at::equal(file->bytes(tensor.name), own))
        return fmt::format("tensor \"{}\" holds other codes", tensor.name);
      continue;
    }
    const bool codes = planner.coded(tensor) != nullptr;
    for (const GgufPart& part : tensor.parts) {
      if (planner.halved(part.source)) {
        if (tensor.transposed_heads > 0 && !at::equal(back.model->source->read(part.source), planner.rounded()->read(part.source)))
          return fmt::format("tensor \"{}\" holds other values", part.source);
      } else if (codes) {
        const QuantizedLinear& linear = *our_linears.at(part.source);
        const auto found = their_linears.find(part.source);
        if (found == their_linears.end()) return fmt::format("\"{}\" is not in codes", linear.module);
        QuantizedWeight ours = model.read(linear);
        const QuantizedWeight theirs = back.read(*found->second);
        if (ours.spec.storage == Storage::none && ours.codes.sizes() == theirs.codes.sizes()) {  // plain groups become blocks of the same codes
          ours.grid.scale = ours.grid.scale.repeat_interleave(ours.spec.group_size / theirs.spec.group_size, 1);
          ours.spec = theirs.spec;
        }
        const std::string how = difference(theirs, ours);
        if (!how.empty()) return fmt::format("\"{}\": {}", linear.module, how);
      } else if (!is_block_quantized(back.model->files->stored()->find(tensor.name)->dtype) && part.rows.empty() && part.columns.empty() && tensor.transposed_heads == 0 && tensor.add == 0 && !tensor.minus_exponential) {
        const at::Tensor found = back.model->source->read(part.source);
        if (!at::equal(found, numbers->read(part.source).to(found.scalar_type()))) return fmt::format("tensor \"{}\" holds other values", part.source);
      }
    }
  }
  return {};
}

}  // namespace

std::vector<std::string> gguf_obstacles(const GgufPlan& plan, const std::map<std::string, QuantSpec>& types) {
  std::vector<std::string> all;
  for (const GgufTensor& tensor : plan.tensors)
    if (std::string one = obstacle(tensor, types); !one.empty() && all.size() < 8) all.push_back(std::move(one));
  return all;
}

ExportOutlook gguf_outlook(const QuantizedModel& model, const std::string& embeddings) {
  const Planner planner(model, embeddings);
  ExportOutlook outlook{planner.obstacles(), 0};
  if (outlook.obstacles.empty()) outlook.bytes = planner.bytes();
  return outlook;
}

std::string gguf_difference(const QuantizedModel& model, const fs::path& path, const Control& control) {
  return compare(model, Planner(model, {}), path, control, [&](double fraction) {
    Progress p;
    p.phase = "verify";
    p.fraction = fraction;
    control.report(p);
  });
}

ExportResult export_gguf(const QuantizedModel& model, const ExportOptions& options, const Control& control) {
  const ExportSteps steps(control, 0.2);
  const Planner planner(model, options.embeddings);
  refuse(planner.obstacles());
  ExportResult result = begin_result(model, options);
  std::error_code error;
  const fs::path whole = fs::absolute(options.output), partial = partial_output(whole);
  fs::create_directories(whole.parent_path(), error);
  require_space(whole.parent_path(), planner.bytes());
  struct Remove {
    const fs::path& path;
    ~Remove() {
      std::error_code ignored;
      fs::remove(path, ignored);
    }
  } remove{partial};
  {
    GgufWriter writer(partial, planner.plan().metadata, planner.infos());
    LinearReader reader(model);
    for (size_t i = 0; i < planner.infos().size(); ++i)
      planner.write(writer, i, reader, [&](uint64_t bytes) {
        control.checkpoint();
        result.bytes += bytes;
        steps.wrote(result.bytes, planner.bytes());
      });
    writer.commit();
  }
  result.write_seconds = steps.seconds();
  if (const std::string how = compare(model, planner, partial, control, [&](double fraction) { steps.read_back(fraction); }); !how.empty())
    throw InternalError(fmt::format("{}: what is read back is not what was written: {}", partial.string(), how));
  result.verify_seconds = steps.seconds() - result.write_seconds;
  result.bytes = fs::file_size(partial);
  if (const size_t halves = planner.halves(); halves > 0)
    result.notes.push_back(fmt::format("the keys' half of {} matrices of latent attention lies by columns there: its codes are written as the numbers that they stand for, in float32", halves));
  if (!options.embeddings.empty() && planner.rounds()) result.notes.push_back(fmt::format("embedding and head are rounded to {}, which the run's figures do not include", options.embeddings));
  add_engine(result, options);
  control.checkpoint();
  fs::rename(partial, options.output, error);
  if (error) throw ResourceError(fmt::format("{}: cannot be given its name: {}", options.output.string(), error.message()));
  steps.done();
  return result;
}

QuantizedModel open_gguf_checkpoint(const fs::path& path) {
  QuantizedModel quantized;
  quantized.model = Model::open(path);
  const auto file = std::dynamic_pointer_cast<const GgufFile>(quantized.model->files->stored());
  if (!file) throw InputError(fmt::format("{}: expected a GGUF file", path.string()));
  for (const BlockInfo& block : quantized.model->info.blocks)
    for (const LinearInfo& info : block.linears) {
      const CanonicalTensor* entry = quantized.model->files->entry(info.tensor);
      const DType type = file->find(entry->stored.front())->dtype;
      const bool moves_blocks = gguf_blocks({"", {}, entry->columns}, block_elements(type)).has_value();
      const bool rows_only = moves_blocks && !entry->transposed && !entry->joined && entry->add == 0 && !entry->minus_exponential && entry->scale.empty();
      const auto spec = rows_only ? spec_of_ggml(type) : std::nullopt;
      const bool one_type = std::all_of(entry->stored.begin(), entry->stored.end(), [&](const std::string& s) { return file->find(s)->dtype == type; });
      if (!spec || !one_type) continue;
      QuantizedLinear linear;
      linear.module = module_of(info);
      linear.out_features = info.out_features;
      linear.in_features = info.in_features;
      linear.weights = *spec;
      quantized.linears.push_back(std::move(linear));
    }
  const Architecture& a = quantized.model->architecture;
  for (const std::string& module : {a.names.embedding, a.names.head}) {
    const CanonicalTensor* entry = quantized.model->files->entry(module + kWeight);
    if (!entry || !entry->plain() || entry->add != 0) continue;
    const auto spec = spec_of_ggml(file->find(entry->stored.front())->dtype);
    if (spec) quantized.vocabulary.push_back({module, entry->info.shape[0], entry->info.shape[1], *spec});
  }
  // Rows of bytes, and blocks of them, in the canonical order.
  quantized.read = [file, files = quantized.model->files](const QuantizedLinear& linear) {
    const CanonicalTensor& entry = *files->entry(linear.module + kWeight);
    std::vector<at::Tensor> parts;
    for (const std::string& stored : entry.stored) parts.push_back(file->bytes(stored));
    at::Tensor bytes = parts.size() == 1 ? parts.front() : at::cat(parts, 0);
    if (entry.slice >= 0) {
      const int64_t rows = file->find(entry.stored.front())->shape[1];
      bytes = bytes.narrow(0, entry.slice * rows, rows);
    }
    if (entry.slice >= 0 || entry.part) bytes = bytes.slice(0, entry.first_row, entry.first_row + linear.out_features * entry.row_step, entry.row_step);
    if (!entry.order.empty()) bytes = bytes.index_select(0, at::tensor(entry.order, at::kLong));
    const DType type = file->find(entry.stored.front())->dtype;
    if (!entry.columns.empty()) bytes = moved_blocks(bytes, *gguf_blocks({"", {}, entry.columns}, block_elements(type)));
    return weight_of(type, unpack_ggml(type, bytes.contiguous()));
  };
  quantized.read_grid = [read = quantized.read](const QuantizedLinear& linear) { return read(linear).grid; };
  return quantized;
}

}  // namespace qb
