#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/python_json.h"
#include "core/engine/module_name.h"
#include "core/exporting/checkpoint.h"
#include "core/exporting/codec.h"
#include "core/exporting/gguf_checkpoint.h"
#include "core/format/listed_tensors.h"
#include "core/model/canonical_source.h"
#include "core/model/model_files.h"
#include "core/quant/stored_spec.h"

namespace qb {
namespace {

const std::string kWeight = ".weight";

nlohmann::json quantization_config(const ModelFiles& files) {
  nlohmann::json json;
  try {
    json = parse_python_json(read_text(files.config, uint64_t{1} << 26));
  } catch (const nlohmann::json::exception&) {}
  if (!json.is_object()) throw InputError(fmt::format("{}: not a JSON object", files.config.string()));
  const auto found = json.find("quantization_config");
  // MLX's own key holds the same as the other one, or stands alone.
  if (const auto own = json.find("quantization"); own != json.end() && own->is_object() && own->contains("bits")) {
    nlohmann::json config = *own;
    config["quant_method"] = "mlx";
    return config;
  }
  if (found != json.end() && found->is_object()) return *found;
  // AutoGPTQ's older files keep it beside the configuration.
  for (const char* beside : {"quantize_config.json", "quant_config.json"})
    if (const auto path = files.folder / beside; std::filesystem::exists(path)) {
      auto own = nlohmann::json::parse(read_text(path, uint64_t{1} << 26), nullptr, false);
      if (!own.is_object()) throw InputError(fmt::format("{}: not a JSON object", path.string()));
      if (!own.contains("quant_method")) own["quant_method"] = own.contains("zero_point") ? "awq" : "gptq";
      return own;
    }
  return nlohmann::json();
}

// Numbers under the files' names: what is in codes is dequantized when it is read, and its parts are hidden.
class Decoded final : public ListedTensors {
 public:
  Decoded(TensorSourcePtr stored, std::shared_ptr<const CodedLinears> coded) : stored_(std::move(stored)), coded_(std::move(coded)) {
    for (const TensorInfo& tensor : stored_->tensors())
      if (!coded_->parts().contains(tensor.name)) add(tensor);
    for (const auto& [module, linear] : coded_->linears()) {
      TensorInfo info;
      info.name = module + kWeight;
      info.shape = {linear.out_features, linear.in_features};
      for (const std::string& part : coded_->parts())  // the place of one of its parts
        if (part.starts_with(module + ".")) {
          info.file = stored_->find(part)->file;
          break;
        }
      info.bytes = static_cast<uint64_t>(linear.out_features * linear.in_features) * 4;
      add(info);
    }
  }
  const std::vector<std::filesystem::path>& files() const override { return stored_->files(); }
  at::Tensor read(const std::string& name) const override {
    if (name.ends_with(kWeight))
      if (const std::string module = name.substr(0, name.size() - kWeight.size()); coded_->linears().contains(module)) return coded_->read(module).dequantize();
    if (!contains(name)) throw InputError(fmt::format("{}: no tensor \"{}\"", files().front().string(), name));
    return stored_->read(name);
  }

 private:
  TensorSourcePtr stored_;
  std::shared_ptr<const CodedLinears> coded_;
};

}  // namespace

bool is_coded_checkpoint(const std::filesystem::path& path) {
  const ModelFiles files = locate_model(path);
  if (files.gguf) return false;
  const auto config = quantization_config(files);
  if (!config.is_object()) return false;
  const CodedFormat* format = coded_format_of(config);
  return format && (!*format->needs || config.contains(format->needs));
}

QuantizedModel open_checkpoint(const std::filesystem::path& path) {
  const ModelFiles files = locate_model(path);
  if (files.gguf) return open_gguf_checkpoint(path);
  const auto config = quantization_config(files);
  const std::string origin = files.config.string();
  if (!config.is_object()) throw InputError(fmt::format("{}: no \"quantization_config\": the weights are numbers, open it as a model", origin));
  const CodedFormat* format = coded_format_of(config);
  if (!format)
    throw InputError(fmt::format("{}: quantization_config.quant_method is {}, expected one of {}", origin, config.contains("quant_method") ? config["quant_method"].dump() : "missing",
                                 known_quant_methods()));
  std::shared_ptr<const CodedLinears> coded;
  QuantizedModel quantized;
  quantized.model = Model::open(path, [&](const TensorSourcePtr& stored) -> TensorSourcePtr {
    coded = format->codec().find(stored, config, origin);
    return std::make_shared<Decoded>(stored, coded);
  });
  std::shared_ptr<Model> rotated;                                            // with the rotations at run time that the checkpoint asks for
  std::map<std::pair<int, ValueId>, std::pair<bool, std::string>> readers;  // of each value: whether it is rotated, as the first of them says
  auto stored_names = std::make_shared<std::map<std::string, std::string>>();  // of canonical modules
  size_t found = 0;
  for (const BlockInfo& block : quantized.model->info.blocks)
    for (const LinearInfo& info : block.linears) {
      const CanonicalTensor* entry = quantized.model->files->entry(info.tensor);
      const std::string& stored = entry->stored.front();
      const std::string module = without_weight(stored);
      const bool rotates = coded->rotated(module);
      if (rotates) {
        if ((info.in_features & (info.in_features - 1)) != 0)
          throw InputError(fmt::format("{}: \"{}\" rotates its {} inputs at run time, expected a power of two", origin, module, info.in_features));
        if (!rotated) rotated = std::make_shared<Model>(*quantized.model);
        rotated->architecture.layers[static_cast<size_t>(block.index)].graph.rotate_at_run_time(info.input);
      }
      const auto [reader, first] = readers.try_emplace({block.index, info.input}, rotates, module);
      if (reader->second.first != rotates)
        throw InputError(fmt::format("{}: one of \"{}\" and \"{}\", which share their input, rotates it at run time", origin, reader->second.second, module));
      const auto it = coded->linears().find(module);
      if (it == coded->linears().end()) continue;
      if (!entry->plain() || entry->transposed)
        throw InputError(fmt::format("{}: \"{}\" is in codes, but {} is a part or the transpose of it", origin, module, info.tensor));
      QuantizedLinear linear = it->second;
      linear.module = module_of(info);
      linear.input_hadamard = rotates;
      (*stored_names)[linear.module] = module;
      quantized.linears.push_back(std::move(linear));
      ++found;
    }
  const Architecture& a = quantized.model->architecture;
  for (const std::string& module : {a.names.embedding, a.names.head}) {
    const CanonicalTensor* entry = quantized.model->files->entry(module + kWeight);
    if (!entry || !entry->plain() || entry->transposed) continue;
    const std::string name = without_weight(entry->stored.front());
    const auto it = coded->linears().find(name);
    if (it == coded->linears().end()) continue;
    if (it->second.activations) throw InputError(fmt::format("{}: \"{}\" has inputs in codes, expected a head whose inputs stay float", origin, name));
    QuantizedLinear matrix = it->second;
    matrix.module = module;
    (*stored_names)[module] = name;
    quantized.vocabulary.push_back(std::move(matrix));
  }
  if (coded->cache())
    for (const BlockInfo& block : quantized.model->info.blocks) {
      const CachedValues cached = cached_values(quantized.model->architecture.layers[static_cast<size_t>(block.index)].graph);
      if (caches_latent(quantized.model->architecture.layers[static_cast<size_t>(block.index)].graph))
        throw InputError(fmt::format("{}: quantization_config.kv_cache_scheme: block {} makes keys and values of a latent, which is what engines keep of a token: what rounding it does is theirs to say", origin, block.index));
      if (!cached.exists()) continue;
      const CanonicalTensor* entry = quantized.model->files->entry(block.linears.at(static_cast<size_t>(cached.linear)).tensor);
      const std::string module = entry->stored.front().substr(0, entry->stored.front().rfind('.', entry->stored.front().size() - kWeight.size() - 1));
      QuantizedCache cache{block.index, *coded->cache(), {}};
      const auto grids = coded->cache_grids().find(module);
      if (!cache.spec.dynamic && grids == coded->cache_grids().end()) throw InputError(fmt::format("{}: tensor \"{}.k_scale\" is missing: keys and values have static ranges", origin, module));
      if (!cache.spec.dynamic) cache.grids = grids->second;
      cache.spec = cache_meaning(cache.spec);
      require_cache_fits(cache, *quantized.model, fmt::format("{}: \"{}\"", origin, module));
      quantized.caches.push_back(std::move(cache));
    }
  if (rotated) quantized.model = rotated;
  quantized.read = [coded, stored_names](const QuantizedLinear& linear) { return coded->read(stored_names->at(linear.module)); };
  quantized.read_grid = [coded, stored_names](const QuantizedLinear& linear) { return coded->read_grid(stored_names->at(linear.module)); };
  return quantized;
}

}  // namespace qb
