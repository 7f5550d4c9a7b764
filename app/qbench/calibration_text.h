#pragma once
#include <string>

#include "core/base/control.h"
#include "core/model/model.h"
#include "core/text/corpus.h"

namespace cli {

struct CalibrationText {
  std::string model, text, field, bos;
  int64_t samples = 128, seq_len = 512;
};
struct CalibrationTokens {
  std::string corpus;
  qb::TokenSet tokens;
};
// The first samples of a text by the model's own tokenizer and chat template; notes go to stderr.
CalibrationTokens calibration_tokens(const CalibrationText& from, const qb::Model& model, const qb::Control& control);

}  // namespace cli
