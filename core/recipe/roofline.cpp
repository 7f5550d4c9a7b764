#include "core/recipe/roofline.h"

#include <algorithm>
#include <cmath>

namespace qb {
namespace {

struct Time {
  double seconds = 0, computing = 0;
  void add(const HardwareProfile& hardware, double operations, double bytes, const std::string& type) {
    const double compute = operations / hardware.compute.at(computes_in(hardware, type)), move = bytes / hardware.bandwidth;
    seconds += std::max(compute, move);
    if (compute > move) computing += compute;
  }
  bool by_compute() const { return computing > seconds / 2; }
};

// The share of a part's bytes that `tokens` tokens read, each choosing its experts by chance.
double touched(double used, double tokens) { return used >= 1 ? 1 : 1 - std::pow(1 - used, tokens); }

// Keys that the queries of a prompt see, all together.
double pairs(double tokens, double window) {
  if (window <= 0 || window >= tokens) return tokens * (tokens + 1) / 2;
  return window * (window + 1) / 2 + (tokens - window) * window;
}

double kept(double context, double window) { return window > 0 ? std::min(context, window) : context; }

}  // namespace

double ServedModel::weight_bytes() const {
  double bytes = other_bytes;
  for (const Part& part : parts) bytes += part.bytes;
  return bytes;
}

double ServedModel::cache_bytes(double context) const {
  double bytes = 0;
  for (const Attention& attention : attentions) bytes += attention.layers * attention.cache_bytes * kept(context, attention.window);
  return bytes;
}

SpeedPrediction predict_speed(const HardwareProfile& hardware, const ServedModel& model, const SpeedCase& conditions) {
  const double batch = conditions.batch, context = conditions.context;
  Time prefill, decode;
  for (const ServedModel::Part& part : model.parts) {
    prefill.add(hardware, 2 * part.weights * part.used * batch * context, part.bytes * touched(part.used, batch * context), part.computes);
    decode.add(hardware, 2 * part.weights * part.used * batch, part.bytes * touched(part.used, batch), part.computes);
  }
  for (const ServedModel::Attention& attention : model.attentions) {
    prefill.add(hardware, batch * attention.layers * attention.operations * pairs(context, attention.window), batch * attention.layers * attention.cache_bytes * context, "bfloat16");
    const double keys = attention.layers * kept(context, attention.window);
    decode.add(hardware, batch * keys * attention.operations, batch * keys * attention.cache_bytes, "bfloat16");
  }
  SpeedPrediction prediction;
  prediction.prefill_seconds = prefill.seconds;
  prediction.prefill = prefill.seconds > 0 ? batch * context / prefill.seconds : 0;
  prediction.decode = decode.seconds > 0 ? batch / decode.seconds : 0;
  prediction.prefill_by_compute = prefill.by_compute();
  prediction.decode_by_compute = decode.by_compute();
  prediction.memory_bytes = model.weight_bytes() + batch * model.cache_bytes(context);
  prediction.fits = prediction.memory_bytes <= hardware.memory_bytes;
  return prediction;
}

}  // namespace qb
