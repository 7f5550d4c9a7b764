#include "core/run/text_comparison.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "core/base/error.h"
#include "core/measure/evaluators.h"
#include "core/measure/task_files.h"
#include "core/model/model_info.h"
#include "core/text/chat_template.h"
#include "core/text/corpus.h"
#include "core/text/tokenizer.h"

namespace qb {
namespace {

constexpr size_t kMostPassages = 5;

using Sequences = std::vector<std::vector<int32_t>>;

struct Read {
  std::string name, role, pieces;
  Sequences sequences;
};

// Of 256 tokens each, to one side and the other by turns.
double divergence_of_halves(const Sequences& sequences) {
  constexpr size_t kStretch = 256;
  Sequences one, other;
  size_t at = 0;
  for (const auto& sequence : sequences)
    for (size_t first = 0; first < sequence.size(); first += kStretch, ++at)
      (at % 2 == 0 ? one : other).emplace_back(sequence.begin() + static_cast<int64_t>(first), sequence.begin() + static_cast<int64_t>(std::min(sequence.size(), first + kStretch)));
  return other.empty() ? std::numeric_limits<double>::quiet_NaN() : compare_tokens(one, other).jensen_shannon;
}

class Reader {
 public:
  Reader(const std::filesystem::path& model, const Control& control) : control_(control), tokenizer_(Tokenizer::load(model)), chat_(ChatTemplate::load(model, *tokenizer_)) {
    result_.model = model.string();
    result_.vocabulary = tokenizer_->vocabulary_size();
    for (const std::string& note : tokenizer_->notes()) result_.notes.push_back(note);
  }
  const Tokenizer& tokenizer() const { return *tokenizer_; }

  Corpus load(const CorpusSpec& spec) {
    control_.checkpoint();
    Corpus corpus = load_corpus(spec, chat_.get());
    result_.notes.insert(result_.notes.end(), corpus.notes.begin(), corpus.notes.end());
    return corpus;
  }
  void add(Read read) { texts_.push_back(std::move(read)); }

  void add_file(const std::filesystem::path& path, const std::string& field) {
    const Corpus corpus = load({"", path, field});
    Read read{corpus.name, "", "documents", {}};
    for (const std::string& document : corpus.documents) {
      control_.checkpoint();
      read.sequences.push_back(tokenizer_->encode(document, false));
    }
    add(std::move(read));
  }

  void add_task(const EvaluationSpec& spec) {
    control_.checkpoint();
    const int64_t few_shot = std::get<int64_t>(knob(spec, "few_shot"));
    // Examples would count again with every item.
    const Task task = load_task({spec.corpus.path, few_shot > 0 ? std::optional<int64_t>(0) : std::nullopt, {}, std::get<int64_t>(knob(spec, "limit"))});
    Read read{spec.corpus.name.empty() ? task.name : spec.corpus.name, spec.evaluator, "items", {}};
    for (const TaskItem& item : task.items) {
      control_.checkpoint();
      const auto gold = static_cast<size_t>(item.gold);
      read.sequences.push_back(tokenizer_->encode(item.context(gold) + item.continuation(gold), false));
    }
    add(std::move(read));
  }

  TextComparison finish() {
    for (Read& read : texts_) {
      control_.checkpoint();
      ComparedText text{read.name, read.role, read.pieces, token_profile(read.name, read.sequences), {}, divergence_of_halves(read.sequences)};
      for (const auto& [id, count] : text.profile.counts)
        if (!result_.tokens.contains(id)) result_.tokens[id] = tokenizer_->token(id);
      if (&read != &texts_.front()) {
        text.against_first = compare_tokens(texts_.front().sequences, read.sequences);
        control_.checkpoint();
        if (text.against_first.shared_passages > 0)
          for (const SharedRun& run : shared_runs(texts_.front().sequences, read.sequences, kMostPassages)) {
            const auto& sequence = read.sequences[run.sequence];
            const std::vector<int32_t> ids(sequence.begin() + static_cast<int64_t>(run.first), sequence.begin() + static_cast<int64_t>(run.first + run.tokens));
            text.shared.push_back({tokenizer_->decode(ids), static_cast<int64_t>(run.tokens)});
          }
      }
      result_.texts.push_back(std::move(text));
    }
    return std::move(result_);
  }

 private:
  const Control& control_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::shared_ptr<const ChatTemplate> chat_;
  TextComparison result_;
  std::vector<Read> texts_;
};

}  // namespace

TextComparison compare_texts(const Recipe& recipe, const std::vector<std::filesystem::path>& others, const Control& control) {
  if (recipe.model.empty()) throw InputError("the recipe names no model, whose tokenizer would read its texts");
  if (!recipe.calibration) throw InputError("the recipe has no calibration section to be compared with other texts");
  Reader reader(recipe.model, control);
  const std::string family = inspect_model(recipe.model).family;
  const Corpus corpus = reader.load(recipe.calibration->corpus);
  SamplingSpec sampling = recipe.calibration->sampling;
  sampling.bos = bos_of(sampling.bos, family, reader.tokenizer());
  reader.add({corpus.name, "calibration", "samples", sample_tokens(corpus, reader.tokenizer(), sampling, control).samples});
  for (const EvaluationSpec& spec : recipe.evaluation) {
    if (const EvaluatorInfo* evaluator = find_evaluator(spec.evaluator); evaluator && evaluator->data == EvaluationData::task) {
      reader.add_task(spec);
      continue;
    }
    const Corpus evaluated = reader.load(spec.corpus);
    const std::vector<int32_t> ids = evaluation_tokens(evaluated, reader.tokenizer(), bos_of(spec.bos, family, reader.tokenizer()), spec.seq_len);
    Read read{evaluated.name, spec.evaluator, "windows", {}};
    const int64_t all = static_cast<int64_t>(ids.size()) / spec.seq_len, windows = spec.windows > 0 ? std::min(all, spec.windows) : all;
    for (int64_t w = 0; w < windows; ++w) read.sequences.emplace_back(ids.begin() + w * spec.seq_len, ids.begin() + (w + 1) * spec.seq_len);
    reader.add(std::move(read));
  }
  for (const auto& path : others) reader.add_file(path, "text");
  return reader.finish();
}

TextComparison compare_texts(const std::filesystem::path& model, const std::vector<std::filesystem::path>& files, const std::string& field, const Control& control) {
  Reader reader(model, control);
  for (const auto& path : files) reader.add_file(path, field);
  return reader.finish();
}

}  // namespace qb
