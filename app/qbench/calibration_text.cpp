#include "calibration_text.h"

#include "cli.h"
#include "core/text/chat_template.h"
#include "core/text/tokenizer.h"

namespace cli {

CalibrationTokens calibration_tokens(const CalibrationText& from, const qb::Model& model, const qb::Control& control) {
  const auto tokenizer = qb::Tokenizer::load(from.model);
  const auto chat = qb::ChatTemplate::load(from.model, *tokenizer);
  const qb::Corpus corpus = qb::load_corpus({"", from.text, from.field}, chat.get());
  print_notes(corpus.notes);
  print_notes(tokenizer->notes());
  qb::SamplingSpec sampling;
  sampling.samples = from.samples;
  sampling.seq_len = from.seq_len;
  sampling.bos = qb::bos_of(qb::parse_bos(from.bos), model.info.family, *tokenizer);
  return {corpus.name, qb::sample_tokens(corpus, *tokenizer, sampling, control)};
}

}  // namespace cli
