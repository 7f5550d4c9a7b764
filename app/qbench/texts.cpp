#include <fmt/format.h>

#include <iostream>

#include "cli.h"
#include "core/base/error.h"
#include "core/run/text_comparison.h"

namespace cli {
namespace {

struct Arguments {
  std::string what, field = "text";
  std::vector<std::string> texts;
};

std::string percent(double share) { return fmt::format("{:.2f} %", 100 * share); }

int texts(const Arguments& a, const Options& options) {
  const bool recipe = a.texts.empty();
  const qb::Control control{interrupt_token(), nullptr, {}};
  const qb::TextComparison all = recipe ? qb::compare_texts(qb::load_recipe(a.what), {}, control)
                                        : qb::compare_texts(a.what, {a.texts.begin(), a.texts.end()}, a.field, control);
  print_notes(all.notes);
  const auto spelled = [&](int32_t id) { return all.tokens.at(id); };
  const auto shift = [&](const qb::TokenComparison::Shift& s) { return nlohmann::json{{"id", s.id}, {"token", spelled(s.id)}, {"first", s.in_a}, {"this", s.in_b}}; };
  nlohmann::json list = nlohmann::json::array();
  std::vector<std::vector<std::string>> rows, against;
  for (const qb::ComparedText& text : all.texts) {
    const qb::TokenProfile& profile = text.profile;
    const std::string name = text.role == "calibration" ? text.name + " (calibration)" : text.name;
    const auto length = [&](double share) { return profile.lengths.empty() ? int64_t{0} : profile.lengths[static_cast<size_t>(share * static_cast<double>(profile.lengths.size() - 1))]; };
    nlohmann::json entry = {{"name", name}, {"tokens", profile.tokens}, {"distinct", profile.distinct}, {"vocabulary", all.vocabulary}, {"entropy_bits", profile.entropy},
                            {"sequences", profile.lengths.size()}, {"length", {{"least", length(0)}, {"median", length(0.5)}, {"p90", length(0.9)}, {"most", length(1)}}}};
    rows.push_back({name, count_text(static_cast<double>(profile.tokens)), fmt::format("{} ({})", profile.distinct, percent(static_cast<double>(profile.distinct) / static_cast<double>(all.vocabulary))),
                    fmt::format("{:.2f}", profile.entropy), fmt::format("{}", profile.lengths.size()), fmt::format("{} / {} / {}", length(0), length(0.5), length(1))});
    if (&text != &all.texts.front()) {
      const qb::TokenComparison& c = text.against_first;
      nlohmann::json missing = nlohmann::json::array(), surplus = nlohmann::json::array();
      std::string lacks;
      for (const auto& s : c.missing) missing.push_back(shift(s));
      for (const auto& s : c.surplus) surplus.push_back(shift(s));
      for (size_t i = 0; i < std::min<size_t>(5, c.missing.size()); ++i) lacks += (i ? " " : "") + spelled(c.missing[i].id);
      entry["against_first"] = {{"coverage", c.coverage}, {"distinct_coverage", c.distinct_coverage}, {"jensen_shannon_bits", c.jensen_shannon}, {"kl_bits", c.divergence},
                                {"shared_passages", c.shared_passages}, {"own_halves_bits", number(text.halves)}, {"missing", missing}, {"surplus", surplus}};
      for (const qb::SharedPassage& passage : text.shared) entry["against_first"]["passages"].push_back({{"tokens", passage.tokens}, {"text", passage.text}});
      against.push_back({name, percent(c.coverage), percent(c.distinct_coverage), fmt::format("{:.4f}", c.jensen_shannon), fmt::format("{:.4f}", c.divergence), percent(c.shared_passages), lacks});
    }
    list.push_back(std::move(entry));
  }
  if (options.json) {
    std::cout << list.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) << '\n';
    return ok;
  }
  print_table({"text", "tokens", "distinct (of vocabulary)", "entropy, bits", recipe ? "samples" : "documents", "their tokens: least / median / most"}, rows);
  if (!against.empty()) {
    std::cout << fmt::format("\nHow {} covers the others\n", bold(all.texts.front().name + (recipe ? " (calibration)" : "")));
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
