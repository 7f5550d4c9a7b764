#pragma once
#include <string>

namespace qb {

// What a figure of an evaluator means. Tables, axes, the command line and the help are made from this.
struct MetricInfo {
  std::string name;        // its key: "kl", "kl_p99", "acc_norm"
  std::string title;       // for people: "KL divergence"
  std::string unit;        // "nats", "%"; may be empty
  bool higher_is_better = false;
  std::string help;        // one line: the formula, whose definition
};

}  // namespace qb
