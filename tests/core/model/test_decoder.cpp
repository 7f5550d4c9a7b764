// A tiny random Llama made here: what the decoder promises to those who quantize through it, and perplexity's protocol.
#include <ATen/ATen.h>

#include <QTemporaryDir>
#include <QtTest/QtTest>
#include <fstream>

#include "core/base/error.h"
#include "core/format/safetensors.h"
#include "core/measure/perplexity.h"
#include "core/model/decoder.h"
#include "core/model/kernels.h"

namespace {

constexpr int64_t kVocabulary = 40, kHidden = 16, kInner = 24, kBlocks = 3;

std::vector<std::pair<std::string, at::Tensor>> random_tensors() {
  at::manual_seed(3);
  std::vector<std::pair<std::string, at::Tensor>> tensors = {{"model.embed_tokens.weight", at::randn({kVocabulary, kHidden})}, {"model.norm.weight", at::ones({kHidden})}};
  for (int64_t i = 0; i < kBlocks; ++i) {
    const std::string block = "model.layers." + std::to_string(i) + ".";
    auto linear = [&](const std::string& name, int64_t out, int64_t in) { tensors.emplace_back(block + name + ".weight", at::randn({out, in}) / 4); };
    tensors.emplace_back(block + "input_layernorm.weight", at::ones({kHidden}));
    tensors.emplace_back(block + "post_attention_layernorm.weight", at::ones({kHidden}));
    linear("self_attn.q_proj", 16, kHidden), linear("self_attn.k_proj", 8, kHidden), linear("self_attn.v_proj", 8, kHidden), linear("self_attn.o_proj", kHidden, 16);
    linear("mlp.gate_proj", kInner, kHidden), linear("mlp.up_proj", kInner, kHidden), linear("mlp.down_proj", kHidden, kInner);
  }
  return tensors;
}

void write_model(const std::filesystem::path& folder, const std::vector<std::pair<std::string, at::Tensor>>& tensors) {
  std::filesystem::create_directories(folder);
  qb::write_safetensors(folder / "model.safetensors", tensors);
  const nlohmann::json config = {{"model_type", "llama"}, {"vocab_size", kVocabulary}, {"hidden_size", kHidden}, {"intermediate_size", kInner},
                                 {"num_hidden_layers", kBlocks}, {"num_attention_heads", 2}, {"num_key_value_heads", 1}, {"hidden_act", "silu"},
                                 {"max_position_embeddings", 64}, {"rms_norm_eps", 1e-5}, {"rope_theta", 1e4}, {"tie_word_embeddings", true}};
  std::ofstream(folder / "config.json") << config.dump();
}

std::vector<int32_t> some_ids(int64_t count) {
  const at::Tensor ids = at::randint(kVocabulary, {count}, at::kInt);
  return {ids.const_data_ptr<int32_t>(), ids.const_data_ptr<int32_t>() + count};
}

std::string message_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const qb::InputError& error) {
    return error.what();
  }
  return "no InputError";
}

}  // namespace

class TestDecoder : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void init() {
    directory_ = std::make_unique<QTemporaryDir>();
    folder_ = directory_->path().toStdString() + "/tiny";
    write_model(folder_, random_tensors());
    model_ = qb::Model::open(folder_);
  }

  void linears_of_a_subset_see_one_tensor() {
    qb::Decoder decoder(model_, nullptr, at::kFloat);
    const qb::Block block = decoder.load_block(0);
    const at::Tensor hidden = decoder.embed(at::randint(kVocabulary, {2, 10}, at::kLong));
    std::map<std::string, std::vector<const void*>> seen;
    std::vector<std::string> order;
    qb::ForwardContext context;
    context.at_linear = [&](const qb::Linear& linear, const at::Tensor& x) {
      if (x.size(0) != 20 || x.size(1) != linear.info.in_features) throw std::logic_error("shape of a tapped input");
      seen[linear.info.subset].push_back(x.const_data_ptr());
      order.push_back(linear.info.name);
      return x;
    };
    decoder.forward(block, hidden, context);
    QCOMPARE(order.size(), size_t{7});
    QCOMPARE(seen.at("qkv").size(), size_t{3});
    QCOMPARE(seen.at("gate_up").size(), size_t{2});
    for (const auto& [subset, inputs] : seen)
      for (const void* input : inputs) QCOMPARE(input, inputs.front());
  }

  void inputs_kept_by_a_tap_are_not_overwritten() {
    qb::Decoder decoder(model_, nullptr, at::kFloat);
    const qb::Block block = decoder.load_block(1);
    const at::Tensor hidden = decoder.embed(at::randint(kVocabulary, {1, 12}, at::kLong));
    std::vector<std::pair<at::Tensor, at::Tensor>> kept;
    qb::ForwardContext context;
    context.at_linear = [&](const qb::Linear&, const at::Tensor& x) {
      kept.emplace_back(x, x.clone());
      return x;
    };
    decoder.forward(block, hidden, context);
    for (const auto& [now, then] : kept) QVERIFY(at::equal(now, then));
  }

  void a_tap_may_replace_the_input() {
    qb::Decoder decoder(model_, nullptr, at::kFloat);
    const qb::Block block = decoder.load_block(0);
    const at::Tensor hidden = decoder.embed(at::randint(kVocabulary, {1, 8}, at::kLong));
    // With zeros into o_proj and down_proj a block is its residual.
    qb::ForwardContext context;
    context.at_linear = [](const qb::Linear& linear, const at::Tensor& x) {
      return linear.info.subset == "o" || linear.info.subset == "down" ? at::zeros_like(x) : x;
    };
    const at::Tensor out = decoder.forward(block, hidden, context);
    QVERIFY(at::equal(out, hidden));
  }

  void every_value_is_seen_once_and_may_be_replaced_or_end_the_pass() {
    qb::Decoder decoder(model_, nullptr, at::kFloat);
    const qb::Block block = decoder.load_block(0);
    const qb::LayerGraph& graph = decoder.graph(0);
    const at::Tensor hidden = decoder.embed(at::randint(kVocabulary, {2, 8}, at::kLong));
    std::vector<int> seen(graph.values().size(), 0);
    qb::ForwardContext context;
    context.at_value = [&](const qb::GraphValue& value, const at::Tensor& x) {
      if (x.numel() != 16 * value.width) throw std::logic_error("size of value " + value.name);
      ++seen[static_cast<size_t>(value.id)];
      return x;
    };
    const at::Tensor plain = decoder.forward(block, hidden, context);
    for (int count : seen) QCOMPARE(count, 1);
    QVERIFY(at::equal(plain, decoder.forward(block, hidden)));
    // What the down projection reads: zeros there leave the sum of input and attention.
    const qb::ValueId product = block.linears.back().info.input;
    const at::Tensor x = decoder.forward(block, hidden, {.stop_at = product});
    QCOMPARE(x.size(1), kInner);
    context.at_value = [&](const qb::GraphValue& value, const at::Tensor& v) { return value.id == product ? at::zeros_like(v) : v; };
    const at::Tensor added = at::linear(x, block.linears.back().weight).view(hidden.sizes());
    QVERIFY(at::allclose(plain - added, decoder.forward(block, hidden, context), 1e-5, 1e-5));
  }

  void a_pass_for_the_inputs_of_linears_leaves_the_rest_out() {
    qb::Decoder decoder(model_, nullptr, at::kFloat);
    const qb::Block block = decoder.load_block(0);
    const at::Tensor hidden = decoder.embed(at::randint(kVocabulary, {2, 8}, at::kLong));
    auto taps = [&](bool only, std::vector<std::string>& linears) {
      std::map<qb::ValueId, at::Tensor> inputs;
      qb::ForwardContext context{.taps_only = only};
      context.at_value = [&](const qb::GraphValue& value, const at::Tensor& x) {
        if (value.tapped) inputs[value.id] = x.clone();
        return x;
      };
      context.at_linear = [&](const qb::Linear& linear, const at::Tensor& x) {
        linears.push_back(linear.info.subset);
        return x;
      };
      const at::Tensor out = decoder.forward(block, hidden, context);
      if (out.defined() == only) throw std::logic_error("the output of a pass");
      return inputs;
    };
    std::vector<std::string> all, needed;
    const auto whole = taps(false, all), part = taps(true, needed);
    QCOMPARE(all.size(), size_t{7});
    QCOMPARE(needed.size(), size_t{6});
    QVERIFY(std::find(needed.begin(), needed.end(), "down") == needed.end());
    QCOMPARE(part.size(), size_t{4});
    for (const auto& [id, x] : whole) QVERIFY(at::equal(x, part.at(id)));
  }

  void bfloat16_products_are_rounded_once() {
    // On both sides of what is widened to float32, and of how much of the weights at a time.
    for (const auto& [tokens, in, out] : {std::tuple{3, 200, 300}, {127, 200, 300}, {128, 200, 300}, {130, 100, 20}, {140, 20000, 700}}) {
      const at::Tensor x = at::randn({tokens, in}).to(at::kBFloat16), weight = at::randn({out, in}).to(at::kBFloat16), bias = at::randn({out}).to(at::kBFloat16);
      const at::Tensor products = x.to(at::kDouble).matmul(weight.to(at::kDouble).t());
      for (const auto& [result, expected] : {std::pair{qb::linear_product(x, weight), products}, {qb::linear_product(x, weight, bias), products + bias.to(at::kDouble)}}) {
        QCOMPARE(result.scalar_type(), at::kBFloat16);
        QVERIFY(at::allclose(result.to(at::kDouble), expected, 1.0 / 256, 1e-5 * in));  // half a unit in the last place, and the sum's own rounding
      }
      QVERIFY(at::equal(qb::linear_product(x.to(at::kFloat), weight.to(at::kFloat)), at::linear(x.to(at::kFloat), weight.to(at::kFloat))));
    }
  }

  void tokens_one_by_one_with_a_cache_are_those_of_one_pass() {
    qb::Decoder decoder(model_, nullptr, at::kFloat);
    const at::Tensor ids = at::randint(kVocabulary, {2, 12}, at::kLong);
    at::Tensor whole = decoder.embed(ids);
    std::vector<qb::Block> blocks;
    for (int b = 0; b < decoder.blocks(); ++b) {
      blocks.push_back(decoder.load_block(b));
      whole = decoder.forward(blocks.back(), whole);
    }
    qb::KeyValueCache cache;
    std::vector<at::Tensor> parts;
    int64_t first = 0;
    for (const int64_t count : {int64_t{5}, int64_t{1}, int64_t{4}, int64_t{1}, int64_t{1}}) {
      at::Tensor part = decoder.embed(ids.narrow(1, first, count), first);
      for (const qb::Block& block : blocks) part = decoder.forward(block, part, {.cache = &cache});
      parts.push_back(part);
      first += count;
      QCOMPARE(cache.tokens(0), first);
    }
    QVERIFY(at::allclose(at::cat(parts, 1), whole, 1e-4, 1e-4));
  }

  void loaded_weights_are_copies_that_may_be_changed() {
    qb::Decoder decoder(model_, nullptr, at::kFloat);
    qb::Block block = decoder.load_block(0);
    const at::Tensor hidden = decoder.embed(at::randint(kVocabulary, {1, 8}, at::kLong));
    block.find("mlp.down_proj")->weight.zero_();  // a view of the mapped file would end the program here
    block.find("self_attn.o_proj")->weight = at::zeros({kHidden, 16}, at::kBFloat16);
    QVERIFY(at::equal(decoder.forward(block, hidden), hidden));
    QVERIFY(decoder.load_block(0).find("mlp.down_proj")->weight.abs().sum().item<double>() > 0);
    QVERIFY(block.find("mlp.nothing") == nullptr);
  }

  void an_overlay_hides_the_tensors_below() {
    const std::filesystem::path over = std::filesystem::path(folder_) / "over.safetensors";
    qb::write_safetensors(over, {{"model.layers.2.mlp.up_proj.weight", at::zeros({kInner, kHidden})}});
    qb::TensorSourcePtr source = qb::overlay(model_->source, qb::open_safetensors(over));
    qb::Decoder decoder(model_, source, at::kFloat), plain(model_, nullptr, at::kFloat);
    QCOMPARE(decoder.load_block(2).find("mlp.up_proj")->weight.abs().sum().item<double>(), 0.0);
    QVERIFY(at::equal(decoder.load_block(2).find("mlp.gate_proj")->weight, plain.load_block(2).find("mlp.gate_proj")->weight));
    QCOMPARE(source->tensors().size(), model_->source->tensors().size());
    const qb::TensorInfo* info = source->find("model.layers.2.mlp.up_proj.weight");
    QCOMPARE(source->files().at(info->file), over);
  }

  void an_overlay_of_a_wrong_shape_is_named() {
    const std::filesystem::path over = std::filesystem::path(folder_) / "over.safetensors";
    qb::write_safetensors(over, {{"model.layers.2.mlp.up_proj.weight", at::zeros({kInner, kHidden + 1})}});
    qb::Decoder decoder(model_, qb::overlay(model_->source, qb::open_safetensors(over)), at::kFloat);
    const std::string message = message_of([&] { decoder.load_block(2); });
    QVERIFY2(message.find("mlp.up_proj") != std::string::npos && message.find("[24, 17]") != std::string::npos && message.find("[24, 16]") != std::string::npos, message.c_str());
  }

  void foreign_token_ids_are_refused() {
    qb::Decoder decoder(model_, nullptr, at::kFloat);
    for (int64_t id : {int64_t{-1}, kVocabulary}) {
      const std::string message = message_of([&] { decoder.embed(at::full({1, 4}, id, at::kLong)); });
      QVERIFY2(message.find(std::to_string(id)) != std::string::npos && message.find("39") != std::string::npos, message.c_str());
    }
  }

  void likelihoods_are_those_of_the_logits() {
    qb::Decoder decoder(model_, nullptr, at::kFloat);
    const at::Tensor ids = at::randint(kVocabulary, {2, 9}, at::kLong);
    at::Tensor hidden = decoder.embed(ids);
    for (int b = 0; b < decoder.blocks(); ++b) hidden = decoder.forward(decoder.load_block(b), hidden);
    const at::Tensor logits = decoder.logits(hidden).to(at::kDouble);
    const at::Tensor expected = at::logsumexp(logits, {2}).narrow(1, 0, 8) - logits.narrow(1, 0, 8).gather(2, ids.narrow(1, 1, 8).unsqueeze(2)).squeeze(2);
    QVERIFY(at::allclose(decoder.negative_log_likelihood(hidden, ids).to(at::kDouble), expected, 1e-5, 1e-5));
  }

  void batches_are_independent_and_causal() {
    qb::Decoder decoder(model_, nullptr, at::kFloat);
    const at::Tensor ids = at::randint(kVocabulary, {3, 10}, at::kLong);
    auto run = [&](const at::Tensor& x) {
      at::Tensor hidden = decoder.embed(x);
      for (int b = 0; b < decoder.blocks(); ++b) hidden = decoder.forward(decoder.load_block(b), hidden);
      return hidden;
    };
    const at::Tensor together = run(ids);
    QVERIFY(at::allclose(together.narrow(0, 1, 1), run(ids.narrow(0, 1, 1)), 1e-5, 1e-5));
    QVERIFY(at::allclose(together.narrow(1, 0, 6), run(ids.narrow(1, 0, 6)), 1e-5, 1e-5));
  }

  void perplexity_keeps_windows_in_order_and_drops_the_remainder() {
    const std::vector<int32_t> ids = some_ids(16 * 5 + 7);
    qb::PerplexitySpec spec;
    spec.seq_len = 16;
    int estimates = 0;
    const qb::EvaluationResult result = qb::perplexity(model_, nullptr, ids, spec, {}, [&](const qb::EvaluationResult&) { ++estimates; });
    QCOMPARE(result.windows, 5);
    QCOMPARE(result.windows_total, 5);
    QCOMPARE(result.corpus_tokens, 87);
    QVERIFY(estimates > 0);
    double mean = 0;
    for (int w = 0; w < 5; ++w) {
      const std::vector<int32_t> one(ids.begin() + 16 * w, ids.begin() + 16 * (w + 1));
      const double alone = qb::perplexity(model_, nullptr, one, spec).values("nll").at(0);
      QVERIFY(std::abs(alone - result.values("nll").at(w)) < 1e-6);
      mean += alone / 5;
    }
    double variance = 0;
    for (double nll : result.values("nll")) variance += (nll - mean) * (nll - mean) / 4;
    QVERIFY(std::abs(result.value("perplexity") - std::exp(mean)) < 1e-6 * result.value("perplexity"));
    QVERIFY(std::abs(result.error("perplexity") - std::exp(mean) * std::sqrt(variance / 5)) < 1e-6 * result.value("perplexity"));
    spec.windows = 2;
    QCOMPARE(qb::perplexity(model_, nullptr, ids, spec).values("nll"), std::vector<double>(result.values("nll").begin(), result.values("nll").begin() + 2));
  }

  void perplexity_refuses_what_it_cannot_measure() {
    qb::PerplexitySpec spec;
    spec.seq_len = 16;
    QVERIFY(message_of([&] { qb::perplexity(model_, nullptr, some_ids(15), spec); }).find("15 tokens") != std::string::npos);
    spec.seq_len = 65;
    QVERIFY(message_of([&] { qb::perplexity(model_, nullptr, some_ids(100), spec); }).find("at most 64") != std::string::npos);
  }

  void perplexity_stops_when_asked_and_reports_on_its_way() {
    qb::PerplexitySpec spec;
    spec.seq_len = 16;
    std::stop_source stop;
    qb::Control control;
    control.stop = stop.get_token();
    double last = 0;
    int reports = 0;
    control.on_progress = [&](const qb::Progress& progress) {
      QVERIFY(progress.fraction > last && progress.fraction <= 1);
      QCOMPARE(progress.blocks, int(kBlocks));
      last = progress.fraction;
      if (++reports == 4) stop.request_stop();
    };
    QVERIFY_THROWS_EXCEPTION(qb::Cancelled, qb::perplexity(model_, nullptr, some_ids(16 * 5), spec, control));
    QCOMPARE(reports, 4);
  }

  void the_hash_is_of_the_content() {
    const std::filesystem::path other = directory_->path().toStdString() + "/other";
    auto tensors = random_tensors();
    write_model(other, tensors);
    QCOMPARE(qb::model_hash(folder_), qb::model_hash(other));
    tensors.back().second[0][0] += 1;
    write_model(other, tensors);
    QVERIFY(qb::model_hash(folder_) != qb::model_hash(other));
  }

 private:
  std::unique_ptr<QTemporaryDir> directory_;
  std::filesystem::path folder_;
  std::shared_ptr<const qb::Model> model_;
};

QTEST_GUILESS_MAIN(TestDecoder)
#include "test_decoder.moc"
