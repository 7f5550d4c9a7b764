#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <unordered_map>
#include <unordered_set>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/python_json.h"
#include "core/exporting/checkpoint.h"
#include "core/exporting/codec.h"
#include "core/exporting/export_steps.h"
#include "core/exporting/formats.h"
#include "core/exporting/gguf_checkpoint.h"
#include "core/model/canonical_source.h"
#include "core/model/model_files.h"

namespace qb {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

const std::string kWeight = ".weight";

const Codec* codec_of(const FormatInfo& format) {
  const CodedFormat* coded = coded_format(format.name);
  return coded ? &coded->codec() : nullptr;
}

// What a checkpoint will hold.
struct Plan {
  std::vector<PlannedTensor> tensors;
  CheckpointContent content;
  std::vector<std::string> replaced;  // float tensors that differ from the original's, by canonical name
  uint64_t bytes = 0;
};

// Every tensor that a format writes as numbers.
TensorSourcePtr numbers_of(const QuantizedModel& model, const FormatInfo& format) {
  if (format.codes) return overlay(model.model->source, model.changed);
  return format.name == "transformed" ? transformed(model) : dequantized(model);
}

// The module that makes a block's keys, as the files call it: what holds it attends.
std::string stored_keys(const Model& model, int block) {
  const int linear = cached_values(model.architecture.layers[static_cast<size_t>(block)].graph).linear;
  const std::string& canonical = model.info.blocks[static_cast<size_t>(block)].linears.at(static_cast<size_t>(linear)).tensor;
  const CanonicalTensor* entry = model.files->entry(canonical);
  return without_weight(entry && entry->plain() ? entry->stored.front() : model.files->stored_name(canonical));
}

class Planner {
 public:
  Planner(const QuantizedModel& model, const FormatInfo& format) : model_(model), format_(format), codec_(codec_of(format)), files_(*model.model->files), coded_(linears_by_weight(model)) {
    all_changed_ = model.model->source.get() != static_cast<const TensorSource*>(&files_);
    numbers_ = numbers_of(model, format);
  }

  Plan plan() {
    reader_ = std::make_shared<LinearReader>(model_);
    // Which canonical tensors each stored one makes.
    std::unordered_map<std::string, std::vector<const CanonicalTensor*>> makes;
    for (const CanonicalTensor& entry : files_.entries())
      if (live(entry.info.name)) {
        for (const std::string& stored : entry.stored) makes[stored].push_back(&entry);
        if (!entry.scale.empty()) makes[entry.scale].push_back(&entry);
      }
    std::unordered_set<std::string> written;  // canonical
    std::unordered_set<std::string> of_the_model;  // stored names, those of blocks that were dropped too
    for (const CanonicalTensor& entry : files_.entries()) {
      of_the_model.insert(entry.stored.begin(), entry.stored.end());
      if (!entry.scale.empty()) of_the_model.insert(entry.scale);
    }
    for (const TensorInfo& stored : files_.stored()->tensors()) {
      const auto it = makes.find(stored.name);
      if (it == makes.end()) {
        if (!of_the_model.contains(stored.name)) keep(stored);
        continue;
      }
      const bool touched = std::any_of(it->second.begin(), it->second.end(), [&](const CanonicalTensor* entry) { return changed(entry->info.name); });
      if (!touched) {
        keep(stored);
        for (const CanonicalTensor* entry : it->second) written.insert(entry->info.name);
        continue;
      }
      for (const CanonicalTensor* entry : it->second)
        if (written.insert(entry->info.name).second) write(*entry, stored);
    }
    // What the original did not have: an untied head, a bias.
    for (const TensorInfo& info : numbers_->tensors())
      if (!files_.entry(info.name)) add_number(info.name, files_.stored_name(info.name), number_type(DType::u8, false), false);
    if (plan_.content.coded.empty() && format_.codes) throw InputError(fmt::format("{}: no linear is quantized; export it as \"dequantized\"", model_.model->path.string()));
    for (const BlockInfo& block : model_.model->info.blocks)
      for (const LinearInfo& info : block.linears)
        if (model_.model->architecture.layers[static_cast<size_t>(block.index)].graph.value(info.input).hadamard) {
          const CanonicalTensor* entry = files_.entry(info.tensor);
          plan_.content.rotated.push_back(without_weight(entry && entry->plain() ? entry->stored.front() : files_.stored_name(info.tensor)));
        }
    if (format_.codes)
      for (const QuantizedCache& cache : model_.caches) {
        if (format_.caches.empty() || !files_hold(cache.spec)) continue;  // told to an engine at its start
        plan_.content.cache = cache.spec;
        for (PlannedTensor& tensor : codec_->plan_cache(cache, attending_module(cache.block))) {
          std::erase_if(plan_.tensors, [&](const PlannedTensor& kept) { return kept.name == tensor.name; });  // of the original
          plan_.tensors.push_back(std::move(tensor));
        }
      }
    // Under whatever name: transformers' heads are called so in memory, tied ones too.
    const bool coded_head = std::any_of(model_.vocabulary.begin(), model_.vocabulary.end(), [&](const QuantizedLinear& matrix) { return format_.codes && matrix.module == model_.model->architecture.names.head; });
    if (auto& floats = plan_.content.floats; !coded_head && std::find(floats.begin(), floats.end(), "lm_head") == floats.end()) floats.push_back("lm_head");
    for (const PlannedTensor& tensor : plan_.tensors) plan_.bytes += tensor.bytes();
    return std::move(plan_);
  }

 private:
  // Blocks can have been dropped: the files then hold more than the model.
  bool live(const std::string& canonical) const { return model_.model->source->contains(canonical); }
  bool changed(const std::string& canonical) const { return all_changed_ || coded_.contains(canonical) || (model_.changed && model_.changed->contains(canonical)); }

  // A matrix that stays float is told to readers.
  void note_float(const std::string& stored, const std::vector<int64_t>& shape) {
    if (shape.size() == 2 && stored.ends_with(kWeight) && without_weight(stored) != without_weight(files_.stored_name(model_.model->architecture.names.embedding + kWeight)))
      plan_.content.floats.push_back(without_weight(stored));
  }

  // Numbers are written as the model keeps its numbers; what was in codes, as it keeps its embedding.
  DType number_type(DType stored, bool coded) const {
    const auto plain = [](DType type) { return type == DType::f32 || type == DType::f16 || type == DType::bf16; };
    if (plain(stored) && !coded) return stored;
    const TensorInfo* embedding = files_.find(model_.model->architecture.names.embedding + kWeight);
    return embedding && plain(embedding->dtype) ? embedding->dtype : DType::bf16;
  }

  // "model.layers.0.self_attn", as the files call it.
  std::string attending_module(int block) const {
    const std::string keys = stored_keys(*model_.model, block);
    return keys.substr(0, keys.rfind('.'));
  }

  void keep(const TensorInfo& stored) {
    note_float(stored.name, stored.shape);
    plan_.tensors.push_back({stored.name, stored.dtype, stored.shape, [source = files_.stored(), name = stored.name] { return source->read(name); }});
  }

  void write(const CanonicalTensor& entry, const TensorInfo& stored) {
    const std::string& canonical = entry.info.name;
    const std::string name = entry.plain() ? entry.stored.front() : files_.stored_name(canonical);
    if (const auto it = coded_.find(canonical); it != coded_.end() && format_.codes) {
      if (entry.transposed)
        throw InputError(fmt::format("{}: \"{}\" is stored transposed (Conv1D), which {} has no place for; export it as \"dequantized\"", model_.model->path.string(), stored.name, format_.title));
      const std::string module = without_weight(name);
      for (PlannedTensor& tensor : codec_->plan(*it->second, module, reader_)) plan_.tensors.push_back(std::move(tensor));
      plan_.content.coded.emplace_back(module, it->second);
      if (std::any_of(model_.vocabulary.begin(), model_.vocabulary.end(), [&](const QuantizedLinear& matrix) { return &matrix == it->second; })) plan_.content.vocabulary.push_back(module);
      return;
    }
    if (entry.plain() && !changed(canonical)) return keep(stored);
    add_number(canonical, name, number_type(stored.dtype, coded_.contains(canonical)), entry.transposed && entry.plain());
  }

  void add_number(const std::string& canonical, const std::string& name, DType dtype, bool transposed) {
    std::vector<int64_t> shape = numbers_->find(canonical)->shape;
    if (transposed) std::swap(shape[0], shape[1]);
    note_float(name, shape);
    plan_.replaced.push_back(canonical);
    plan_.tensors.push_back({name, dtype, shape, [source = numbers_, canonical, dtype, transposed] {
                               const at::Tensor value = source->read(canonical).to(scalar_type_of(dtype));
                               return transposed ? value.t().contiguous() : value;
                             }});
  }

  const QuantizedModel& model_;
  const FormatInfo& format_;
  const Codec* codec_;
  const CanonicalSource& files_;
  std::unordered_map<std::string, const QuantizedLinear*> coded_;  // by weight
  bool all_changed_ = false;
  TensorSourcePtr numbers_;
  LinearReaderPtr reader_;
  Plan plan_;
};

const FormatInfo& require_format(const std::string& name) {
  const FormatInfo* format = find_format(name);
  if (!format) throw InputError(fmt::format("format \"{}\" is not known; known are {}", name, known_format_names()));
  return *format;
}

void require_folder(const QuantizedModel& model) {
  if (model.model->files && model.model->info.format != "gguf") return;
  throw InputError(fmt::format("{}: was opened from {}, which has no config.json and tokenizer to go with a Hugging Face folder; open the original Hugging Face model", model.model->path.string(),
                               model.model->info.format));
}

// Files that belong to a model beside its weights: tokenizer, templates, generation settings, code of its own, licence.
std::vector<fs::path> companions(const fs::path& folder) {
  std::vector<fs::path> all;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (!entry.is_regular_file()) continue;
    const std::string name = entry.path().filename().string(), extension = entry.path().extension().string();
    std::string upper = name;
    std::transform(upper.begin(), upper.end(), upper.begin(), [](unsigned char c) { return std::toupper(c); });
    const auto begins = [](const std::string& text, std::initializer_list<const char*> starts) {
      return std::any_of(starts.begin(), starts.end(), [&](const char* start) { return text.starts_with(start); });
    };
    const bool settings = extension == ".json" && !name.ends_with(".index.json") && name != "config.json" && name != "quantize_config.json" && name != "quant_config.json";
    const bool vocabulary = extension == ".model" || extension == ".tiktoken" || extension == ".jinja" || name == "merges.txt" || name == "vocab.txt";
    const bool code = extension == ".py" && begins(name, {"modeling_", "configuration_", "tokenization_", "processing_", "image_processing_"});
    if (settings || vocabulary || code || begins(upper, {"LICENSE", "LICENCE", "NOTICE", "USE_POLICY"})) all.push_back(entry.path());
  }
  std::sort(all.begin(), all.end());
  return all;
}

Json config_of(const Model& model, const Json& quantization) {
  const fs::path path = locate_model(model.path).config;
  Json config = parse_ordered_python_json(read_text(path, uint64_t{1} << 26));
  config.erase("quantization_config");
  config.erase("quantization");
  Json& text = config.contains("text_config") && config["text_config"].is_object() ? config["text_config"] : config;
  const Architecture& a = model.architecture;
  // Changes made before quantization: dropped blocks, a head of its own.
  for (const char* key : {"num_hidden_layers", "n_layer", "num_layers", "n_layers"}) {
    if (!text.contains(key) || !text[key].is_number_integer() || text[key] == a.blocks) continue;
    const auto before = text[key].get<size_t>();
    for (auto& [name, value] : text.items())
      if (value.is_array() && value.size() == before)
        throw InputError(fmt::format("{}: key \"{}\" has a value for each of {} blocks, of which {} are left: a folder of it cannot be written", path.string(), name, before, a.blocks));
    text[key] = a.blocks;
  }
  if (!a.tied_embeddings)
    for (Json* object : {&config, &text})
      if (object->contains("tie_word_embeddings")) (*object)["tie_word_embeddings"] = false;
  if (!a.tied_embeddings && !config.contains("tie_word_embeddings")) config["tie_word_embeddings"] = false;
  if (!quantization.is_null()) config["quantization_config"] = quantization;
  if (!quantization.is_null() && !quantization.contains("quant_method")) config["quantization"] = quantization;  // as MLX looks for it
  return config;
}

std::string licence_of(const fs::path& folder) {
  const fs::path card = folder / "README.md";
  if (!fs::exists(card)) return {};
  std::ifstream in(card);
  std::string line;
  for (int i = 0; i < 200 && std::getline(in, line); ++i)
    if (line.starts_with("license:")) return line;
  return {};
}

std::string card_text(const QuantizedModel& model, const ExportOptions& options, const FormatInfo& format, const ExportResult& result) {
  std::string text = "---\n";
  if (const std::string licence = licence_of(locate_model(model.model->path).folder); !licence.empty()) text += licence + "\n";
  text += fmt::format("base_model: {}\nlibrary_name: transformers\ntags:\n- quantized\n- {}\n---\n\n# {}\n\n", model.model->info.name, format.name,
                      options.card.title.empty() ? model.model->info.name : options.card.title);
  text += fmt::format("{} of {}: {:.1f} MB, the original takes {:.1f} MB. Made by LLM-QBench Workbench {}.\n", format.title, model.model->info.name, static_cast<double>(result.bytes) / 1e6,
                      static_cast<double>(result.source_bytes) / 1e6, QBENCH_VERSION);
  if (!options.card.figures.empty()) {
    text += "\n## Figures\n";
    for (const std::string& figure : options.card.figures) text += "- " + figure + "\n";
  }
  if (!result.serve.empty()) text += fmt::format("\n## Serve\n```\n{}\n```\n", result.serve);
  if (!result.notes.empty()) {
    text += "\n## Notes\n";
    for (const std::string& note : result.notes) text += "- " + note + "\n";
  }
  if (!options.card.recipe.empty()) text += fmt::format("\n## Recipe\n```yaml\n{}```\n", options.card.recipe);
  return text;
}

// A folder under a name of its own until it is whole.
class PartialFolder {
 public:
  explicit PartialFolder(const fs::path& output) : output_(output) {
    const fs::path whole = fs::absolute(output);
    path_ = partial_output(whole);
    std::error_code error;
    fs::create_directories(whole.parent_path(), error);
    while (!error && !fs::create_directory(path_, error)) path_ = partial_output(whole);  // there is one: of a killed process of the same number
    if (error) throw ResourceError(fmt::format("{}: cannot create the folder: {}", path_.string(), error.message()));
  }
  ~PartialFolder() {
    std::error_code ignored;
    if (!done_) fs::remove_all(path_, ignored);
  }
  const fs::path& path() const { return path_; }
  void commit() {
    std::error_code error;
    fs::rename(path_, output_, error);
    if (error) throw ResourceError(fmt::format("{}: cannot be given its name: {}", output_.string(), error.message()));
    done_ = true;
  }

 private:
  fs::path output_, path_;
  bool done_ = false;
};

void copy_companions(const fs::path& from, const fs::path& to) {
  for (const fs::path& file : companions(from)) {
    std::error_code error;
    fs::copy_file(file, to / file.filename(), error);
    if (error) throw ResourceError(fmt::format("{}: cannot be copied to {}: {}", file.string(), to.string(), error.message()));
  }
}

// Scales that are made at run time are in the type that an engine makes them in: no checkpoint says it.
bool same_rounding(std::optional<QuantSpec> a, const std::optional<QuantSpec>& b) {
  if (a && b) a->scale_type = b->scale_type;
  return a == b;
}

// Of keys and values, where the checkpoint says how they are rounded: what an engine is told at its start is in no file.
std::string cache_difference(const QuantizedModel& back, const QuantizedModel& model) {
  if (back.caches.empty() && !model.caches.empty() && !files_hold(model.caches.front().spec)) return {};
  if (back.caches.size() != model.caches.size()) return fmt::format("keys and values of {} blocks are rounded, expected {}", back.caches.size(), model.caches.size());
  for (size_t i = 0; i < model.caches.size(); ++i) {
    QuantizedCache found = back.caches[i];
    if (found.spec.dynamic) found.spec.scale_type = model.caches[i].spec.scale_type;
    if (found.block != model.caches[i].block || found.spec != model.caches[i].spec) return fmt::format("keys and values of block {} are {}, expected {}", found.block, activation_text(found.spec), activation_text(model.caches[i].spec));
    if (found.grids != model.caches[i].grids) return fmt::format("static ranges of the keys and values of block {} differ", found.block);
  }
  return {};
}

// Compares a checkpoint with the model that it shall hold: the linears in codes, and the numbers of these names (nothing: all that
// are not in codes). Returns what differs first, or nothing.
std::string compare(const QuantizedModel& model, const fs::path& folder, const std::vector<std::string>* names, const TensorSourcePtr& numbers, const Control& control, const std::function<void(double)>& progress) {
  const bool coded = is_coded_checkpoint(folder);
  QuantizedModel back;
  if (coded)
    back = open_checkpoint(folder);
  else
    back.model = Model::open(folder);
  const auto all_of = [](const QuantizedModel& of) {
    std::vector<const QuantizedLinear*> linears;
    for (const auto* some : {&of.linears, &of.vocabulary})
      for (const QuantizedLinear& linear : *some) linears.push_back(&linear);
    return linears;
  };
  const auto ours = all_of(model);
  const auto in_codes = coded ? linears_by_weight(model) : std::unordered_map<std::string, const QuantizedLinear*>(), back_in_codes = linears_by_weight(back);
  std::vector<std::string> all;
  if (!names) {
    for (const TensorInfo& tensor : numbers->tensors())
      if (!in_codes.contains(tensor.name)) all.push_back(tensor.name);
    names = &all;
  }
  if (std::string how = cache_difference(back, model); !how.empty()) return how;
  double total = 0, done = 0;  // elements
  for (const QuantizedLinear* linear : ours)
    if (coded) total += static_cast<double>(linear->out_features * linear->in_features);
  for (const std::string& name : *names) total += static_cast<double>(numbers->find(name)->elements());
  if (all_of(back).size() != in_codes.size()) return fmt::format("{} linears are in codes, expected {}", all_of(back).size(), in_codes.size());
  if (coded)
    for (const QuantizedLinear* of_ours : ours) {
      const QuantizedLinear& linear = *of_ours;
      control.checkpoint();
      const auto it = back_in_codes.find(linear.module + kWeight);
      if (it == back_in_codes.end()) return fmt::format("\"{}\" is not in codes, expected {}", linear.module, describe(linear.weights));
      const QuantizedLinear* found = it->second;
      if (!same_rounding(found->activations, linear.activations))
        return fmt::format("\"{}\": the input is {}, expected {}", linear.module, found->activations ? activation_text(*found->activations) : "float",
                           linear.activations ? activation_text(*linear.activations) : "float");
      if (found->input_hadamard != linear.input_hadamard)
        return fmt::format("\"{}\": its input is{} rotated at run time, expected it to be{}", linear.module, found->input_hadamard ? "" : " not", linear.input_hadamard ? "" : " as it is");
      if (found->input_grid != linear.input_grid) return fmt::format("\"{}\": the static range of its input differs", linear.module);
      if (const std::string how = difference(back.read(*found), model.read(linear)); !how.empty()) return fmt::format("\"{}\": {}", linear.module, how);
      progress((done += static_cast<double>(linear.out_features * linear.in_features)) / total);
    }
  for (const std::string& name : *names) {
    control.checkpoint();
    if (!back.model->source->contains(name)) return fmt::format("tensor \"{}\" is missing", name);
    const at::Tensor found = back.model->source->read(name), expected = numbers->read(name).to(found.scalar_type());
    if (found.sizes() != expected.sizes() || !at::equal(found, expected)) return fmt::format("tensor \"{}\" holds other values", name);
    progress((done += static_cast<double>(expected.numel())) / total);
  }
  return {};
}

// NVFP4's factor is one for all linears that an engine joins: runs of today have it so, older ones and others' checkpoints may not.
std::string unequal_factors(const QuantizedModel& model, const std::unordered_map<std::string, const QuantizedLinear*>& coded, const EngineInfo& engine) {
  for (const BlockInfo& block : model.model->info.blocks) {
    std::map<int, std::pair<std::string, at::Tensor>> first;  // by input
    for (const LinearInfo& info : block.linears) {
      const auto found = coded.find(info.tensor);
      if (found == coded.end() || found->second->weights.storage != Storage::nvfp4) continue;
      const QuantizedLinear* linear = found->second;
      const at::Tensor factor = model.read_grid(*linear).super;
      const auto [it, fresh] = first.try_emplace(info.input, linear->module, factor);
      if (!fresh && !at::equal(factor, it->second.second))
        return fmt::format("{}: {} {} joins linears that share their input into one matrix with one global scale of NVFP4 ({}, {}): it has {}, and {} has {}; quantize it again", linear->module,
                           engine.title, engine.version, engine.source, engine.date, factor.reciprocal().item<float>(), it->second.first, it->second.second.reciprocal().item<float>());
    }
  }
  return {};
}

// A linear's form; what is not in codes has only its place.
StoredScheme scheme_of(const Model& model, const QuantizedLinear* linear, const LinearInfo& info, int block) {
  StoredScheme scheme{without_weight(info.tensor), info.out_features, info.in_features};
  scheme.input = info.input;
  scheme.block = block;
  const LayerSpec& layer = model.architecture.layers[static_cast<size_t>(block)];
  scheme.input_hadamard = layer.graph.value(info.input).hadamard;
  if (const auto spec = std::find_if(layer.linears.begin(), layer.linears.end(), [&](const LinearSpec& one) { return one.name == info.name; }); spec != layer.linears.end()) {
    scheme.expert = spec->expert >= 0;
    scheme.bias = spec->bias;
  }
  if (!linear) return scheme;
  scheme.weights = linear->weights;
  scheme.activations = linear->activations;
  scheme.exceptions = linear->kept_columns || linear->outliers;
  scheme.input_hadamard = linear->input_hadamard;
  return scheme;
}

}  // namespace

std::vector<std::string> scheme_obstacles(const QuantizedModel& model, const std::string& format_name, const std::string& engine_name) {
  const FormatInfo& format = require_format(format_name);
  const EngineInfo* engine = engine_name.empty() ? nullptr : find_engine(engine_name);
  if (!engine && !engine_name.empty()) throw InputError(fmt::format("engine \"{}\" is not known; known are {}", engine_name, known_engine_names()));
  const auto coded = linears_by_weight(model);
  std::vector<StoredScheme> linears, floats;
  for (const BlockInfo& block : model.model->info.blocks)
    for (const LinearInfo& info : block.linears)
      if (const auto it = coded.find(info.tensor); it != coded.end())
        linears.push_back(scheme_of(*model.model, it->second, info, block.index));
      else
        floats.push_back(scheme_of(*model.model, nullptr, info, block.index));
  for (const QuantizedLinear& matrix : model.vocabulary) {
    const Architecture& a = model.model->architecture;
    StoredScheme stored{matrix.module, matrix.out_features, matrix.in_features, matrix.weights};
    stored.input = stored.block = -1;
    stored.head = a.tied_embeddings || matrix.module == a.names.head;
    stored.embedding = matrix.module == a.names.embedding;
    linears.push_back(std::move(stored));
  }
  std::optional<StoredCache> cache;
  if (!model.caches.empty()) cache = StoredCache{model.caches.front().spec, model.model->info.format == "safetensors" ? stored_keys(*model.model, model.caches.front().block) : ""};
  auto all = obstacles(format, engine, linears, floats, model.model->architecture.family, cache ? &*cache : nullptr);
  if (all.empty() && format.codes && engine && engine->fuses)
    if (std::string unequal = unequal_factors(model, coded, *engine); !unequal.empty()) all.push_back(std::move(unequal));
  return all;
}

ExportOutlook export_outlook(const QuantizedModel& model, const std::string& format, const std::string& engine, const std::string& embeddings) {
  ExportOutlook outlook{scheme_obstacles(model, format, engine), 0};
  if (!outlook.obstacles.empty()) return outlook;
  try {
    if (format == "gguf") return gguf_outlook(model, embeddings);
    require_folder(model);
    outlook.bytes = Planner(model, require_format(format)).plan().bytes;
  } catch (const InputError& error) {
    outlook.obstacles.emplace_back(error.what());
  }
  return outlook;
}

std::string checkpoint_difference(const QuantizedModel& model, const fs::path& folder, const Control& control) {
  if (fs::is_regular_file(folder)) return gguf_difference(model, folder, control);
  const TensorSourcePtr numbers = is_coded_checkpoint(folder) ? overlay(model.model->source, model.changed) : dequantized(model);
  return compare(model, folder, nullptr, numbers, control, [&](double fraction) {
    Progress p;
    p.phase = "verify";
    p.fraction = fraction;
    control.report(p);
  });
}

std::string output_obstacle(const fs::path& output, const std::string& format) {
  std::error_code error;
  const bool folder = format != "gguf";
  const char* what = folder ? "folder" : "file";
  if (output.filename().empty()) return fmt::format("no output {} was named", what);
  if (fs::exists(output, error) && (!folder || !fs::is_directory(output, error) || !fs::is_empty(output, error)))
    return fmt::format("{}: is there already; name a {} that is not", output.string(), what);
  fs::path above = fs::absolute(output, error).parent_path();
  while (!fs::exists(above, error) && above.has_relative_path()) above = above.parent_path();
  if (!fs::is_directory(above, error)) return fmt::format("{}: is a file, expected a folder to write into", above.string());
  if (::access(above.c_str(), W_OK | X_OK) != 0) return fmt::format("{}: nothing may be written there (no permission)", above.string());
  return {};
}

ExportResult export_checkpoint(const QuantizedModel& model, const ExportOptions& options, const Control& control) {
  const FormatInfo& format = require_format(options.format);
  if (format.name != "gguf") require_folder(model);
  refuse(scheme_obstacles(model, options.format, options.engine));
  if (const std::string against = output_obstacle(options.output, format.name); !against.empty()) throw InputError(against);
  std::error_code error;
  const bool folder = format.name != "gguf";
  if (!options.embeddings.empty() && folder) throw InputError(fmt::format("embeddings: {} keeps embedding and head as the model has them; only gguf has types for them", format.title));
  if (!folder) return export_gguf(model, options, control);
  const ExportSteps steps(control, 0.4);
  const Plan plan = Planner(model, format).plan();
  ExportResult result = begin_result(model, options);
  PartialFolder partial(options.output);
  require_space(partial.path(), plan.bytes);
  uint64_t written = 0;
  write_sharded_safetensors(partial.path(), plan.tensors, options.shard_bytes, [&](uint64_t bytes) {
    control.checkpoint();
    written += bytes;
    steps.wrote(written, plan.bytes);
  });
  const fs::path source = locate_model(model.model->path).folder;
  const Json quantization = format.codes ? codec_of(format)->config(plan.content) : Json();
  write_atomically(partial.path() / "config.json", dump_python_json(config_of(*model.model, quantization), 2) + "\n");
  if (format.name.starts_with("gptq")) {
    Json beside = quantization;  // as AutoGPTQ and GPTQModel read it
    write_atomically(partial.path() / "quantize_config.json", beside.dump(2) + "\n");
  }
  copy_companions(source, partial.path());
  result.bytes = written;
  result.write_seconds = steps.seconds();
  if (const std::string how = compare(model, partial.path(), &plan.replaced, numbers_of(model, format), control, [&](double fraction) { steps.read_back(fraction); }); !how.empty())
    throw InternalError(fmt::format("{}: what is read back is not what was written: {}", partial.path().string(), how));
  result.verify_seconds = steps.seconds() - result.write_seconds;
  add_engine(result, options);
  write_atomically(partial.path() / "README.md", card_text(model, options, format, result));
  control.checkpoint();
  if (fs::exists(options.output, error)) fs::remove(options.output, error);  // an empty folder
  partial.commit();
  steps.done();
  return result;
}

}  // namespace qb
