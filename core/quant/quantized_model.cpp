#include "core/quant/quantized_model.h"

#include <fmt/format.h>

#include <cstring>

#include "core/base/error.h"
#include "core/format/listed_tensors.h"
#include "core/quant/stored_spec.h"

namespace qb {
namespace {

const std::string kWeight = ".weight";

// Weights of the quantized linears as numbers.
class Numbers final : public ListedTensors {
 public:
  Numbers(QuantizedModel model, bool rounded) : model_(std::move(model)), rounded_(rounded) {
    linears_ = linears_by_weight(model_);
    for (const auto* all : {&model_.linears, &model_.vocabulary})
      for (const QuantizedLinear& linear : *all) {
        TensorInfo info;
        info.name = linear.module + kWeight;
        info.shape = {linear.out_features, linear.in_features};
        if (const TensorInfo* original = model_.model->source->find(info.name)) info.file = original->file, info.offset = original->offset;
        info.bytes = static_cast<uint64_t>(linear.out_features * linear.in_features) * sizeof(float);
        add(std::move(info));
      }
  }
  const std::vector<std::filesystem::path>& files() const override { return model_.model->source->files(); }
  at::Tensor read(const std::string& name) const override {
    const auto it = linears_.find(name);
    if (it == linears_.end()) throw InputError(fmt::format("no tensor \"{}\" among the quantized linears", name));
    const QuantizedLinear& linear = *it->second;
    return rounded_ ? model_.read(linear).dequantize() : model_.read_transformed(linear);
  }

 private:
  QuantizedModel model_;
  bool rounded_;
  std::unordered_map<std::string, const QuantizedLinear*> linears_;
};

std::string unequal(const at::Tensor& a, const at::Tensor& b, const char* what) {
  if (a.defined() != b.defined()) return fmt::format("{} are there on one side only", what);
  if (!a.defined()) return {};
  if (a.sizes() != b.sizes()) return fmt::format("{} are of different shapes", what);
  // Mostly they are equal, which a look at their bytes tells soonest.
  if (a.scalar_type() == b.scalar_type() && a.is_contiguous() && b.is_contiguous() && a.is_cpu() && b.is_cpu() && std::memcmp(a.const_data_ptr(), b.const_data_ptr(), a.nbytes()) == 0) return {};
  const auto apart = a.ne(b).sum().item<int64_t>();
  return apart == 0 ? std::string() : fmt::format("{} of {} {} differ", apart, a.numel(), what);
}

}  // namespace

void require_cache_fits(const QuantizedCache& cache, const Model& model, const std::string& what) {
  if (cache.block < 0 || cache.block >= static_cast<int>(model.architecture.layers.size())) throw InputError(fmt::format("{}: keys and values of block {}, which the model has not", what, cache.block));
  const CachedValues cached = cached_values(model.architecture.layers[static_cast<size_t>(cache.block)].graph);
  if (!cached.exists()) throw InputError(fmt::format("{}: block {} makes no keys and values that a cache keeps", what, cache.block));
  for (int64_t dim : {cached.key_dim, cached.value_dim})
    if (const std::string problem = cache_misfit(cache.spec, dim); !problem.empty()) throw InputError(fmt::format("{}: keys and values: {}", what, problem));
  const auto expected = static_cast<size_t>(cache.spec.dynamic ? 0 : cache.spec.granularity == Granularity::head ? cached.heads : 1);
  for (const auto* grids : {&cache.grids.keys, &cache.grids.values})
    if (grids->size() != expected) throw InputError(fmt::format("{}: {} ranges of keys or values, expected {}", what, grids->size(), expected));
}

std::unordered_map<std::string, const QuantizedLinear*> linears_by_weight(const QuantizedModel& model) {
  std::unordered_map<std::string, const QuantizedLinear*> all;
  for (const auto* some : {&model.linears, &model.vocabulary})
    for (const QuantizedLinear& linear : *some) all.emplace(linear.module + kWeight, &linear);
  return all;
}

TensorSourcePtr dequantized(const QuantizedModel& model) {
  return overlay(overlay(model.model->source, model.changed), std::make_shared<Numbers>(model, true));
}

TensorSourcePtr transformed(const QuantizedModel& model) {
  if (!model.read_transformed) throw InputError(fmt::format("{}: a checkpoint by itself does not hold the weights before rounding; export the run that made it", model.model->path.string()));
  return overlay(overlay(model.model->source, model.changed), std::make_shared<Numbers>(model, false));
}

std::string difference(const QuantizedWeight& a, const QuantizedWeight& b) {
  if (meaning_of(a.spec) != meaning_of(b.spec)) return fmt::format("{} and {}", describe(a.spec), describe(b.spec));
  for (const auto& [left, right, what] : {std::tuple{&a.codes, &b.codes, "codes"}, {&a.grid.scale, &b.grid.scale, "scales"}, {&a.grid.zero, &b.grid.zero, "zero points"},
                                          {&a.grid.minimum, &b.grid.minimum, "minimums"}, {&a.grid.super, &b.grid.super, "scales of super-blocks"},
                                          {&a.grid.super_minimum, &b.grid.super_minimum, "minimums of super-blocks"},
                                          {&a.columns, &b.columns, "kept columns"}, {&a.column_values, &b.column_values, "kept columns' values"},
                                          {&a.outliers, &b.outliers, "outliers"}, {&a.outlier_values, &b.outlier_values, "outliers' values"}})
    if (const std::string found = unequal(*left, *right, what); !found.empty()) return found;
  return {};
}

}  // namespace qb
