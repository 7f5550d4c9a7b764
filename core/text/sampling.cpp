#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/text/corpus.h"
#include "core/text/random.h"
#include "core/text/tokenizer.h"

namespace qb {
namespace {

using Ids = std::vector<int32_t>;
using Samples = std::vector<Ids>;

// A text to draw from, and whether the tokenizer's own special tokens belong around it.
struct Document {
  std::string text;
  bool special;
};

std::vector<Document> documents_of(const Corpus& corpus) {
  std::vector<Document> out;
  for (size_t i = 0; i < corpus.documents.size(); ++i) {
    const bool whole = i < corpus.whole_file.size() && corpus.whole_file[i];
    for (auto& text : sampling_documents({"", {corpus.documents[i]}, "", {whole}}))
      out.push_back({std::move(text), i >= corpus.templated.size() || !corpus.templated[i]});
  }
  return out;
}

// What every sampling works on.
struct Draw {
  const Corpus& corpus;
  const Tokenizer& tokenizer;
  const SamplingSpec& spec;
  const Control& control;
  Random random;
  size_t samples, seq_len;  // the length without a BOS that every sample gets
  bool special;             // the tokenizer puts its own special tokens around texts

  Ids encode(const Document& document) const { return encode(document.text, document.special); }
  Ids encode(const std::string& text, bool own_special) const {
    control.checkpoint();
    return tokenizer.encode(text, special && own_special);
  }
  Ids encode_all(const std::string& joiner) const { return tokenize_corpus(corpus, tokenizer, joiner, special); }
  [[noreturn]] void too_little(const std::string& what) const {
    throw InputError(fmt::format("{}: too little text for {} ({} samples of {} tokens): {}", corpus.name, spec.sampling, samples, seq_len, what));
  }
};

Ids window(const Ids& ids, size_t begin, size_t length) {
  return {ids.begin() + static_cast<ptrdiff_t>(begin), ids.begin() + static_cast<ptrdiff_t>(begin + length)};
}

Samples sequential(Draw& d) {
  const Ids ids = d.encode_all("\n\n");
  if (ids.size() / d.seq_len < d.samples)
    d.too_little(fmt::format("it has {} tokens, {} are needed", ids.size(), d.samples * d.seq_len));
  Samples out;
  for (size_t i = 0; i < d.samples; ++i) out.push_back(window(ids, i * d.seq_len, d.seq_len));
  return out;
}

Samples windows_of(Draw& d, const Ids& ids) {
  if (ids.size() < d.seq_len) d.too_little(fmt::format("it has {} tokens, {} are needed", ids.size(), d.seq_len));
  Samples out;
  for (size_t i = 0; i < d.samples; ++i) out.push_back(window(ids, d.random.below(ids.size() - d.seq_len + 1), d.seq_len));
  return out;
}

Samples documents(Draw& d) {
  auto texts = documents_of(d.corpus);
  if (texts.size() < d.samples) d.too_little(fmt::format("it has {} documents, {} are needed", texts.size(), d.samples));
  d.random.shuffle(texts);
  Samples out;
  for (const auto& text : texts) {
    Ids ids = d.encode(text);
    if (ids.empty()) continue;
    if (ids.size() > d.seq_len) ids.resize(d.seq_len);
    out.push_back(std::move(ids));
    if (out.size() == d.samples) return out;
  }
  d.too_little(fmt::format("only {} of its documents have tokens", out.size()));
}

// GPTQ draws a document again until it is long enough; dropping the short ones from the draw comes to the same.
Samples c4_gptq(Draw& d) {
  const auto texts = documents_of(d.corpus);
  std::vector<size_t> candidates(texts.size());
  std::iota(candidates.begin(), candidates.end(), size_t{0});
  std::vector<Ids> encoded(texts.size());
  size_t longest = 0;
  Samples out;
  while (out.size() < d.samples) {
    if (candidates.empty())
      d.too_little(fmt::format("none of its {} documents has {} tokens, the longest has {}", texts.size(), d.seq_len, longest));
    const size_t pick = d.random.below(candidates.size());
    const size_t document = candidates[pick];
    Ids& ids = encoded[document];
    if (ids.empty()) ids = d.encode(texts[document]);
    longest = std::max(longest, ids.size());
    if (ids.size() < d.seq_len) {
      candidates[pick] = candidates.back();
      candidates.pop_back();
      ids = {};
      continue;
    }
    out.push_back(window(ids, d.random.below(ids.size() - d.seq_len + 1), d.seq_len));
  }
  return out;
}

Samples pileval_awq(Draw& d) {
  auto texts = documents_of(d.corpus);
  d.random.shuffle(texts);
  Ids all;
  size_t taken = 0;
  for (const auto& text : texts) {
    const size_t first = text.text.find_first_not_of(" \t\r\n\v\f");
    const Ids ids = d.encode(text.text.substr(first, text.text.find_last_not_of(" \t\r\n\v\f") - first + 1), text.special);
    if (ids.empty() || ids.size() > d.seq_len) continue;
    all.insert(all.end(), ids.begin(), ids.end());
    if (++taken == d.samples) break;
  }
  if (all.size() < d.seq_len)
    d.too_little(fmt::format("{} of its {} documents have at most {} tokens, together {}; {} are needed", taken, texts.size(), d.seq_len,
                             all.size(), d.seq_len));
  Samples out;
  for (size_t at = 0; at + d.seq_len <= all.size(); at += d.seq_len) out.push_back(window(all, at, d.seq_len));
  return out;
}

Samples txt_general_preproc(Draw& d) {
  auto texts = documents_of(d.corpus);
  d.random.shuffle(texts);
  Samples out;
  for (const auto& text : texts) {
    Ids ids = d.encode(text);
    if (ids.size() < d.seq_len) continue;
    ids.resize(d.seq_len);
    out.push_back(std::move(ids));
    if (out.size() == d.samples) return out;
  }
  d.too_little(fmt::format("{} of its {} documents have {} tokens or more, {} are needed", out.size(), texts.size(), d.seq_len, d.samples));
}

Samples random_truncate_txt(Draw& d) {
  auto texts = documents_of(d.corpus);
  d.random.shuffle(texts);
  std::string joined;
  for (const auto& text : texts) joined += (joined.empty() ? "" : "\n\n") + text.text;
  return windows_of(d, d.encode(joined, texts.empty() || texts.front().special));
}

Samples draw(Draw& d) {
  const std::string& name = d.spec.sampling;
  if (name == "sequential") return sequential(d);
  if (name == "random_windows" || name == "wikitext2_gptq") return windows_of(d, d.encode_all("\n\n"));
  if (name == "ptb_gptq") return windows_of(d, d.encode_all(" "));
  if (name == "documents") return documents(d);
  if (name == "c4_gptq") return c4_gptq(d);
  if (name == "pileval_awq") return pileval_awq(d);
  if (name == "txt_general_preproc") return txt_general_preproc(d);
  if (name == "random_truncate_txt") return random_truncate_txt(d);
  throw InputError(fmt::format("sampling '{}' is unknown; known: {}", name, fmt::join(sampling_names(), ", ")));
}

}  // namespace

const std::vector<std::string>& sampling_names() {
  static const std::vector<std::string> names = {"sequential",  "random_windows", "documents",           "wikitext2_gptq",     "ptb_gptq",
                                                 "c4_gptq",     "pileval_awq",    "txt_general_preproc", "random_truncate_txt"};
  return names;
}

int64_t TokenSet::tokens() const {
  int64_t n = 0;
  for (const auto& s : samples) n += static_cast<int64_t>(s.size());
  return n;
}

TokenSet sample_tokens(const Corpus& corpus, const Tokenizer& tokenizer, const SamplingSpec& spec, const Control& control) {
  if (spec.samples < 1 || spec.seq_len < 1)
    throw InputError(fmt::format("sampling needs at least 1 sample of 1 token, found {} of {}", spec.samples, spec.seq_len));
  control.checkpoint();
  const Bos bos = spec.bos.value_or(Bos::tokenizer);
  if (bos == Bos::every_window && spec.seq_len < 2) throw InputError("sampling: a sample of 1 token has no room for text beside BOS");
  const auto length = static_cast<size_t>(spec.seq_len) - (bos == Bos::every_window ? 1 : 0);
  Draw d{corpus, tokenizer, spec, control, Random(spec.seed), static_cast<size_t>(spec.samples), length, bos == Bos::tokenizer};
  TokenSet set;
  set.bos = bos;
  set.samples = draw(d);
  if (bos == Bos::every_window)
    for (auto& s : set.samples)
      if (s.empty() || s.front() != tokenizer.bos().value()) s.insert(s.begin(), tokenizer.bos().value());  // a chat template's text may start with it
  Hasher hasher;
  for (const auto& s : set.samples) {
    hasher.update(static_cast<int64_t>(s.size()));
    hasher.update(std::as_bytes(std::span(s)));
  }
  set.hash = hasher.hex();
  return set;
}

}  // namespace qb
