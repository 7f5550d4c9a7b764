#pragma once
#include <map>
#include <string>

#include "core/method/method.h"

namespace qb {

// Collects the asked statistics of every subset's input while a block runs; give tap() to Decoder::forward.
class Collector {
 public:
  // rows: how many input rows to keep per subset, evenly spread over `expected_tokens`.
  Collector(Statistics wanted, int64_t rows, int64_t expected_tokens);
  // Tap of one forward pass. Sees control before every linear.
  LinearTap tap(const Control& control);
  // Finishes means; the collector is empty afterwards.
  std::map<std::string, SubsetStatistics> take();

 private:
  struct Sample {
    at::Tensor rows;
    int64_t count = 0;
  };
  void add(const std::string& subset, const at::Tensor& x);
  void sample(const std::string& subset, const at::Tensor& rows);
  Statistics wanted_;
  int64_t stride_, rows_;
  std::map<std::string, SubsetStatistics> subsets_;
  std::map<std::string, Sample> sampled_;
  std::string last_subset_;
  const void* last_data_ = nullptr;
};

}  // namespace qb
