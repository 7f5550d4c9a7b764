#pragma once
#include <map>
#include <optional>

#include "core/method/method.h"

namespace qb {

// Collects the asked statistics of every value that a linear reads while a block runs; give tap() to Decoder::forward.
class Collector {
 public:
  // rows: how many rows of a value to keep, evenly spread over `expected_tokens`.
  Collector(Statistics wanted, int64_t rows, int64_t expected_tokens);
  // Sees control at every value. of: only this one.
  ValueTap tap(const Control& control, std::optional<ValueId> of = {});
  // Finishes means; the collector is empty afterwards.
  std::map<ValueId, ValueStatistics> take();

 private:
  struct Sample {
    at::Tensor rows;
    int64_t count = 0;
  };
  void add(ValueId value, const at::Tensor& x);
  void sample(ValueId value, const at::Tensor& rows);
  Statistics wanted_;
  int64_t stride_, rows_;
  std::map<ValueId, ValueStatistics> values_;
  std::map<ValueId, Sample> sampled_;
};

}  // namespace qb
