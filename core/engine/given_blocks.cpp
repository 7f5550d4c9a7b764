#include "core/engine/given_blocks.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "core/base/error.h"
#include "core/engine/model_tuning.h"
#include "core/format/checked_safetensors.h"
#include "core/format/listed_tensors.h"
#include "core/method/transformation/scale_group.h"
#include "core/model/canonical_source.h"

namespace qb {
namespace {

const std::string kWeight = ".weight";

// Some tensors of another source.
class Picked final : public ListedTensors {
 public:
  Picked(TensorSourcePtr from, const std::vector<std::string>& names) : from_(std::move(from)) {
    for (const std::string& name : names) add(*from_->find(name));
  }
  const std::vector<std::filesystem::path>& files() const override { return from_->files(); }
  at::Tensor read(const std::string& name) const override {
    if (!contains(name)) throw InputError(fmt::format("no tensor \"{}\" among those that replace the model's", name));
    return from_->read(name);
  }

 private:
  TensorSourcePtr from_;
};

double squares(const at::Tensor& t) { return t.square().sum(at::kDouble).item<double>(); }

bool same_values(const at::Tensor& a, const at::Tensor& b) { return a.sizes() == b.sizes() && (a.scalar_type() == b.scalar_type() ? at::equal(a, b) : at::equal(a.to(at::kFloat), b.to(at::kFloat))); }

// The factor of each row of `other` against `own` [rows, n] by least squares, and the variance of its logarithm from what is left over.
std::pair<at::Tensor, at::Tensor> row_factors(const at::Tensor& own, const at::Tensor& other) {
  const at::Tensor size = own.square().sum(1, false, at::kDouble), factor = (own * other).sum(1, false, at::kDouble) / size;
  const at::Tensor left = (other - own * factor.to(at::kFloat).unsqueeze(1)).square().sum(1, false, at::kDouble);
  const auto freedom = static_cast<double>(std::max<int64_t>(1, own.size(1) - 1));
  return {factor, (left / freedom / size / factor.square()).clamp_min(1e-12)};
}

// Pearson's, over what is finite in both; 0 where either does not vary.
double correlation(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor both = a.isfinite().logical_and(b.isfinite());
  const at::Tensor x = a.masked_select(both).to(at::kDouble), y = b.masked_select(both).to(at::kDouble);
  if (x.numel() < 3) return 0;
  const at::Tensor u = x - x.mean(), v = y - y.mean();
  const double size = std::sqrt(squares(u) * squares(v));
  return size > 0 ? (u * v).sum().item<double>() / size : 0;
}

std::string range_text(const at::Tensor& s) { return fmt::format("{:.3g} to {:.3g}", s.min().item<double>(), s.max().item<double>()); }

}  // namespace

GivenBlocks::GivenBlocks(const EngineJob& job, const Decoder& decoder) : job_(job), decoder_(decoder), numbers_(overlay(job.given->model->source, job.given->changed)) {
  for (const QuantizedLinear& linear : job.given->linears) linears_.emplace(linear.module, &linear);
  if (!job.compared) return;  // the model is the checkpoint
  const Architecture &ours = job.model->architecture, &theirs = job.given->model->architecture;
  std::vector<std::string> others;
  for (const TensorSpec& spec : ours.globals) {
    if (!numbers_->contains(spec.name) || !job.model->source->contains(spec.name)) continue;
    if (!same_values(numbers_->read(spec.name), job.model->source->read(spec.name))) others.push_back(spec.name);
  }
  // A head that was split off is the checkpoint's in any case.
  if (const std::string head = theirs.names.head + kWeight; !theirs.tied_embeddings && !ours.tied_embeddings && numbers_->contains(head) &&
                                                            std::find(others.begin(), others.end(), head) == others.end() && !job.model->files->contains(head))
    others.push_back(head);
  if (!others.empty()) outside_ = std::make_shared<Picked>(numbers_, others);
}

const QuantizedLinear* GivenBlocks::find(const std::string& module) const {
  const auto it = linears_.find(module);
  return it == linears_.end() ? nullptr : it->second;
}

at::Tensor GivenBlocks::loaded(const std::string& name) const {
  at::Tensor value = numbers_->read(name);
  if (decoder_.weight_dtype() != decoder_.dtype()) value = value.to(decoder_.dtype());
  return value.to(at::TensorOptions().dtype(decoder_.weight_dtype()).device(decoder_.device()), false, true, at::MemoryFormat::Contiguous);
}

void GivenBlocks::write_outside(const std::filesystem::path& folder) const {
  if (!outside_) return;
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  const auto coded = [&](const std::string& name) {
    return std::any_of(job_.given->vocabulary.begin(), job_.given->vocabulary.end(), [&](const QuantizedLinear& matrix) { return name == matrix.module + kWeight; });
  };
  for (const TensorInfo& info : outside_->tensors())
    if (!coded(info.name)) tensors.emplace_back(info.name, outside_->read(info.name));
  if (tensors.empty()) return;
  write_checked_safetensors(tuned_path(folder), tensors);
}

void GivenBlocks::fill(BlockWork& work) const {
  for (const QuantizedCache& cache : job_.given->caches)
    if (cache.block == work.block.index) {
      work.cache = cache.spec;
      if (!cache.spec.dynamic) work.cache_grids = cache.grids;
    }
  std::vector<at::Tensor> given;  // the weights as numbers, float32
  for (LinearWork& linear : work.linears) {
    work.begin(linear);
    if (const QuantizedLinear* found = find(linear.module)) {
      linear.quantized = job_.given->read(*found);
      ScaleZero& grid = linear.quantized->grid;
      for (at::Tensor* part : {&linear.quantized->codes, &grid.scale, &grid.zero, &grid.minimum, &grid.super, &grid.super_minimum})
        if (part->defined()) *part = part->to(job_.device);
      linear.spec = found->weights;
      linear.activations = found->activations;
      linear.input_grid = found->input_grid;
      given.push_back(linear.quantized->dequantize());
    } else {
      linear.spec.reset();
      linear.activations.reset();
      tell_storage(linear);
      given.push_back(numbers_->read(linear.info.tensor).to(job_.device, at::kFloat));
    }
    if (const at::Tensor& weight = given.back(); !weight.isfinite().all().item<bool>())
      throw InputError(fmt::format("{}: \"{}\" holds NaN or infinity", job_.given->model->path.string(), linear.module));
  }
  if (!job_.compared) {
    for (size_t i = 0; i < work.linears.size(); ++i)
      if (!work.linears[i].quantized) work.linears[i].original = work.linears[i].weight = given[i];
    return;
  }
  follow_norms_and_linears(work, given);
  for (size_t i = 0; i < work.linears.size(); ++i) {
    LinearWork& linear = work.linears[i];
    if (!linear.quantized && !at::equal(given[i], linear.weight)) linear.weight = given[i];
    if (const double own = squares(linear.reference), apart = squares(given[i] - linear.reference); apart > 0.8 * own)
      linear.tell(fmt::format("does not resemble the original's weights (relative error {:.2f}): rotated, or made of another model?", std::sqrt(apart / own)));
    at::Tensor& bias = work.block.linears[i].bias;
    if (const std::string name = linear.module + ".bias"; numbers_->contains(name))
      if (const at::Tensor theirs = loaded(name); !bias.defined() || !at::equal(theirs, bias)) bias = theirs;
  }
  const std::string prefix = decoder_.architecture().block_prefix(work.block.index);
  for (auto& [name, tensor] : work.block.others)
    if (numbers_->contains(prefix + name))
      if (const at::Tensor theirs = loaded(prefix + name); !at::equal(theirs, tensor)) tensor = theirs;
}

// A matrix that stays numbers takes what the checkpoint stores of it. In blocks of a type whose codes are not those of the linear's rows
// (parts of several types, stored by columns) it is measured by the numbers that they stand for, and that is said.
void GivenBlocks::tell_storage(LinearWork& linear) const {
  const CanonicalTensor* entry = job_.given->model->files->entry(linear.info.tensor);
  if (!entry) return;
  linear.info.bytes = entry->info.bytes;
  std::vector<std::string> types;
  bool blocks = false, known = true;
  for (const std::string& stored : entry->stored) {
    const DType type = job_.given->model->files->stored()->find(stored)->dtype;
    blocks = blocks || is_block_quantized(type);
    known = known && type != DType::iq4_xs && type != DType::tq1_0 && type != DType::tq2_0;
    if (const std::string name(name_of(type)); std::find(types.begin(), types.end(), name) == types.end()) types.push_back(name);
  }
  if (!blocks) return;
  linear.tell(fmt::format("stored as {}, {}: measured as the numbers that they stand for", fmt::join(types, " and "),
                          types.size() > 1 ? "which no linear has at once" : known ? "in blocks that do not follow its rows" : "which is read only"));
}

// Factors that a norm took in are known from the norm; those that rows of a linear took in are the least squares fit of readers and rows.
void GivenBlocks::follow_norms_and_linears(BlockWork& work, const std::vector<at::Tensor>& given) const {
  const std::string prefix = decoder_.architecture().block_prefix(work.block.index);
  auto apart = [&](const ScaleGroup& group, const at::Tensor& s) {
    double sum = 0;
    for (size_t i : group.linears) sum += squares(given[i] - (s.defined() ? work.linears[i].reference * s : work.linears[i].reference));
    return sum;
  };
  for (const ScaleGroup& group : scale_groups(work)) {
    work.control.checkpoint();
    if (group.producer == ScaleGroup::Producer::norm) {
      const std::string name = group.norm + kWeight;
      const at::Tensor own = work.block.others.at(name), theirs = loaded(prefix + name);
      if (at::equal(own, theirs)) continue;
      const double plus = group.plus_one ? 1 : 0;
      const at::Tensor before = own.to(at::kFloat) + plus, after = theirs.to(at::kFloat) + plus;
      const at::Tensor s = at::where((before != 0).logical_and(after != 0), before / after, at::ones_like(before));
      // Another type rounds a norm by less than this; what was learned moves it without its readers.
      const bool rounded = s.log().abs().max().item<double>() < 0.008, folded = apart(group, s) < apart(group, {});
      if (folded) scale_readers(work, group, s);
      if (!rounded)
        for (size_t i : group.linears)
          work.linears[i].tell(folded ? fmt::format("compared with the weight times {} by channel, which the norm before it took in", range_text(s))
                                      : "the norm before it is not the original's, and the weight does not make up for it");
      continue;
    }
    LinearWork& producer = work.linears[group.linear];
    const at::Tensor rows = group.rows.to(producer.reference.device());
    const at::Tensor made = producer.reference.index_select(0, rows), made_given = given[group.linear].index_select(0, rows);
    std::vector<at::Tensor> readers, readers_given;
    for (size_t i : group.linears) {
      readers.push_back(work.linears[i].reference.t());
      readers_given.push_back(given[i].t());
    }
    const auto [read, read_variance] = row_factors(at::cat(readers, 1), at::cat(readers_given, 1));
    const auto [inverse, made_variance] = row_factors(made, made_given);
    at::Tensor log_s = (read.log() / read_variance - inverse.log() / made_variance) / (read_variance.reciprocal() + made_variance.reciprocal());
    log_s = at::where(log_s.isfinite(), log_s, at::zeros_like(log_s)).to(at::kFloat);
    const at::Tensor s = tied(group, log_s).exp();
    // Rounding alone would leave both sides with factors that know nothing of each other.
    const auto rows_used = static_cast<double>(std::get<0>(at::_unique(rows)).numel());
    const double agreement = correlation(tied(group, read.log().to(at::kFloat)), inverse.log().to(at::kFloat).neg());
    if (!(agreement > std::max(0.3, 4 / std::sqrt(rows_used))) || !(apart(group, s) < apart(group, {}))) continue;
    const at::Tensor by_row = at::ones({producer.info.out_features}, s.options()).index_copy_(0, rows, s);
    producer.transform([&](const at::Tensor& w) { return w / by_row.unsqueeze(1); });
    producer.output_scale = producer.output_scale.defined() ? producer.output_scale * by_row : by_row;
    scale_readers(work, group, s);
    producer.tell(fmt::format("compared with the weight divided by {} by row, as fitted to what reads it", range_text(s)));
    for (size_t i : group.linears) work.linears[i].tell(fmt::format("compared with the weight times {} by channel, as fitted to what it reads", range_text(s)));
  }
}

std::shared_ptr<const Model> with_own_head(const std::shared_ptr<const Model>& original, const TensorSourcePtr& head) {
  const Architecture& a = original->architecture;
  const std::string name = a.names.head + kWeight;
  if (!a.tied_embeddings || !head || !head->contains(name)) return original;
  auto model = std::make_shared<Model>(*original);
  model->source = overlay(original->source, std::make_shared<Picked>(head, std::vector<std::string>{name}));
  model->architecture.globals.push_back({name, {a.vocabulary, a.embedding_size}});
  model->architecture.tied_embeddings = false;
  model->info.tied_embeddings = false;
  return model;
}

}  // namespace qb
