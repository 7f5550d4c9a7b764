#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/base/knob.h"
#include "core/measure/histogram.h"

namespace qb {

// One figure of an evaluation, under its name in the evaluator's table.
struct Metric {
  std::string name;                  // "perplexity", "kl", "acc_norm"
  double value = 0;
  double standard_error = 0;         // 0: none is known
  std::vector<double> values = {};   // by window or by item, in the order of the data: two recipes are compared one by one
  Histogram histogram = {};          // of the values of single tokens, where the evaluator keeps one
};

// What one evaluator found of one model on one set of data, with all that it stands under. Torch-free.
struct EvaluationResult {
  std::string evaluator = "perplexity";  // of evaluators()
  std::string corpus, corpus_hash;       // name and contents of the text, of the task's file, of the prompts
  int64_t seq_len = 0;                   // tokens a window; 0: items are as long as they are
  int64_t windows = 0, windows_total = 0;  // windows or items: measured, and in the data
  int64_t corpus_tokens = 0;
  std::string dtype;
  std::string bos;                       // to_text(Bos); empty: as the tokenizer puts it, or does not matter
  std::map<std::string, KnobValue> settings = {};  // the evaluator's own, all of them
  bool float_model = false;              // of the unquantized model, as the baseline
  double seconds = 0;
  std::vector<Metric> metrics;           // the first stands for the whole
  const Metric* find(const std::string& metric) const;
  double value(const std::string& metric) const;  // NaN where it has none of that name
  double error(const std::string& metric) const;  // likewise
  const std::vector<double>& values(const std::string& metric) const;  // empty where it has none of that name
  void put(Metric metric);                        // in place of the one of that name, or behind the others
};

// "wiki.txt, 20 windows of 2048 tokens, float32, BOS in every window"; what differs from an evaluator's defaults behind it.
std::string conditions_text(const EvaluationResult& result);
std::string bos_text(const EvaluationResult& result);       // ", BOS in every window", ", no BOS", or nothing
std::string settings_text(const EvaluationResult& result);  // ", Examples 5", or nothing
std::string value_text(const EvaluationResult& result, const Metric& metric);  // "0.01203 ± 0.0004 nats"
std::string figure_text(const EvaluationResult& result);    // of its first metric: "perplexity 21.2034 ± 0.3021", "KL divergence 0.01203 ± 0.0004 nats"
std::string subject_text(const EvaluationResult& result);   // "quantized model", "float model"; of what stands beside a distance: "noise floor"
// Figures are compared where they are of one evaluator with the same settings, on identical tokens.
bool same_conditions(const EvaluationResult& a, const EvaluationResult& b);

}  // namespace qb
