#pragma once
#include <string>
#include <vector>

#include "core/recipe/hardware.h"

namespace qb {

// What a model moves and multiplies for each token, as an engine would serve it. Torch-free.
struct ServedModel {
  // Matrices that compute in one type; of experts those that one token uses are `used` of all.
  struct Part {
    double weights = 0, bytes = 0;
    std::string computes = "bfloat16";
    double used = 1;
  };
  std::vector<Part> parts;
  // Layers with one attention: operations and cached bytes for each key that a query sees.
  struct Attention {
    double layers = 0;
    double operations = 0;   // of one query with one key and its value, all heads
    double cache_bytes = 0;  // that a cache keeps of a token
    double window = 0;       // keys at most; 0: all
  };
  std::vector<Attention> attentions;
  double other_bytes = 0;    // what lies in memory and is not read for each token: the embedding's rows
  double weight_bytes() const;
  double cache_bytes(double context) const;  // of one sequence
};

// Sequences at once, and tokens of each: a prompt's for prefill, those before the next one for decode.
struct SpeedCase {
  double batch = 1, context = 4096;
};

// The least time by a roofline (Williams et al. 2009): each part takes as long as its bytes at the memory's bandwidth, or its operations
// at its type's rate, whichever is more. No engine is faster; good ones reach 60 to 85 % of it. Tokens a second of all sequences.
struct SpeedPrediction {
  double prefill = 0, decode = 0;
  double prefill_seconds = 0;   // to the first token
  double memory_bytes = 0;      // weights and cache of all sequences
  bool fits = true;             // in the memory of the hardware
  bool prefill_by_compute = true, decode_by_compute = false;  // what most of the time goes into; else into moving bytes
};
SpeedPrediction predict_speed(const HardwareProfile& hardware, const ServedModel& model, const SpeedCase& conditions);

}  // namespace qb
