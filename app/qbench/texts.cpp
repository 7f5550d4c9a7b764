#include <fmt/format.h>

#include <iostream>

#include "cli.h"
#include "core/base/error.h"
#include "core/model/model_info.h"
#include "core/recipe/recipe.h"
#include "core/text/chat_template.h"
#include "core/text/corpus.h"
#include "core/text/token_profile.h"
#include "core/text/tokenizer.h"

namespace cli {
namespace {

struct Arguments {
  std::string what, field = "text";
  std::vector<std::string> texts;
};

struct Text {
  std::string name;
  std::vector<std::vector<int32_t>> sequences;
};

std::vector<Text> of_recipe(const std::string& path, std::shared_ptr<const qb::Tokenizer>& tokenizer) {
  const qb::Recipe recipe = qb::load_recipe(path);
  if (!recipe.calibration) throw qb::InputError(fmt::format("{}: has no calibration section to be compared with its evaluation texts", path));
  tokenizer = qb::Tokenizer::load(recipe.model);
  const auto chat = qb::ChatTemplate::load(recipe.model, *tokenizer);
  const std::string family = qb::inspect_model(recipe.model).family;
  const qb::Corpus corpus = qb::load_corpus(recipe.calibration->corpus, chat.get());
  qb::SamplingSpec sampling = recipe.calibration->sampling;
  sampling.bos = qb::bos_of(sampling.bos, family, *tokenizer);
  std::vector<Text> texts{{corpus.name + " (calibration)", qb::sample_tokens(corpus, *tokenizer, sampling).samples}};
  for (const qb::EvaluationSpec& spec : recipe.evaluation) {
    const qb::Corpus evaluated = qb::load_corpus(spec.corpus, chat.get());
    const std::vector<int32_t> ids = qb::evaluation_tokens(evaluated, *tokenizer, qb::bos_of(spec.bos, family, *tokenizer), spec.seq_len);
    Text text{evaluated.name, {}};
    const int64_t all = static_cast<int64_t>(ids.size()) / spec.seq_len, windows = spec.windows > 0 ? std::min(all, spec.windows) : all;
    for (int64_t w = 0; w < windows; ++w) text.sequences.emplace_back(ids.begin() + w * spec.seq_len, ids.begin() + (w + 1) * spec.seq_len);
    texts.push_back(std::move(text));
  }
  return texts;
}

std::vector<Text> of_files(const Arguments& a, std::shared_ptr<const qb::Tokenizer>& tokenizer) {
  tokenizer = qb::Tokenizer::load(a.what);
  const auto chat = qb::ChatTemplate::load(a.what, *tokenizer);
  std::vector<Text> texts;
  for (const std::string& path : a.texts) {
    const qb::Corpus corpus = qb::load_corpus({"", path, a.field}, chat.get());
    print_notes(corpus.notes);
    Text text{corpus.name, {}};
    for (const std::string& document : corpus.documents) text.sequences.push_back(tokenizer->encode(document, false));
    texts.push_back(std::move(text));
  }
  return texts;
}

std::string percent(double share) { return fmt::format("{:.2f} %", 100 * share); }

int texts(const Arguments& a, const Options& options) {
  std::shared_ptr<const qb::Tokenizer> tokenizer;
  const bool recipe = a.texts.empty();
  const std::vector<Text> all = recipe ? of_recipe(a.what, tokenizer) : of_files(a, tokenizer);
  const auto shift = [&](const qb::TokenComparison::Shift& s) { return nlohmann::json{{"id", s.id}, {"token", tokenizer->token(s.id)}, {"first", s.in_a}, {"this", s.in_b}}; };
  nlohmann::json list = nlohmann::json::array();
  std::vector<std::vector<std::string>> rows, against;
  for (const Text& text : all) {
    const qb::TokenProfile profile = qb::token_profile(text.name, text.sequences);
    const auto length = [&](double share) { return profile.lengths.empty() ? int64_t{0} : profile.lengths[static_cast<size_t>(share * static_cast<double>(profile.lengths.size() - 1))]; };
    nlohmann::json entry = {{"name", text.name}, {"tokens", profile.tokens}, {"distinct", profile.distinct}, {"vocabulary", tokenizer->vocabulary_size()}, {"entropy_bits", profile.entropy},
                            {"sequences", profile.lengths.size()}, {"length", {{"least", length(0)}, {"median", length(0.5)}, {"p90", length(0.9)}, {"most", length(1)}}}};
    rows.push_back({text.name, count_text(static_cast<double>(profile.tokens)), fmt::format("{} ({})", profile.distinct, percent(static_cast<double>(profile.distinct) / static_cast<double>(tokenizer->vocabulary_size()))),
                    fmt::format("{:.2f}", profile.entropy), fmt::format("{}", profile.lengths.size()), fmt::format("{} / {} / {}", length(0), length(0.5), length(1))});
    if (&text != &all.front()) {
      const qb::TokenComparison c = qb::compare_tokens(all.front().sequences, text.sequences);
      nlohmann::json missing = nlohmann::json::array(), surplus = nlohmann::json::array();
      std::string lacks;
      for (const auto& s : c.missing) missing.push_back(shift(s));
      for (const auto& s : c.surplus) surplus.push_back(shift(s));
      for (size_t i = 0; i < std::min<size_t>(5, c.missing.size()); ++i) lacks += (i ? " " : "") + tokenizer->token(c.missing[i].id);
      entry["against_first"] = {{"coverage", c.coverage}, {"distinct_coverage", c.distinct_coverage}, {"jensen_shannon_bits", c.jensen_shannon}, {"kl_bits", c.divergence},
                                {"shared_passages", c.shared_passages}, {"missing", missing}, {"surplus", surplus}};
      against.push_back({text.name, percent(c.coverage), percent(c.distinct_coverage), fmt::format("{:.4f}", c.jensen_shannon), fmt::format("{:.4f}", c.divergence), percent(c.shared_passages), lacks});
    }
    list.push_back(std::move(entry));
  }
  if (options.json) {
    std::cout << list.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) << '\n';
    return ok;
  }
  print_table({"text", "tokens", "distinct (of vocabulary)", "entropy, bits", recipe ? "samples" : "documents", "their tokens: least / median / most"}, rows);
  if (!against.empty()) {
    std::cout << fmt::format("\nHow {} covers the others\n", bold(all.front().name));
    print_table({"text", "tokens known", "different ones", "Jensen-Shannon, bits", "KL, bits", fmt::format("same {} in a row", qb::kPassage), "wants more of"}, against, {true, false, false, false, false, false, true});
  }
  return ok;
}

}  // namespace

void add_texts(CLI::App& app, const Options& options, Action& action) {
  auto a = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("texts", "Compare texts by their tokens: is the calibration text like the use?");
  command->add_option("what", a->what, "A recipe (its calibration text as it is sampled, beside its evaluation texts), or a model whose tokenizer reads the texts")->required();
  command->add_option("texts", a->texts, "Texts: the first calibrates, the others are compared with it");
  command->add_option("--field", a->field, "Field of JSON objects that holds the text or the conversation")->capture_default_str();
  command->callback([a, &options, &action] { action = [a, &options] { return texts(*a, options); }; });
}

}  // namespace cli
