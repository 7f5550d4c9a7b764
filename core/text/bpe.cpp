#include "core/text/bpe.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "core/base/error.h"
#include "core/text/byte_alphabet.h"
#include "core/text/utf8.h"
#include "core/text/word_cache.h"

namespace qb {
namespace {

constexpr std::string_view blank = "\xE2\x96\x81";  // ▁, SentencePiece's space
constexpr size_t short_word = 48;                   // symbols up to which a linear search beats a heap

}  // namespace

struct Bpe::Work final : TokenModel::Scratch {
  WordCache cache;
  std::vector<int32_t> symbols;
  std::vector<MergeTable::Merge> pairs;
  std::vector<uint64_t> heap;
  std::vector<int32_t> previous, next;
};

Bpe::Bpe(Vocabulary vocabulary, MergeTable merges, BpeOptions options, std::string origin)
    : vocabulary_(std::move(vocabulary)), merges_(std::move(merges)), options_(std::move(options)), origin_(std::move(origin)) {
  ascii_ids_.fill(-1);
  for (int b = 0; b < 256; ++b) {
    byte_ids_[b] = vocabulary_.find(ByteAlphabet::get().character(static_cast<uint8_t>(b))).value_or(-1);
    fallback_ids_[b] = vocabulary_.find(fmt::format("<0x{:02X}>", b)).value_or(-1);
  }
  for (int32_t id = 0; id < vocabulary_.end(); ++id) {
    const std::string& token = vocabulary_.token(id);
    if (token.empty() || vocabulary_.find(token) != id) continue;
    if (static_cast<size_t>(utf8::length(token[0])) == token.size()) {
      const uint32_t c = utf8::decode(token.data()).code_point;
      if (c < 128) ascii_ids_[c] = id;
      character_ids_[c] = id;
    }
    if (options_.ignore_merges && options_.byte_level)
      if (auto bytes = ByteAlphabet::get().read(token)) whole_words_[*bytes] = id;
  }
  find_safe_cut();
}

Bpe::~Bpe() = default;

std::unique_ptr<TokenModel::Scratch> Bpe::make_scratch() const { return std::make_unique<Work>(); }

std::string Bpe::kind() const {
  return options_.byte_level ? "byte-level BPE" : options_.byte_fallback ? "BPE with byte fallback" : "BPE";
}

// Where no merge joins a token that ends otherwise with one that begins with ▁, a text falls apart before every ▁ that
// follows something else, and each part can be merged (and remembered) alone.
void Bpe::find_safe_cut() {
  // A character that leaves no symbol would bring the spaces around it together.
  const bool nothing_dropped = options_.unknown || (options_.byte_fallback && std::ranges::all_of(fallback_ids_, [](int32_t id) { return id >= 0; }));
  const bool plain = !options_.byte_level && options_.continuing_prefix.empty() && options_.end_suffix.empty();
  cut_before_space_ = plain && nothing_dropped && vocabulary_.find(blank);
  merges_.each([&](int32_t left, int32_t right, MergeTable::Merge) {
    if (vocabulary_.token(right).starts_with(blank) && !vocabulary_.token(left).ends_with(blank)) cut_before_space_ = false;
  });
}

void Bpe::tokenize(std::string_view piece, Scratch& scratch, std::vector<int32_t>& ids) const {
  auto& work = static_cast<Work&>(scratch);
  if (work.cache.find(piece, ids)) return;
  if (options_.ignore_merges) {
    std::optional<int32_t> whole;
    if (options_.byte_level) {
      auto it = whole_words_.find(std::string(piece));
      if (it != whole_words_.end()) whole = it->second;
    } else {
      whole = vocabulary_.find(piece);
    }
    if (whole) {
      ids.push_back(*whole);
      work.cache.put(piece, {&*whole, 1});
      return;
    }
  }
  if (cut_before_space_ && piece.size() > 2 * blank.size()) {
    tokenize_text(piece, work, ids);
  } else {
    const size_t before = ids.size();
    tokenize_word(piece, work, ids);
    work.cache.put(piece, std::span(ids).subspan(before));
  }
}

void Bpe::tokenize_text(std::string_view text, Work& work, std::vector<int32_t>& ids) const {
  for (size_t from = 0; from < text.size();) {
    // The word runs to the first ▁ that follows something else.
    size_t at = from;
    while (text.substr(at).starts_with(blank)) at += blank.size();
    at = std::min(text.find(blank, at), text.size());
    const std::string_view word = text.substr(from, at - from);
    from = at;
    if (work.cache.find(word, ids)) continue;
    const size_t before = ids.size();
    tokenize_word(word, work, ids);
    work.cache.put(word, std::span(ids).subspan(before));
  }
}

void Bpe::tokenize_word(std::string_view word, Work& work, std::vector<int32_t>& ids) const {
  auto& symbols = work.symbols;
  symbols.clear();
  spell(word, symbols);
  if (symbols.size() > short_word) {
    merge_long(symbols, work);
  } else if (symbols.size() > 1) {
    merge_short(symbols, work);
  }
  ids.insert(ids.end(), symbols.begin(), symbols.end());
}

void Bpe::spell(std::string_view word, std::vector<int32_t>& symbols) const {
  int32_t pending = -1;  // an unknown token that may still grow
  auto known = [&](int32_t id) {
    if (pending >= 0) symbols.push_back(std::exchange(pending, -1));
    symbols.push_back(id);
  };
  const bool decorated = !options_.continuing_prefix.empty() || !options_.end_suffix.empty();
  const char *p = word.data(), *end = p + word.size();
  if (decorated) {
    // The pieces of a decorated vocabulary are characters; at byte level those of the alphabet.
    const std::string spelled = options_.byte_level ? ByteAlphabet::get().spell(word) : std::string(word);
    p = spelled.data();
    end = p + spelled.size();
    for (const char* begin = p; p < end;) {
      const int n = utf8::length(*p);
      std::string symbol(p, static_cast<size_t>(n));
      if (p != begin) symbol = options_.continuing_prefix + symbol;
      p += n;
      if (p == end) symbol += options_.end_suffix;
      if (auto id = vocabulary_.find(symbol)) {
        known(*id);
      } else {
        spell_unknown(symbol, symbols, pending);
      }
    }
  } else if (options_.byte_level) {
    for (; p < end; ++p) {
      const auto byte = static_cast<uint8_t>(*p);
      if (byte_ids_[byte] >= 0) {
        known(byte_ids_[byte]);
      } else {
        spell_unknown(ByteAlphabet::get().character(byte), symbols, pending);
      }
    }
  } else {
    while (p < end) {
      const auto [c, n] = utf8::decode(p);
      int32_t id = -1;
      if (c < 128) {
        id = ascii_ids_[c];
      } else if (auto it = character_ids_.find(c); it != character_ids_.end()) {
        id = it->second;
      }
      if (id >= 0) {
        known(id);
      } else {
        spell_unknown({p, static_cast<size_t>(n)}, symbols, pending);
      }
      p += n;
    }
  }
  if (pending >= 0) symbols.push_back(pending);
}

void Bpe::spell_unknown(std::string_view symbol, std::vector<int32_t>& symbols, int32_t& pending) const {
  if (options_.byte_fallback &&
      std::all_of(symbol.begin(), symbol.end(), [&](char b) { return fallback_ids_[static_cast<uint8_t>(b)] >= 0; })) {
    for (char b : symbol) symbols.push_back(fallback_ids_[static_cast<uint8_t>(b)]);
    return;
  }
  if (!options_.unknown) return;
  const auto id = vocabulary_.find(*options_.unknown);
  if (!id) throw InputError(fmt::format("{}: model.unk_token '{}' is needed for '{}', but is not in the vocabulary", origin_, *options_.unknown, symbol));
  if (pending >= 0 && !options_.fuse_unknown) symbols.push_back(pending);
  pending = *id;
}

// Searches all pairs for the lowest rank, merges, repeats.
void Bpe::merge_short(std::vector<int32_t>& symbols, Work& work) const {
  auto& pairs = work.pairs;
  size_t n = symbols.size();
  pairs.resize(n);
  for (size_t i = 0; i + 1 < n; ++i) pairs[i] = merges_.find(symbols[i], symbols[i + 1]);
  for (;;) {
    size_t best = 0;
    uint32_t rank = MergeTable::no_rank;
    for (size_t i = 0; i + 1 < n; ++i) {
      if (pairs[i].rank < rank) {
        rank = pairs[i].rank;
        best = i;
      }
    }
    if (rank == MergeTable::no_rank) break;
    symbols[best] = pairs[best].id;
    std::copy(symbols.begin() + static_cast<ptrdiff_t>(best) + 2, symbols.begin() + static_cast<ptrdiff_t>(n),
              symbols.begin() + static_cast<ptrdiff_t>(best) + 1);
    std::copy(pairs.begin() + static_cast<ptrdiff_t>(best) + 2, pairs.begin() + static_cast<ptrdiff_t>(n),
              pairs.begin() + static_cast<ptrdiff_t>(best) + 1);
    --n;
    if (best + 1 < n) pairs[best] = merges_.find(symbols[best], symbols[best + 1]);
    if (best > 0) pairs[best - 1] = merges_.find(symbols[best - 1], symbols[best]);
  }
  symbols.resize(n);
}

// The same with a heap of (rank, place) over a linked list, for words of any length.
void Bpe::merge_long(std::vector<int32_t>& symbols, Work& work) const {
  const auto n = static_cast<int32_t>(symbols.size());
  auto &pairs = work.pairs;
  auto &heap = work.heap;
  auto &previous = work.previous, &next = work.next;
  pairs.assign(symbols.size(), {});
  previous.resize(symbols.size());
  next.resize(symbols.size());
  heap.clear();
  const auto later = std::greater<uint64_t>{};
  auto entry = [&](int32_t at) { return uint64_t{pairs[static_cast<size_t>(at)].rank} << 32 | static_cast<uint32_t>(at); };
  for (int32_t i = 0; i < n; ++i) {
    const auto at = static_cast<size_t>(i);
    previous[at] = i - 1;
    next[at] = i + 1 < n ? i + 1 : -1;
    if (i + 1 < n) pairs[at] = merges_.find(symbols[at], symbols[at + 1]);
    if (pairs[at].rank != MergeTable::no_rank) heap.push_back(entry(i));
  }
  std::make_heap(heap.begin(), heap.end(), later);
  auto renew = [&](int32_t at) {
    const auto a = static_cast<size_t>(at);
    pairs[a] = next[a] < 0 ? MergeTable::Merge{} : merges_.find(symbols[a], symbols[static_cast<size_t>(next[a])]);
    if (pairs[a].rank == MergeTable::no_rank) return;
    heap.push_back(entry(at));
    std::push_heap(heap.begin(), heap.end(), later);
  };
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), later);
    const uint64_t top = heap.back();
    heap.pop_back();
    const auto at = static_cast<int32_t>(top & 0xFFFFFFFFu);
    const auto a = static_cast<size_t>(at);
    if (pairs[a].rank != top >> 32) continue;  // the pair is no longer there
    const auto gone = static_cast<size_t>(next[a]);
    symbols[a] = pairs[a].id;
    next[a] = next[gone];
    if (next[gone] >= 0) previous[static_cast<size_t>(next[gone])] = at;
    symbols[gone] = -1;
    pairs[gone] = {};
    renew(at);
    if (previous[a] >= 0) renew(previous[a]);
  }
  std::erase(symbols, -1);
}

}  // namespace qb
