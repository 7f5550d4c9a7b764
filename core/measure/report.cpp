#include "core/measure/report.h"

#include <fmt/format.h>

namespace qb {

std::string bos_text(const PerplexityResult& result) {
  return result.bos == "every_window" ? ", BOS in every window" : result.bos == "none" ? ", no BOS" : "";
}

std::string conditions_text(const PerplexityResult& result) {
  return fmt::format("{}, {} windows of {} tokens, {}{}", result.corpus, result.windows, result.seq_len, result.dtype, bos_text(result));
}

bool same_conditions(const PerplexityResult& a, const PerplexityResult& b) {
  return a.corpus_hash == b.corpus_hash && a.seq_len == b.seq_len && a.windows == b.windows && a.dtype == b.dtype && bos_text(a) == bos_text(b);
}

}  // namespace qb
