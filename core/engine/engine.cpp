#include "core/engine/engine.h"

#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <chrono>
#include <thread>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/memory.h"
#include "core/engine/block_store.h"
#include "core/engine/collector.h"
#include "core/engine/finite.h"
#include "core/engine/given_blocks.h"
#include "core/engine/gram.h"
#include "core/engine/guidance.h"
#include "core/engine/hidden_states.h"
#include "core/engine/importance.h"
#include "core/engine/joined_factors.h"
#include "core/engine/model_tuning.h"
#include "core/engine/module_name.h"
#include "core/engine/run_state.h"
#include "core/engine/static_ranges.h"
#include "core/engine/statistics_cache.h"
#include "core/engine/vocabulary.h"
#include "core/format/checked_safetensors.h"
#include "core/method/contracts.h"
#include "core/method/guided.h"

namespace qb {
namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

constexpr int64_t kMeasuredRows = 1024;  // rows of a linear's input kept for output errors

constexpr Statistics bits(std::initializer_list<Statistic> of) {
  Statistics all = 0;
  for (Statistic one : of) all |= static_cast<Statistics>(one);
  return all;
}
// What an entry of the cache always holds beside what was asked for: next to free, and what the next recipe may want.
constexpr Statistics kAlwaysCached = bits({Statistic::rows, Statistic::abs_max, Statistic::mean_abs, Statistic::sum_squares});
constexpr Statistics kCollected = kAlwaysCached | bits({Statistic::gram});

// Stages choose by what is there: they see the same whether it comes from the cache or not.
void keep_only(BlockStatistics& statistics, Statistics wanted) {
  for (auto& [name, s] : statistics)
    for (const auto& [what, tensor] : {std::pair{Statistic::gram, &s.gram}, {Statistic::abs_max, &s.abs_max}, {Statistic::mean_abs, &s.mean_abs},
                                       {Statistic::sum_squares, &s.sum_squares}, {Statistic::rows, &s.rows}})
      if ((wanted & static_cast<Statistics>(what)) == 0) tensor->reset();
}

// The first samples that hold at least `tokens` tokens.
TokenSet leading(const TokenSet& all, int64_t tokens) {
  TokenSet some;
  for (const auto& sample : all.samples) {
    if (some.tokens() >= tokens) break;
    some.samples.push_back(sample);
  }
  return some;
}

class Samples final : public BlockSamples {
 public:
  // model: the float model's states behind this block, or nothing.
  Samples(const HiddenStates& inputs, const HiddenStates& outputs, const HiddenStates* model) : inputs_(inputs), outputs_(outputs), model_(model) {}
  int64_t batches() const override { return static_cast<int64_t>(inputs_.drawn().size()); }
  at::Tensor input(int64_t batch) const override { return inputs_.drawn()[static_cast<size_t>(batch)]; }
  at::Tensor float_output(int64_t batch) const override { return outputs_.drawn()[static_cast<size_t>(batch)]; }
  at::Tensor model_output(int64_t batch) const override {
    if (!model_) throw InternalError("a stage wants the float model's states but did not ask for them");
    return model_->drawn()[static_cast<size_t>(batch)];
  }

 private:
  const HiddenStates &inputs_, &outputs_;
  const HiddenStates* model_;
};

class Run {
 public:
  // head: whose Gram matrix is wanted at the end, or nullptr.
  Run(const EngineJob& job, const Control& control, const std::function<void(const BlockView&)>& on_block, const VocabularyPart* head)
      : job_(job), control_(control), on_block_(on_block), head_(head), float_decoder_(job.model, job.model->source, job.dtype, job.device) {
    if (job.given) given_.emplace(job, float_decoder_);
    for (const StageSpec& stage : job.given ? std::vector<StageSpec>{} : complete_pipeline(job.pipeline)) {
      if (find_method(stage.method)->contract.place == Place::finished) continue;
      methods_.push_back(make_method(stage));
      specs_.push_back(stage);
      wanted_ |= methods_.back()->needs();
    }
    guided_ = guided_wish(specs_);
    if (guided_ && guided_->samples == 0) guided_->samples = static_cast<int64_t>(job.calibration.samples.size());
    if (job.importance) wanted_ &= ~static_cast<Statistics>(Statistic::sum_squares);
    if (fixes_ranges()) wanted_ |= bits({Statistic::again});
    seen_.at_value = [this](const GraphValue&, const at::Tensor& x) {
      control_.checkpoint();
      return x;
    };
    // Static ranges come with each block.
    if (job.given)
      take_taps(*job.given);
    else if (!fixes_ranges())
      take_taps(job.scheme);
    quantizing_.at_linear = [this](const Linear& linear, const at::Tensor& x) {
      control_.checkpoint();
      return rounding_ ? rounding_(linear, x) : x;
    };
    quantizing_.at_cache = [this](int block, const GraphValue& value, const at::Tensor& x) { return cache_rounding_ ? cache_rounding_(block, value, x) : x; };
    if (job.calibration.samples.empty()) return;
    // Without a stage that learns from data, calibration text only serves measurement: a sample of it is enough. Checkpoints are
    // measured as runs that learn are.
    const TokenSet measured = leading(job.calibration, job.measured_tokens);
    sample_ = !wanted_ && !job.given && !head_;
    tokens_ = sample_ ? measured : job.calibration;
    const TokenSet& tokens = tokens_;
    measured_tokens_ = measured.tokens();
    float_hidden_ = embedded(wants(Statistic::float_path) ? tokens : measured);
    // Float outputs are kept where stages compare with them, or where they follow while the inputs are still wanted.
    if (wants(Statistic::block_io) || (wants(Statistic::again) && !job.propagate_quantized)) outputs_ = states(tokens);
    const std::vector<std::filesystem::path> codes = job.propagate_quantized && !(given_ && given_->outside()) ? first_vocabulary(job) : std::vector<std::filesystem::path>{};
    if (!job.statistics_folder.empty() && !given_) {
      inputs_ = statistics_key(job, float_decoder_);
      cache_ = std::make_unique<StatisticsCache>(job.statistics_folder, inputs_, job.statistics_bytes, [this](const std::string& text) { tell(text); });
      float_inputs_ = codes.empty();
      for (const auto& path : codes) inputs_ = behind(inputs_, path, {}, job.scheme);
    }
    // Stages that pass the calibration text through the block themselves need its states, whatever is cached.
    from_cache_ = cache_ && (wanted_ & ~kCollected) == 0;
    if (from_cache_ && !job.propagate_quantized) return;
    if (given_ && given_->outside()) {
      Decoder other(job.model, overlay(job.model->source, given_->outside()), job.dtype, job.device);
      hidden_ = embedded(tokens, other);
    } else if (!codes.empty()) {  // the embedding that the quantized model has
      Decoder other(job.model, dequantized(open_blocks(job.model, codes)), job.dtype, job.device);
      hidden_ = embedded(tokens, other);
    } else {
      hidden_ = embedded(tokens);
    }
  }

  // share: of the whole job's progress.
  void all(int kept, double share) {
    share_ = share;
    const int total = float_decoder_.blocks();
    if (guided_) guide();
    for (int i = 0; i < kept; ++i) replay(i);
    done_at_start_ = kept;
    for (int i = kept; i < total; ++i) {
      one(i);
      release_freed_memory();
    }
    if (guidance_ && job_.statistics_folder.empty()) {
      std::error_code ignored;
      std::filesystem::remove_all(guidance_folder(), ignored);
    }
    for (const auto& [what, blocks] : taken_) tell(fmt::format("{} of {} of {} blocks came from the cache", what, blocks, total - kept));
  }

  // XᵀX of what the head multiplies, of the states that the blocks were given; undefined without calibration text.
  at::Tensor head_gram() {
    if (job_.calibration.samples.empty()) return {};
    report("calibrate", float_decoder_.blocks() - 1, "head", 0.9);
    if (from_cache_) reach(float_decoder_.blocks());
    const int64_t width = job_.model->architecture.embedding_size;
    const at::Tensor gram = at::zeros({width, width}, at::TensorOptions().dtype(at::kFloat).device(job_.device));
    for (size_t b = 0; b < hidden_->batches(); ++b) {
      control_.checkpoint();
      add_upper_gram(gram, float_decoder_.before_head((*hidden_)[b].to(job_.device)));
    }
    return complete_gram(gram);
  }

 private:
  std::filesystem::path guidance_folder() const {
    Hasher hasher;
    hasher.update(fmt::format("guidance 1 {} {} {} {}", statistics_key(job_, float_decoder_), guided_->groups, guided_->samples, job_.seed));
    return (job_.statistics_folder.empty() ? job_.folder : job_.statistics_folder) / ("guidance-" + hasher.hex());
  }

  // Of the float model, whatever the run feeds its blocks; shared by the runs of a cache, of which one makes it.
  void guide() {
    if (job_.calibration.samples.empty()) throw InputError("guided statistics need calibration text");
    const GuidanceOptions options{guided_->groups, job_.seed, job_.resident_bytes, guidance_folder()};
    TokenSet tokens;
    tokens.samples.assign(job_.calibration.samples.begin(), job_.calibration.samples.begin() + std::min(guided_->samples, static_cast<int64_t>(job_.calibration.samples.size())));
    // Roughly: a pass back is three of those forward, and each block is passed through at least twice afterwards.
    const double there = static_cast<double>(tokens.tokens()), whole = static_cast<double>(job_.calibration.tokens());
    const double ahead = 4 * there / (4 * there + 3 * whole);
    std::error_code error;
    std::filesystem::create_directories(options.folder, error);
    if (error) throw ResourceError(fmt::format("{}: cannot create the folder: {}", options.folder.string(), error.message()));
    std::unique_ptr<Lease> making;
    for (LeaseOwner owner; !(making = Lease::take(options.folder / "making.lease", &owner));) {
      report("waits for guidance", 0, "", 0);
      std::this_thread::sleep_for(std::chrono::milliseconds(200));
      control_.checkpoint();
    }
    guidance_.emplace(job_.model, float_decoder_, tokens, options, control_, [&](int block, double done) {
      making->renew();
      ahead_ = ahead * done;
      report("guidance", block, "", -block);
    });
    ahead_ = ahead;
    blocks_start_ = Clock::now();
  }

  // Passes hidden states through a block that an earlier session finished: the same operations give the same bits.
  void replay(int index) {
    report("resume", index, "", 0);
    if (!float_hidden_) return;
    Block block = float_decoder_.load_block(index);
    if (!job_.propagate_quantized && !from_cache_) pass(block, seen_);
    pass_float(block);
    if (job_.propagate_quantized) {
      const QuantizedModel stored = open_blocks(job_.model, {block_path(job_.folder, index)});
      if (fixes_ranges()) take_taps(stored);
      const Decoder decoder(job_.model, dequantized(stored), job_.dtype, job_.device);
      pass(decoder.load_block(index), quantizing_, from_cache_ ? Part::measured : Part::all);
      follow(index);
    }
  }

  // What enters the next block, by name.
  void follow(int index) {
    if (!cache_ || !job_.propagate_quantized) return;
    inputs_ = behind(inputs_, block_path(job_.folder, index), job_.model->info.blocks[static_cast<size_t>(index)], job_.scheme);
    float_inputs_ = false;
    cache_->leave();
  }

  // Where statistics of the block at work are kept.
  std::optional<std::filesystem::path> place_of_statistics(int index) const {
    if (!cache_) return std::nullopt;
    if (!job_.propagate_quantized || float_inputs_) return cache_->of_float(index, sample_);
    if (sample_) return std::nullopt;  // a pass over the sample costs no more than they would take of the disk
    return cache_->behind_quantized(index, inputs_);
  }

  // All that choices of the first stage depend on; stages are added one by one.
  std::string inputs_of_stages(const BlockWork& work) const {
    const auto given = job_.fingerprint.find("importance");
    std::string text = fmt::format("{} block {} sample {} statistics {} seed {} importance {}", inputs_, work.block.index, sample_, wanted_ & kCollected, job_.seed,
                                   given == job_.fingerprint.end() ? std::string() : given->second);
    if (guided_) text += fmt::format(" guided {} {}", guided_->groups, guided_->samples);  // what all stages share, whatever each asks for
    for (const LinearWork& linear : work.linears) text += fmt::format("; {} as {} of {}", linear.info.name, whole_text(linear.spec, SpecRole::weights), whole_text(linear.activations, SpecRole::activations));
    return text;
  }

  // A stage, with what an earlier run's decided where all that it depends on is the same.
  void apply(size_t stage, BlockWork& work, const std::string& depends_on) {
    const bool keeps = cache_ && methods_[stage]->chooses() && (!job_.importance || job_.fingerprint.contains("importance"));
    if (!keeps) return methods_[stage]->apply(work);
    Hasher hasher;
    hasher.update(depends_on);
    const std::string key = hasher.hex();
    Choices choices = cache_->load_choices(work.block.index, key, job_.device).value_or(Choices{});
    const size_t kept = choices.size();
    work.choices = &choices;
    methods_[stage]->apply(work);
    work.choices = nullptr;
    if (choices.size() > kept) return cache_->store_choices(work.block.index, key, choices);
    if (kept == 0) return;  // nothing was to be decided
    choices_cached_.push_back(specs_[stage].method);
    ++taken_["choices of " + specs_[stage].method];
  }

  void one(int index) {
    const auto start = Clock::now();
    report("load", index, "", 0);
    Block block = float_decoder_.load_block(index);
    Block loaded = block;  // shares the tensors: what a stage replaces differs from it
    for (Linear& linear : loaded.linears) linear.weight.reset();
    BlockWork work{block, {}, {}, float_decoder_, job_.seed, control_, {}};
    if (!given_ && cached_values(float_decoder_.graph(index)).exists()) work.cache = job_.scheme.kv_cache;
    for (const Linear& linear : block.linears) work.linears.push_back(begin(linear));
    if (guidance_) {
      guidance_of_block_ = guidance_->of(index, job_.device);
      for (size_t i = 0; i < work.linears.size(); ++i) work.linears[i].output_weight = guidance_of_block_[i].outputs;
    }
    if (float_hidden_) work.statistics = statistics_of(block);
    if (job_.importance) use_importance(job_, work);
    std::optional<Samples> samples;
    if (outputs_) work.samples = &samples.emplace(*hidden_, *outputs_, wants(Statistic::float_path) ? float_hidden_.get() : nullptr);
    if (keeps_inputs())
      work.collect_again = [&](ValueId value, Statistics what) { return collect_again(block, value, what); };
    pass_float(block);
    // No stage can run the block without its inputs: it gets weights again when they are rounded.
    if (!keeps_inputs())
      for (Linear& linear : block.linears) linear.weight.reset();
    if (given_) {
      double count = 0;
      work.on_linear = [&](const std::string& linear) { report("import", index, linear, 0.3 + 0.5 * count++ / static_cast<double>(work.linears.size())); };
      given_->fill(work);
    }
    choices_cached_.clear();
    std::string depends_on = cache_ ? inputs_of_stages(work) : std::string();
    for (size_t s = 0; s < methods_.size(); ++s) {
      depends_on += "; " + whole_text(specs_[s]);
      size_t count = 0;
      std::string at_work;
      const auto quantizable = static_cast<double>(std::max<size_t>(1, work.linears.size()));
      work.on_linear = [&](const std::string& linear) {
        at_work = linear;
        const double within = (static_cast<double>(s) + static_cast<double>(count++) / quantizable) / static_cast<double>(methods_.size());
        report(specs_[s].method, index, linear, 0.3 + 0.5 * std::min(1.0, within));
      };
      try {
        apply(s, work, depends_on);
      } catch (const InputError& e) {
        // What a quantizer refuses does not say whose it is.
        if (std::string_view(e.what()).find(at_work) != std::string_view::npos) throw;
        throw InputError(fmt::format("block {}, {}: {}", index, at_work, e.what()));
      }
    }
    control_.checkpoint();
    for (auto& [value, statistics] : work.statistics) statistics.gram.reset(), statistics.guided.clear();  // the largest of all, and nobody reads them any more
    if (!given_) join_factors(work);
    use_current_weights(work);
    if (fixes_ranges()) {
      report("ranges", index, "", 0.75);
      fix_ranges(work, *hidden_);
      take_taps(work);
    }
    report("propagate", index, "", 0.8);
    const at::Tensor quantized_output = float_hidden_ ? quantized_pass(block) : at::Tensor();
    if (outputs_ && !job_.propagate_quantized)
      for (size_t b = 0; b < hidden_->batches(); ++b) (*hidden_)[b].copy_((*outputs_)[b]);
    write_block(block_path(job_.folder, index), work, loaded);
    follow(index);
    if (on_block_) on_block_({work, float_decoder_, float_output_, quantized_output, seconds_since(start), statistics_cached_, choices_cached_});
    save_state(job_.folder, {job_.fingerprint, index + 1});
    control_.milestone();
  }

  bool wants(Statistic what) const { return (wanted_ & static_cast<Statistics>(what)) != 0; }

  // Of static activations or caches; a checkpoint has its own.
  bool fixes_ranges() const { return !job_.given && (job_.scheme.has_static_activations() || job_.scheme.has_static_cache()); }

  template <class Source>
  void take_taps(const Source& source) {
    rounding_ = activation_tap(source);
    cache_rounding_ = cache_tap(source);
  }

  // Stages still want the block's inputs after the pass that collects.
  bool keeps_inputs() const { return hidden_ && (outputs_ || wants(Statistic::again)); }

  ValueStatistics collect_again(const Block& block, ValueId value, Statistics what) {
    Collector collector(what, kMeasuredRows, hidden_->tokens());
    if ((what & bits({Statistic::guided})) != 0) collector.guide(float_decoder_.graph(block.index), guidance_of_block_);
    ForwardContext context;
    context.at_value = collector.tap(control_, value);
    context.stop_at = value;
    int64_t tokens = 0;
    for (size_t b = 0; b < hidden_->batches(); tokens += hidden_->ids(b++).numel()) {
      collector.begin_batch(tokens);
      float_decoder_.forward(block, (*hidden_)[b].to(job_.device), context);
    }
    auto all = collector.take();
    return all.empty() ? ValueStatistics{} : std::move(all.begin()->second);
  }

  LinearWork begin(const Linear& linear) const {
    LinearWork work;
    work.info = linear.info;
    work.module = module_of(linear.info);
    if (given_ && !job_.compared) return work;
    work.spec = job_.scheme.weights_of(work.module);
    // As stored, not as rounded to the forward pass's dtype.
    work.original = job_.model->source->read(linear.info.tensor).to(job_.device, at::kFloat);
    require_finite(work.original, *job_.model, linear.info.tensor);
    work.activations = job_.scheme.activations_of(work.module);
    work.reference = work.weight = work.original;
    return work;
  }

  std::unique_ptr<HiddenStates> states(const TokenSet& tokens) const {
    // In small batches what passes between two linears stays in a CPU's caches. They are the same whatever the stages are: float32
    // sums depend on them, and what is cached of one pipeline serves another.
    const int64_t batch_tokens = job_.device.is_cpu() ? 2048 : 4096;
    return std::make_unique<HiddenStates>(tokens, job_.model->architecture.carried_width(), job_.dtype, job_.resident_bytes, job_.folder, batch_tokens, 4096);
  }

  std::unique_ptr<HiddenStates> embedded(const TokenSet& tokens) { return embedded(tokens, float_decoder_); }

  std::unique_ptr<HiddenStates> embedded(const TokenSet& tokens, Decoder& decoder) {
    auto all = states(tokens);
    for (size_t b = 0; b < all->batches(); ++b) {
      control_.checkpoint();
      (*all)[b].copy_(decoder.embed(all->ids(b).to(job_.device)));
    }
    return all;
  }

  // What another process, perhaps of another machine, collects just now is waited for: made once, it serves all.
  std::optional<BlockStatistics> await_statistics(const std::filesystem::path& place, Statistics wanted, int index) {
    std::error_code error;
    if (std::filesystem::exists(place, error)) return std::nullopt;  // damaged, or with fewer kinds than are wanted
    for (bool told = false; cache_->made_by_another(index, sample_); told = true) {
      if (!told) tell(fmt::format("block {}: another run collects its statistics; waiting for them", index));
      report("waits for statistics", index, "", 0);
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
      control_.checkpoint();
    }
    return std::filesystem::exists(place, error) ? cache_->load(place, wanted, job_.device) : std::nullopt;
  }

  // From the cache, or from a pass of the float block.
  BlockStatistics statistics_of(const Block& block) {
    const Statistics wanted = (wanted_ & kCollected) | bits({Statistic::rows, Statistic::abs_max});
    const auto place = place_of_statistics(block.index);
    // The pass that collects also makes the outputs and moves float states on, where these are wanted.
    const bool passes = !from_cache_ && (outputs_ || !job_.propagate_quantized);
    BlockStatistics statistics;
    statistics_cached_ = false;
    if (place && !passes) {
      auto found = cache_->load(*place, wanted, job_.device);
      if (!found && (!job_.propagate_quantized || float_inputs_)) found = await_statistics(*place, wanted, block.index);
      if (found) {
        statistics = *std::move(found);
        statistics_cached_ = true;
      }
    }
    if (!statistics_cached_) {
      if (from_cache_) reach(block.index);
      if (from_cache_ && !job_.propagate_quantized) ++reached_;  // the pass that collects moves them on
      const Statistics collected = place ? wanted | kAlwaysCached : wanted;
      statistics = collect(block, collected);
      if (place) cache_->store(*place, collected, statistics);
    }
    report(statistics_cached_ ? "cached statistics" : "calibrate", block.index, "", 0.3);
    keep_only(statistics, wanted);
    release_freed_memory();  // what batches of hidden states took, before the stages take theirs
    return statistics;
  }

  // Brings the calibration states before a block, past those whose statistics were in the cache.
  void reach(int index) {
    if (!hidden_) hidden_ = embedded(tokens_);
    for (; reached_ < index; ++reached_) {
      if (!job_.propagate_quantized) {
        pass(float_decoder_.load_block(reached_), seen_);
      } else if (!sample_) {  // the measured sample is there already
        const Decoder decoder(job_.model, dequantized(open_blocks(job_.model, {block_path(job_.folder, reached_)})), job_.dtype, job_.device);
        pass(decoder.load_block(reached_), quantizing_, Part::others);
      }
    }
  }

  // One pass of the float block over the calibration states; moves them on when the float outputs are what follows.
  BlockStatistics collect(const Block& block, Statistics wanted) {
    const int index = block.index;
    Collector collector(wanted, kMeasuredRows, hidden_->tokens());
    if (guidance_) collector.guide(float_decoder_.graph(index), guidance_of_block_);
    const bool outputs = outputs_ || (!job_.propagate_quantized && !keeps_inputs());
    int64_t tokens = 0;
    for (size_t b = 0; b < hidden_->batches(); tokens += hidden_->ids(b++).numel()) {
      control_.checkpoint();
      collector.begin_batch(tokens);
      report("calibrate", index, "", 0.3 * static_cast<double>(b) / static_cast<double>(hidden_->batches()));
      at::Tensor& state = (*hidden_)[b];
      const at::Tensor out = float_decoder_.forward(block, state.to(job_.device), {.at_value = collector.tap(control_), .taps_only = !outputs});
      if (outputs_) (*outputs_)[b].copy_(out);
      if (!job_.propagate_quantized && !keeps_inputs()) state.copy_(out);
    }
    return collector.take();
  }

  // Of the batches: those that hold the measured sample, or the others.
  enum class Part { all, measured, others };

  // Moves the hidden states on through a block; returns the first outputs, as many as the measured sample has tokens (of the others: nothing).
  at::Tensor pass(const Block& block, const ForwardContext& context, Part part = Part::all) {
    std::vector<at::Tensor> outputs;
    int64_t tokens = 0;
    for (size_t b = 0; b < hidden_->batches(); ++b) {
      control_.checkpoint();
      at::Tensor& state = (*hidden_)[b];
      const bool measured = tokens < measured_tokens_;
      tokens += state.size(0) * state.size(1);
      if (part == (measured ? Part::others : Part::measured)) continue;
      if (!measured && !head_ && block.index + 1 == float_decoder_.blocks()) break;  // nothing follows the last block
      state.copy_(float_decoder_.forward(block, state.to(job_.device), context));
      if (measured) outputs.push_back(flat(float_decoder_.hidden_part(state)));
    }
    return outputs.empty() ? at::Tensor() : at::cat(outputs).slice(0, 0, measured_tokens_);
  }

  // The quantized block on the measured sample, given what the quantized run feeds it.
  at::Tensor quantized_pass(const Block& block) {
    if (job_.propagate_quantized) {
      // Where statistics were cached those of the next block may be, too: what only they need of the states is left for reach().
      if (from_cache_ && statistics_cached_) return pass(block, quantizing_, Part::measured);
      reached_ = block.index + 1;
      return pass(block, quantizing_);
    }
    std::vector<at::Tensor> outputs;
    for (const at::Tensor& input : measured_inputs_) {
      control_.checkpoint();
      outputs.push_back(flat(float_decoder_.hidden_part(float_decoder_.forward(block, input.to(job_.device), quantizing_))));
    }
    return at::cat(outputs).slice(0, 0, measured_tokens_);
  }

  static at::Tensor flat(const at::Tensor& hidden) { return hidden.to(at::kCPU, at::kFloat, false, true).reshape({-1, hidden.size(-1)}); }

  // Moves the measured sample on through the float block; keeps its inputs where the quantized block will see them.
  void pass_float(const Block& block) {
    if (!float_hidden_) return;
    measured_inputs_.clear();
    std::vector<at::Tensor> outputs, states;
    int64_t tokens = 0;
    const bool kept = cache_ && !wants(Statistic::float_path);  // of the measured sample alone, whatever the stages are
    const at::Tensor found = kept ? cached_states(block.index) : at::Tensor();
    for (size_t b = 0; b < float_hidden_->batches(); ++b) {
      control_.checkpoint();
      at::Tensor& state = (*float_hidden_)[b];
      const int64_t count = state.size(0) * state.size(1);
      if (!job_.propagate_quantized && tokens < measured_tokens_) measured_inputs_.push_back(state.clone());
      state.copy_(found.defined() ? found.narrow(0, tokens, count).view(state.sizes()) : float_decoder_.forward(block, state.to(job_.device), seen_));
      if (tokens < measured_tokens_) outputs.push_back(flat(float_decoder_.hidden_part(state)));
      if (kept) states.push_back(state.view({count, state.size(2)}));
      tokens += count;
    }
    float_output_ = at::cat(outputs).slice(0, 0, measured_tokens_);
    if (found.defined()) ++taken_["float hidden states"];
    else if (kept) cache_->store_states(block.index, at::cat(states));
  }

  // The float model's states behind a block, [tokens, width]; undefined where they are not kept.
  at::Tensor cached_states(int index) const {
    const at::Tensor found = cache_->load_states(index).value_or(at::Tensor());
    const bool fits = found.defined() && found.scalar_type() == job_.dtype && found.sizes() == at::IntArrayRef{float_hidden_->tokens(), job_.model->architecture.carried_width()};
    return fits ? found : at::Tensor();
  }

  // A line of the run's log.
  void tell(const std::string& text) const {
    Progress p = last_;
    p.message = text;
    control_.report(p);
  }

  void report(const std::string& stage, int index, const std::string& linear, double within) {
    const double total = float_decoder_.blocks();
    Progress p;
    p.phase = "quantize";
    p.stage = stage;
    p.block = index;
    p.blocks = float_decoder_.blocks();
    p.linear = linear;
    const double through = ahead_ + (1 - ahead_) * (index + within) / total;
    p.fraction = share_ * through;
    p.elapsed_s = seconds_since(start_);
    const double done = index + within - done_at_start_;
    if (done > 0.2) p.eta_s = seconds_since(blocks_start_) / done * (total / share_ - index - within);
    else if (stage == "guidance" && through > 0) p.eta_s = p.elapsed_s / p.fraction * (1 - p.fraction);
    p.rss_bytes = resident_bytes();
    p.peak_rss_bytes = peak_resident_bytes();
    control_.report(p);
    last_ = p;
    if (cache_) cache_->go_on();
  }

  const EngineJob& job_;
  const Control& control_;
  const std::function<void(const BlockView&)>& on_block_;
  const VocabularyPart* head_;
  Decoder float_decoder_;
  std::optional<GivenBlocks> given_;
  std::vector<std::unique_ptr<Method>> methods_;
  std::vector<StageSpec> specs_;  // of methods_
  Statistics wanted_ = 0;
  std::optional<GuidedWish> guided_;  // samples: how many
  std::optional<Guidance> guidance_;
  std::vector<LinearGuidance> guidance_of_block_;  // at work
  ForwardContext seen_, quantizing_;  // let a stop through at every value or linear; the second also quantizes activations, keys and values, by
  LinearTap rounding_;
  CacheTap cache_rounding_;
  std::unique_ptr<HiddenStates> hidden_, float_hidden_, outputs_;
  at::Tensor float_output_;
  std::vector<at::Tensor> measured_inputs_;
  int64_t measured_tokens_ = 0;
  std::unique_ptr<StatisticsCache> cache_;
  std::string inputs_;              // what enters the block at work, by name; float_inputs_: it is the float model's
  bool float_inputs_ = true;
  bool sample_ = false;             // of the calibration text only the measured sample is passed through blocks
  TokenSet tokens_;                 // that are
  bool from_cache_ = false;         // what is there is read: states are carried only where something is missing
  bool statistics_cached_ = false;  // of the block at work
  std::vector<std::string> choices_cached_;  // likewise: stages
  std::map<std::string, int> taken_;  // what came from the cache, of how many blocks
  int reached_ = 0;                 // with from_cache_: the block that hidden_ stands before (where errors are passed on: but for the measured sample)
  Progress last_;
  int done_at_start_ = 0;
  double share_ = 1, ahead_ = 0;    // ahead_: of share_, what guidance takes before the blocks
  Clock::time_point start_ = Clock::now(), blocks_start_ = start_;
};

// The blocks from `kept` on, and the head behind them.
void walk(const EngineJob& job, const Control& control, const std::function<void(const BlockView&)>& on_block, const std::function<void(const VocabularyView&)>& on_vocabulary, int kept,
          const std::vector<VocabularyPart>& missing, double share) {
  control.checkpoint();
  std::error_code error;
  std::filesystem::create_directories(job.folder / "blocks", error);
  if (error) throw ResourceError(fmt::format("{}: cannot create the folder: {}", (job.folder / "blocks").string(), error.message()));
  forget_tuning(job.folder);  // it was learned on other blocks
  const VocabularyPart* head = nullptr;
  for (const VocabularyPart& part : missing)
    if (part.rounding == HeadRounding::gptq) head = &part;
    else make_vocabulary(job, part, {}, control, on_vocabulary);
  Run run(job, control, on_block, head);
  run.all(kept, share);
  if (head) make_vocabulary(job, *head, run.head_gram(), control, on_vocabulary);
}

}  // namespace

int finished_blocks(const EngineJob& job, const std::function<void(int block, const std::string& damage)>& damaged) {
  const RunState state = load_state(job.folder);
  require_same_fingerprint(job.folder, state, job.fingerprint);
  const int counted = std::min(state.blocks, static_cast<int>(job.model->info.blocks.size()));
  for (int kept = 0; kept < counted; ++kept) {
    const std::string damage = damage_of(block_path(job.folder, kept));
    if (damage.empty()) continue;
    if (damaged) damaged(kept, damage);
    return kept;
  }
  return counted;
}

std::string damage_of_blocks(const std::filesystem::path& folder) {
  for (int i = 0, all = load_state(folder).blocks; i < all; ++i)
    if (std::string damage = damage_of(block_path(folder, i)); !damage.empty()) return damage;
  for (const auto& path : vocabulary_paths(folder))
    if (std::string damage = damage_of(path); !damage.empty()) return damage;
  const auto tuned = tuned_path(folder);
  return std::filesystem::exists(tuned) ? damage_of(tuned) : std::string();
}

void run_engine(const EngineJob& job, const Control& control, const std::function<void(const BlockView&)>& on_block, const std::function<void(const VocabularyView&)>& on_vocabulary) {
  const at::NoGradGuard no_grad;
  preflight(job);
  const int kept = finished_blocks(job);  // refuses another job's folder
  const StageSpec* last = finishing_stage(job.pipeline);
  const auto samples = static_cast<int64_t>(job.calibration.samples.size());
  const double passes = last ? tuning_passes(tuning_options(*last), samples) : 0, share = 2 / (2 + passes);  // of the progress; two passes a block
  std::vector<VocabularyPart> missing;
  if (!job.given)
    for (VocabularyPart& part : vocabulary_parts(*job.model, job.scheme))
      if (kept == 0 || !has_vocabulary(job, part)) missing.push_back(std::move(part));
  if (kept < static_cast<int>(job.model->info.blocks.size()) || !missing.empty()) walk(job, control, on_block, on_vocabulary, kept, missing, share);
  if (job.given) copy_vocabulary(job, control, on_vocabulary);
  if (job.given) GivenBlocks(job, Decoder(job.model, job.model->source, job.dtype, job.device)).write_outside(job.folder);
  if (!last) return;
  Control inner = control;
  inner.on_progress = [&](Progress p) {
    p.fraction = share + (1 - share) * p.fraction;
    control.report(p);
  };
  tune_model(job, tuning_options(*last), inner);
}

QuantizedModel quantized_model(const std::shared_ptr<const Model>& model, const std::filesystem::path& folder, const Scheme* older) {
  std::vector<std::filesystem::path> paths;
  for (int i = 0; std::filesystem::exists(block_path(folder, i)); ++i) paths.push_back(block_path(folder, i));
  for (auto& path : vocabulary_paths(folder)) paths.push_back(std::move(path));
  const auto tuned = tuned_path(folder);
  return open_blocks(model, paths, std::filesystem::exists(tuned) ? tuned : std::filesystem::path(), older);
}

TensorSourcePtr quantized_source(const std::shared_ptr<const Model>& model, const std::filesystem::path& folder) {
  return dequantized(quantized_model(model, folder));
}

}  // namespace qb
