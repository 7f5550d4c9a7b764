#include "core/engine/block_store.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "core/base/error.h"
#include "core/engine/module_name.h"
#include "core/format/checked_safetensors.h"
#include "core/format/listed_tensors.h"
#include "core/quant/packing.h"
#include "core/quant/stored_spec.h"
#include "core/quant/units.h"

namespace qb {
namespace {

constexpr const char *kCodes = ".codes", *kScale = ".scale", *kZero = ".zero", *kLayout = ".layout", *kWeight = ".weight";
constexpr const char *kColumns = ".columns", *kColumnValues = ".column_values", *kOutliers = ".outliers", *kOutlierValues = ".outlier_values";
constexpr const char *kMinimum = ".minimum", *kSuper = ".super", *kSuperMinimum = ".super_minimum";  // of storage types, from which zero points follow
constexpr const char *kInputScale = ".input_scale", *kOutputScale = ".output_scale";  // what scalings did to the linear's coordinates
constexpr std::array kParts = {kCodes, kScale, kZero, kLayout, kColumns, kColumnValues, kOutliers, kOutlierValues, kMinimum, kSuper, kSuperMinimum, kInputScale, kOutputScale};
constexpr const char *kKeys = "keys", *kValues = "values";
constexpr int64_t kLayoutFields = 11;
constexpr const char* kMetadata = "qbench";
constexpr int kSchema = 2, kStaticSchema = 3, kCacheSchema = 4;  // the second where activations are static: "input" holds their grid; the third where keys and values are rounded

std::string place(const std::filesystem::path& file, const std::string& tensor) {
  return fmt::format("{}: tensor \"{}\"", file.string(), tensor);
}

// Schema 1: what dequantization needs of a spec as numbers in a tensor. Everything is checked: a damaged file must not become a shape.
QuantizedLinear read_layout(const at::Tensor& stored, bool symmetric, const std::string& what) {
  auto damaged = [&] { return InputError(fmt::format("{}: not a layout that a run writes", what)); };
  if (stored.scalar_type() != at::kLong || stored.numel() != kLayoutFields) throw damaged();
  const auto* field = stored.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < kLayoutFields; ++i)
    if (field[i] < 0 || field[i] > (int64_t{1} << 40)) throw damaged();
  if (field[0] > 1 || field[4] > static_cast<int64_t>(Granularity::head)) throw damaged();
  QuantizedLinear linear;
  QuantSpec& spec = linear.weights;
  spec.type = {static_cast<NumberType::Kind>(field[0]), static_cast<int>(field[1]), static_cast<int>(field[2]), static_cast<int>(field[3])};
  if (NumberType::parse(spec.type.text()) != spec.type) throw damaged();
  spec.granularity = static_cast<Granularity>(field[4]);
  spec.group_size = field[5];
  spec.block_rows = field[6];
  spec.block_cols = field[7];
  spec.heads = field[8];
  spec.symmetric = symmetric;
  linear.out_features = field[9];
  linear.in_features = field[10];
  return linear;
}

nlohmann::ordered_json stored_grid(const InputGrid& grid) { return {{"scale", grid.scale}, {"zero_point", grid.zero}}; }

// Nothing where it is damaged.
std::optional<InputGrid> parse_grid(const nlohmann::json& json) {
  auto number = [&](const char* key) { return json.is_object() && json.contains(key) && json[key].is_number() ? json[key].get<float>() : std::numeric_limits<float>::quiet_NaN(); };
  const InputGrid grid{number("scale"), number("zero_point")};
  if (!(grid.scale > 0) || !std::isfinite(grid.scale) || !(std::abs(grid.zero) <= 128) || grid.zero != std::nearbyint(grid.zero)) return std::nullopt;
  return grid;
}

QuantizedCache parse_cache(const nlohmann::json& json, int block, const std::string& file) {
  const std::string what = fmt::format("{}: keys and values", file);
  auto damaged = [&](const char* expected) { return InputError(fmt::format("{}: described as {}, expected {}", what, json.dump().substr(0, 200), expected)); };
  if (!json.is_object() || !json.contains("spec")) throw damaged("an object with \"spec\"");
  QuantizedCache cache{block, parse_stored_cache_spec(json["spec"].dump(), what), {}};
  for (const auto& [part, grids] : {std::pair{kKeys, &cache.grids.keys}, {kValues, &cache.grids.values}}) {
    if (json.contains(part) == cache.spec.dynamic) throw damaged("\"keys\" and \"values\" with static ranges and only with those");
    if (cache.spec.dynamic) continue;
    if (json[part].is_array())
      for (const auto& entry : json[part])
        if (const auto grid = parse_grid(entry)) grids->push_back(*grid);
    if (!json[part].is_array() || grids->empty() || grids->size() != json[part].size()) throw damaged("lists of grids, each with a positive \"scale\" and an integral \"zero_point\"");
  }
  return cache;
}

nlohmann::ordered_json described(const QuantizedWeight& weight) {
  return {{"shape", {weight.codes.size(0), weight.codes.size(1)}}, {"weights", nlohmann::ordered_json::parse(stored_spec(weight.spec))}};
}

std::string described(const BlockWork& work) {
  auto linears = nlohmann::ordered_json::object();
  int schema = kSchema;
  for (const LinearWork& linear : work.linears) {
    if (!linear.quantized) continue;
    auto& entry = linears[linear.info.tensor] = described(*linear.quantized);
    if (linear.activations) entry["activations"] = nlohmann::ordered_json::parse(stored_spec(*linear.activations));
    if (linear.activations && !linear.activations->dynamic) {
      if (!linear.input_grid) throw InternalError(fmt::format("{}: static activations without a range", linear.module));
      entry["input"] = stored_grid(*linear.input_grid);
      schema = kStaticSchema;
    }
    if (work.decoder.graph(work.block.index).value(linear.info.input).hadamard) entry["input_hadamard"] = true;
  }
  nlohmann::ordered_json all = {{"schema", schema}, {"block", work.block.index}, {"linears", linears}};
  if (work.cache) {
    all["schema"] = kCacheSchema;
    auto& cache = all["cache"] = {{"spec", nlohmann::ordered_json::parse(stored_cache_spec(*work.cache))}};
    if (!work.cache->dynamic && !work.cache_grids) throw InternalError(fmt::format("block {}: static keys and values without ranges", work.block.index));
    if (work.cache_grids)
      for (const auto& [part, grids] : {std::pair{kKeys, &work.cache_grids->keys}, {kValues, &work.cache_grids->values}}) {
        cache[part] = nlohmann::ordered_json::array();
        for (const InputGrid& grid : *grids) cache[part].push_back(stored_grid(grid));
      }
  }
  return all.dump();
}

QuantizedLinear parse_linear(const nlohmann::json& json, const std::string& what) {
  auto damaged = [&](const char* expected) { return InputError(fmt::format("{}: described as {}, expected {}", what, json.dump().substr(0, 200), expected)); };
  const auto is_size = [](const nlohmann::json& v) { return v.is_number_integer() && v.get<int64_t>() >= 0 && v.get<int64_t>() < (int64_t{1} << 31); };
  if (!json.is_object() || !json.contains("shape") || !json["shape"].is_array() || json["shape"].size() != 2 || !is_size(json["shape"][0]) || !is_size(json["shape"][1]))
    throw damaged("an object with \"shape\" [out, in]");
  if (!json.contains("weights")) throw damaged("\"weights\"");
  QuantizedLinear linear;
  linear.out_features = json["shape"][0].get<int64_t>();
  linear.in_features = json["shape"][1].get<int64_t>();
  linear.weights = parse_stored_spec(json["weights"].dump(), what + ": weights");
  if (json.contains("activations")) linear.activations = parse_stored_spec(json["activations"].dump(), what + ": activations");
  if (json.contains("input")) {
    linear.input_grid = parse_grid(json["input"]);
    if (!linear.input_grid) throw damaged("\"input\" with a positive \"scale\" and an integral \"zero_point\"");
  }
  if ((linear.activations && !linear.activations->dynamic) != linear.input_grid.has_value()) throw damaged("\"input\" with static activations and only with those");
  if (json.contains("input_hadamard")) {
    if (!json["input_hadamard"].is_boolean()) throw damaged("\"input_hadamard\" to be true or false");
    linear.input_hadamard = json["input_hadamard"].get<bool>();
  }
  return linear;
}

bool is_part(const std::string& tensor) {
  return std::any_of(kParts.begin(), kParts.end(), [&](const char* part) { return tensor.ends_with(part); });
}

// What stands beside codes is float: the tensors that blocks replaced, of several files, the last that has a name deciding.
class Floats final : public ListedTensors {
 public:
  void add_file(TensorSourcePtr source, const std::filesystem::path& path, const std::vector<TensorInfo>& tensors) {
    for (TensorInfo info : tensors) {
      info.file = static_cast<int>(files_.size());
      add(std::move(info));
    }
    files_.push_back(path);
    sources_.push_back(std::move(source));
  }
  const std::vector<std::filesystem::path>& files() const override { return files_; }
  at::Tensor read(const std::string& name) const override {
    const TensorInfo* info = find(name);
    if (!info) throw InputError(fmt::format("no tensor \"{}\" among the quantized blocks", name));
    return sources_[static_cast<size_t>(info->file)]->read(name);
  }

 private:
  std::vector<std::filesystem::path> files_;
  std::vector<TensorSourcePtr> sources_;
};

// Blocks of a run with the scales learned behind them.
struct OpenBlocks {
  std::vector<BlockFile> files;
  std::unordered_map<std::string, size_t> file_of;  // by module
  TensorSourcePtr tuned;
  std::string tuned_path;

  ScaleZero grid(const std::string& weight, ScaleZero own, const QuantSpec& spec) const {
    if (!tuned || !tuned->contains(weight + kScale)) return own;
    for (const auto& [part, value] : {std::pair{kScale, &own.scale}, {kMinimum, &own.minimum}, {kSuper, &own.super}, {kSuperMinimum, &own.super_minimum}}) {
      if (!value->defined()) continue;
      const at::Tensor learned = tuned->contains(weight + part) ? tuned->read(weight + part) : at::Tensor();
      if (!learned.defined() || learned.scalar_type() != at::kFloat || learned.sizes() != value->sizes())
        throw InputError(fmt::format("{}: \"{}\" is not float32 like the block's", place(tuned_path, weight), part));
      *value = learned;
    }
    derive_zero(own, spec);
    return own;
  }
};

}  // namespace

std::vector<std::pair<std::string, at::Tensor>> scale_tensors(const std::string& weight, const ScaleZero& grid) {
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const auto& [part, value] : {std::pair{kScale, &grid.scale}, {kMinimum, &grid.minimum}, {kSuper, &grid.super}, {kSuperMinimum, &grid.super_minimum}})
    if (value->defined()) tensors.emplace_back(weight + part, *value);
  return tensors;
}

namespace {

using Tensors = std::vector<std::pair<std::string, at::Tensor>>;

void add_codes(Tensors& tensors, const std::string& name, const QuantizedWeight& q) {
  auto add = [&](const std::string& part, const at::Tensor& tensor) { tensors.emplace_back(part, tensor.to(at::kCPU)); };
  add(name + kCodes, pack_codes(q.codes, q.spec.type));
  for (const auto& [part, value] : scale_tensors(name, q.grid)) add(part, value);
  if (q.grid.zero.defined() && q.spec.storage == Storage::none) add(name + kZero, q.grid.zero);
  if (q.columns.defined()) {
    add(name + kColumns, q.columns);
    add(name + kColumnValues, q.column_values.to(at::kHalf));
  }
  if (q.outliers.defined()) {
    add(name + kOutliers, q.outliers);
    add(name + kOutlierValues, q.outlier_values.to(at::kHalf));
  }
}

}  // namespace

void write_codes(const std::filesystem::path& path, const std::string& weight, const QuantizedWeight& codes) {
  Tensors tensors;
  add_codes(tensors, weight, codes);
  auto linears = nlohmann::ordered_json::object();
  linears[weight] = described(codes);
  write_checked_safetensors(path, tensors, {{kMetadata, nlohmann::ordered_json{{"schema", kSchema}, {"linears", linears}}.dump()}});
}

void write_block(const std::filesystem::path& path, const BlockWork& work, const Block& loaded) {
  Tensors tensors;
  auto add = [&](const std::string& name, const at::Tensor& tensor) { tensors.emplace_back(name, tensor.to(at::kCPU)); };
  for (size_t i = 0; i < work.linears.size(); ++i) {
    const LinearWork& linear = work.linears[i];
    const std::string& name = linear.info.tensor;
    if (linear.quantized) {
      add_codes(tensors, name, *linear.quantized);
      if (linear.input_scale.defined()) add(name + kInputScale, linear.input_scale.to(at::kFloat));
      if (linear.output_scale.defined()) add(name + kOutputScale, linear.output_scale.to(at::kFloat));
    } else if (!linear.original.defined() || !linear.weight.is_same(linear.original)) {
      add(name, linear.weight);
    }
    const at::Tensor& bias = work.block.linears[i].bias;
    if (bias.defined() && !bias.is_same(loaded.linears[i].bias)) add(linear.module + ".bias", bias);
  }
  const std::string prefix = work.decoder.architecture().block_prefix(work.block.index);
  for (const auto& [name, tensor] : work.block.others)
    if (const auto it = loaded.others.find(name); it == loaded.others.end() || !tensor.is_same(it->second)) add(prefix + name, tensor);
  write_checked_safetensors(path, tensors, {{kMetadata, described(work)}});
}

BlockFile::BlockFile(const std::filesystem::path& path, const Scheme* older) : path_(path) {
  const auto [stored, metadata, checked] = open_checked_safetensors(path);
  stored_ = stored;
  if (const auto written = metadata.find(kMetadata); written != metadata.end()) {
    const auto json = nlohmann::json::parse(written->second, nullptr, false);
    if (!json.is_object() || !json.contains("schema") || !json["schema"].is_number_integer() || !json.contains("linears") || !json["linears"].is_object())
      throw InputError(fmt::format("{}: metadata \"{}\" does not describe a block", path.string(), kMetadata));
    if (const auto schema = json["schema"].get<int64_t>(); schema < kSchema || schema > kCacheSchema)
      throw InputError(fmt::format("{}: block of schema {}, expected 1 to {}; written by a newer version?", path.string(), schema, kCacheSchema));
    for (const auto& [weight, entry] : json["linears"].items()) linears_[weight] = parse_linear(entry, place(path, weight));
    if (json.contains("cache")) {
      if (!json.contains("block") || !json["block"].is_number_integer()) throw InputError(fmt::format("{}: metadata \"{}\" does not say which block it describes", path.string(), kMetadata));
      cache_ = parse_cache(json["cache"], json["block"].get<int>(), path.string());
    }
  } else {
    for (const TensorInfo& info : stored_->tensors()) {
      if (!info.name.ends_with(kCodes)) continue;
      const std::string weight = info.name.substr(0, info.name.size() - std::string_view(kCodes).size());
      if (!stored_->contains(weight + kLayout)) throw InputError(fmt::format("{}: tensor \"{}{}\" is missing", path.string(), weight, kLayout));
      linears_[weight] = read_layout(stored_->read(weight + kLayout), !stored_->contains(weight + kZero), place(path, weight));
    }
  }
  for (auto& [weight, linear] : linears_) {
    const std::string what = place(path, weight);
    for (const char* part : {kCodes, kScale})
      if (!stored_->contains(weight + part)) throw InputError(fmt::format("{}: tensor \"{}{}\" is missing", path.string(), weight, part));
    if (linear.weights.storage == Storage::none && linear.weights.symmetric == stored_->contains(weight + kZero))
      throw InputError(fmt::format("{}: described as {}, but zero points are {}", what, describe(linear.weights), linear.weights.symmetric ? "there" : "missing"));
    if (const std::string problem = misfit(linear.weights, linear.out_features, linear.in_features); !problem.empty()) throw InputError(fmt::format("{}: {}", what, problem));
    linear.module = weight.ends_with(kWeight) ? weight.substr(0, weight.size() - std::string_view(kWeight).size()) : weight;
    linear.kept_columns = stored_->contains(weight + kColumns);
    linear.outliers = stored_->contains(weight + kOutliers);
    if (older && !metadata.contains(kMetadata)) {
      if (const auto spec = older->weights_of(linear.module)) {
        linear.weights.scale_type = spec->scale_type;
        linear.weights.round_zero_point = spec->round_zero_point;
      }
      linear.activations = older->activations_of(linear.module);
    }
    linear.weights = meaning_of(linear.weights);
    if (linear.activations) linear.activations = meaning_of(*linear.activations);
  }
}

std::vector<TensorInfo> BlockFile::floats() const {
  std::vector<TensorInfo> all;
  for (const TensorInfo& info : stored_->tensors())
    if (!is_part(info.name)) all.push_back(info);
  return all;
}

ScaleZero BlockFile::read_grid(const std::string& weight) const {
  const auto it = linears_.find(weight);
  if (it == linears_.end()) throw InputError(fmt::format("{}: is not in codes", place(path_, weight)));
  const QuantizedLinear& linear = it->second;
  const bool storage = linear.weights.storage != Storage::none;
  ScaleZero grid{stored_->read(weight + kScale), linear.weights.symmetric || storage ? at::Tensor() : stored_->read(weight + kZero)};
  const auto units = unit_shape(linear.weights, linear.out_features, linear.in_features);
  for (const at::Tensor& part : {grid.scale, grid.zero})
    if (part.defined() && (part.scalar_type() != at::kFloat || part.sizes() != at::IntArrayRef{units.first, units.second}))
      throw InputError(fmt::format("{}: scales or zero points are not float32 [{}, {}]", place(path_, weight), units.first, units.second));
  if (!storage) return grid;
  const StorageInfo& info = info_of(linear.weights.storage);
  auto part = [&](const char* name, at::IntArrayRef shape) {
    if (!stored_->contains(weight + name)) throw InputError(fmt::format("{}: tensor \"{}{}\" is missing", path_.string(), weight, name));
    const at::Tensor found = stored_->read(weight + name);
    if (found.scalar_type() != at::kFloat || found.sizes() != shape)
      throw InputError(fmt::format("{}: \"{}\" is not float32 [{}]", place(path_, weight), name, fmt::join(shape, ", ")));
    return found;
  };
  if (info.minimum) grid.minimum = part(kMinimum, {units.first, units.second});
  if (info.super > 0) {
    grid.super = part(kSuper, {linear.out_features, linear.in_features / info.super});
    if (info.minimum) grid.super_minimum = part(kSuperMinimum, {linear.out_features, linear.in_features / info.super});
  } else if (info.storage == Storage::nvfp4) {
    grid.super = part(kSuper, {1, 1});
  }
  derive_zero(grid, linear.weights);
  return grid;
}

at::Tensor BlockFile::transformed(const std::string& weight, const at::Tensor& original) const {
  const QuantizedLinear& linear = linears_.at(weight);
  at::Tensor value = original.to(at::kFloat);
  for (const auto& [part, size] : {std::pair{kInputScale, linear.in_features}, {kOutputScale, linear.out_features}}) {
    if (!stored_->contains(weight + part)) continue;
    const at::Tensor factor = stored_->read(weight + part);
    if (factor.scalar_type() != at::kFloat || factor.sizes() != at::IntArrayRef{size})
      throw InputError(fmt::format("{}: \"{}\" is not float32 [{}]", place(path_, weight), part, size));
    value = part == kInputScale ? value * factor : value / factor.unsqueeze(1);
  }
  return value;
}

QuantizedWeight BlockFile::read(const std::string& weight) const {
  ScaleZero grid = read_grid(weight);
  try {
    return read_codes_and_exceptions(linears_.at(weight), weight, std::move(grid));
  } catch (const InputError& e) {
    if (std::string_view(e.what()).starts_with(path_.string())) throw;
    throw InputError(fmt::format("{}: {}", place(path_, weight), e.what()));
  }
}

// Positions index memory: they are checked like everything else.
QuantizedWeight BlockFile::read_codes_and_exceptions(const QuantizedLinear& linear, const std::string& name, ScaleZero grid) const {
  const int64_t out = linear.out_features, in = linear.in_features;
  QuantizedWeight weight{linear.weights, unpack_codes(stored_->read(name + kCodes), linear.weights.type, out, in), std::move(grid)};
  auto read = [&](const char* where, const char* what, int64_t bound, at::Tensor& at, at::Tensor& values, bool columns) {
    if (!stored_->contains(name + where)) return;
    at = stored_->read(name + where);
    values = stored_->contains(name + what) ? stored_->read(name + what) : at::Tensor();
    const bool sound = at.scalar_type() == at::kLong && at.dim() == 1 && values.defined() && values.scalar_type() == at::kHalf &&
                       values.sizes() == (columns ? at::IntArrayRef{out, at.numel()} : at::IntArrayRef{at.numel()}) &&
                       (at.numel() == 0 || (at.min().item<int64_t>() >= 0 && at.max().item<int64_t>() < bound));
    if (!sound) throw InputError(fmt::format("\"{}\" are not positions in [{}, {}] with float16 values", where, out, in));
    values = values.to(at::kFloat);
  };
  read(kColumns, kColumnValues, in, weight.columns, weight.column_values, true);
  read(kOutliers, kOutlierValues, out * in, weight.outliers, weight.outlier_values, false);
  return weight;
}

QuantizedModel open_blocks(const std::shared_ptr<const Model>& model, const std::vector<std::filesystem::path>& paths, const std::filesystem::path& tuned,
                           const Scheme* older) {
  auto blocks = std::make_shared<OpenBlocks>();
  auto floats = std::make_shared<Floats>();
  std::unordered_map<std::string, const QuantizedLinear*> found;
  blocks->files.reserve(paths.size());
  for (const auto& path : paths) {
    const BlockFile& file = blocks->files.emplace_back(path, older);
    floats->add_file({blocks, &file.stored()}, path, file.floats());
    for (const auto& [weight, linear] : file.linears()) {
      blocks->file_of[linear.module] = blocks->files.size() - 1;
      found[weight] = &linear;
    }
  }
  if (!tuned.empty()) {
    blocks->tuned = open_checked_safetensors(tuned).tensors;
    blocks->tuned_path = tuned.string();
    std::vector<TensorInfo> others;
    for (const TensorInfo& info : blocks->tuned->tensors())
      if (!is_part(info.name)) others.push_back(info);
    floats->add_file(blocks->tuned, tuned, others);
  }
  QuantizedModel quantized;
  for (const BlockFile& file : blocks->files) {
    if (!file.cache()) continue;
    require_cache_fits(*file.cache(), *model, file.stored().files().front().string());
    quantized.caches.push_back(*file.cache());
  }
  quantized.model = model;
  quantized.changed = floats;
  for (const BlockInfo& block : model->info.blocks)
    for (const LinearInfo& linear : block.linears)
      if (const auto it = found.find(linear.tensor); it != found.end()) {
        quantized.linears.push_back(*it->second);
        found.erase(it);
      }
  for (const std::string& weight : {model->architecture.names.embedding + kWeight, model->architecture.names.head + kWeight})
    if (const auto it = found.find(weight); it != found.end()) {
      const TensorInfo* own = model->source->find(weight);
      if (!own || own->shape != std::vector<int64_t>{it->second->out_features, it->second->in_features})
        throw InputError(fmt::format("{}: codes of [{}, {}], which is not the shape of the model's", place(blocks->files[blocks->file_of.at(it->second->module)].stored().files().front(), weight),
                                     it->second->out_features, it->second->in_features));
      quantized.vocabulary.push_back(*it->second);
      found.erase(it);
    }
  if (!found.empty())
    throw InputError(fmt::format("{}: the model {} has no such linear", place(blocks->files[blocks->file_of.at(found.begin()->second->module)].stored().files().front(), found.begin()->first),
                                 model->path.string()));
  quantized.read = [blocks](const QuantizedLinear& linear) {
    const std::string name = linear.module + kWeight;
    QuantizedWeight weight = blocks->files[blocks->file_of.at(linear.module)].read(name);
    weight.grid = blocks->grid(name, std::move(weight.grid), weight.spec);
    return weight;
  };
  quantized.read_grid = [blocks](const QuantizedLinear& linear) {
    const std::string name = linear.module + kWeight;
    return blocks->grid(name, blocks->files[blocks->file_of.at(linear.module)].read_grid(name), linear.weights);
  };
  quantized.read_transformed = [blocks, source = model->source](const QuantizedLinear& linear) {
    const std::string name = linear.module + kWeight;
    return blocks->files[blocks->file_of.at(linear.module)].transformed(name, source->read(name));
  };
  return quantized;
}

}  // namespace qb
