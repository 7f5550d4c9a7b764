#include "core/method/sparsity/shortgpt.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>
#include <sstream>
#include <unordered_map>

#include "core/base/error.h"
#include "core/method/changed_source.h"

namespace qb {
namespace {

constexpr int64_t kInfluenceTokens = 16384;  // the order of blocks settles with few

// The tensors of the kept blocks under new numbers.
class Renumbered final : public ChangedSource {
 public:
  Renumbered(const Model& model, const std::vector<int64_t>& kept) : ChangedSource(model.source) {
    for (const TensorInfo& info : base_->tensors()) {
      const std::string& stem = model.architecture.names.block;
      if (info.name.rfind(stem, 0) != 0) {
        add(info);
        continue;
      }
      const size_t end = info.name.find('.', stem.size());
      const int64_t block = std::stoll(info.name.substr(stem.size(), end - stem.size()));
      const auto at = std::find(kept.begin(), kept.end(), block);
      if (at != kept.end()) add_as(info, model.architecture.block_prefix(at - kept.begin()) + info.name.substr(end + 1));
    }
  }
  at::Tensor read(const std::string& name) const override {
    const auto it = originals_.find(name);
    return base_->read(it == originals_.end() ? name : it->second);
  }

 private:
  void add_as(TensorInfo info, const std::string& name) {
    originals_.emplace(name, info.name);
    info.name = name;
    add(std::move(info));
  }
  std::unordered_map<std::string, std::string> originals_;  // names in the files, where they differ
};

std::string plan(const StageSpec& stage, const std::shared_ptr<const Model>& model, const std::vector<std::vector<int32_t>>& calibration, at::Device device,
                 const Control& control) {
  const int64_t drop = knob<int64_t>(stage, "n_prune_layers"), blocks = model->architecture.blocks;
  if (drop >= blocks) throw InputError(fmt::format("shortgpt: n_prune_layers is {}, but {} has {} blocks", drop, model->info.name, blocks));
  for (const LayerSpec& layer : model->architecture.layers)
    if (layer.takes_kv >= 0)
      throw InputError(fmt::format("shortgpt: {} ({}): blocks share keys and values with earlier ones, which then could not be dropped", model->info.name,
                                   model->architecture.family));
  const std::vector<double> influence = block_influence(model, calibration, device, control);
  std::vector<int64_t> order(static_cast<size_t>(blocks));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return influence[static_cast<size_t>(a)] > influence[static_cast<size_t>(b)]; });
  order.resize(static_cast<size_t>(blocks - drop));
  std::sort(order.begin(), order.end());
  return fmt::format("{}", fmt::join(order, " "));
}

std::shared_ptr<const Model> keep_blocks(const StageSpec&, const std::shared_ptr<const Model>& model, const std::string& text, uint64_t) {
  std::vector<int64_t> kept;
  std::istringstream words(text);
  for (int64_t block; words >> block;) {
    if (block < 0 || block >= model->architecture.blocks || (!kept.empty() && block <= kept.back()))
      throw InputError(fmt::format("shortgpt: \"{}\" is no list of blocks of {}", text, model->info.name));
    kept.push_back(block);
  }
  if (kept.empty()) throw InputError("shortgpt: no block is left");
  auto changed = std::make_shared<Model>(*model);
  changed->source = std::make_shared<Renumbered>(*model, kept);
  changed->architecture.blocks = static_cast<int64_t>(kept.size());
  changed->architecture.layers.clear();
  changed->info.blocks.clear();
  for (size_t i = 0; i < kept.size(); ++i) {
    const auto from = static_cast<size_t>(kept[i]);
    changed->architecture.layers.push_back(model->architecture.layers[from]);
    BlockInfo block = model->info.blocks[from];
    block.index = static_cast<int>(i);
    const std::string before = model->architecture.block_prefix(kept[i]), after = model->architecture.block_prefix(static_cast<int64_t>(i));
    for (LinearInfo& linear : block.linears)
      if (linear.tensor.rfind(before, 0) == 0) linear.tensor = after + linear.tensor.substr(before.size());
    changed->info.blocks.push_back(std::move(block));
  }
  return changed;
}

}  // namespace

std::vector<double> block_influence(const std::shared_ptr<const Model>& model, const std::vector<std::vector<int32_t>>& samples, at::Device device, const Control& control) {
  Decoder decoder(model, model->source, at::kBFloat16, device);
  std::vector<at::Tensor> states;
  int64_t tokens = 0;
  for (const auto& sample : samples) {
    if (tokens >= kInfluenceTokens) break;
    if (sample.empty()) continue;
    tokens += static_cast<int64_t>(sample.size());
    states.push_back(decoder.embed(at::tensor(at::ArrayRef<int32_t>(sample), at::kLong).unsqueeze(0).to(device)));
  }
  if (states.empty()) throw InputError("shortgpt: needs calibration text");
  std::vector<double> influence;
  for (int b = 0; b < decoder.blocks(); ++b) {
    const Block block = decoder.load_block(b);
    double sum = 0;
    for (at::Tensor& state : states) {
      control.checkpoint();
      const at::Tensor out = decoder.forward(block, state);
      sum += at::cosine_similarity(decoder.hidden_part(state).to(at::kFloat), decoder.hidden_part(out).to(at::kFloat), -1).sum(at::kDouble).item<double>();
      state = out;
    }
    influence.push_back(1 - sum / static_cast<double>(tokens));
  }
  return influence;
}

MethodInfo shortgpt_info() {
  return {.name = "shortgpt",
          .title = "ShortGPT",
          .kind = MethodClass::sparsity,
          .help = "Drops whole blocks, those whose output is closest to their input.",
          .source = "Men et al. 2024, arXiv 2403.03853",
          .needs_calibration = true,
          .contract = {.place = Place::model, .keeps = Trace::transforms},
          .knobs = {{"n_prune_layers", "Blocks to drop", KnobType::integer, int64_t{1}, 1, 1000, {}, "blocks", "how many blocks to drop", "ShortGPT"}}};
}

std::unique_ptr<Method> make_shortgpt(const StageSpec&) { return make_outside_blocks(); }
ModelChange shortgpt_change() { return {"shortgpt", plan, keep_blocks}; }

}  // namespace qb
