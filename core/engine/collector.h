#pragma once
#include <map>
#include <optional>

#include "core/engine/guidance.h"
#include "core/method/method.h"

namespace qb {

// Collects the asked statistics of every value that a linear reads while a block runs; give tap() to Decoder::forward.
class Collector {
 public:
  // rows: how many rows of a value to keep, evenly spread over `expected_tokens`.
  Collector(Statistics wanted, int64_t rows, int64_t expected_tokens);
  // Sees control at every value. of: only this one.
  ValueTap tap(const Control& control, std::optional<ValueId> of = {});
  // Guided Gram matrices are collected too, of a block with this guidance by linear; both outlive the collector.
  void guide(const LayerGraph& graph, const std::vector<LinearGuidance>& guidance);
  // Where in the text the next batch begins: guidance is by token.
  void begin_batch(int64_t first_token) { first_token_ = first_token; }
  // Finishes means; the collector is empty afterwards.
  std::map<ValueId, ValueStatistics> take();

 private:
  struct Sample {
    at::Tensor rows;
    int64_t count = 0;
  };
  void add(ValueId value, const at::Tensor& x);
  void sample(ValueId value, const at::Tensor& rows);
  void add_guided(const GraphValue& value, const at::Tensor& x);
  Statistics wanted_;
  int64_t stride_, rows_;
  std::map<ValueId, ValueStatistics> values_;
  std::map<ValueId, Sample> sampled_;
  const LayerGraph* graph_ = nullptr;
  const std::vector<LinearGuidance>* guidance_ = nullptr;
  int64_t first_token_ = 0;
  std::map<ValueId, at::Tensor> chosen_;  // of the batch at work: which tokens came to experts
};

}  // namespace qb
