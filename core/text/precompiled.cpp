#include "core/text/precompiled.h"

#include <utf8proc.h>

#include <cstring>

#include "core/base/error.h"
#include "core/text/utf8.h"

namespace qb {
namespace {

std::string decode_base64(std::string_view text, const std::string& where) {
  std::string out;
  uint32_t bits = 0;
  int held = 0;
  for (char c : text) {
    int v = -1;
    if (c >= 'A' && c <= 'Z') v = c - 'A';
    if (c >= 'a' && c <= 'z') v = c - 'a' + 26;
    if (c >= '0' && c <= '9') v = c - '0' + 52;
    if (c == '+') v = 62;
    if (c == '/') v = 63;
    if (c == '=') break;
    if (v < 0) throw InputError(where + ": precompiled_charsmap is not base64");
    bits = bits << 6 | static_cast<uint32_t>(v);
    held += 6;
    if (held >= 8) {
      held -= 8;
      out += static_cast<char>(bits >> held & 0xFF);
    }
  }
  return out;
}

// The fields of one unit of Darts' double array.
bool has_leaf(uint32_t unit) { return unit >> 8 & 1; }
uint32_t value(uint32_t unit) { return unit & 0x7FFFFFFFu; }
uint32_t label(uint32_t unit) { return unit & 0x800000FFu; }
uint32_t offset(uint32_t unit) { return unit >> 10 << ((unit & 1u << 9) >> 6); }

}  // namespace

PrecompiledMap::PrecompiledMap(std::string_view base64, const std::string& where) {
  const std::string blob = decode_base64(base64, where);
  uint32_t bytes = 0;
  if (blob.size() >= 4) std::memcpy(&bytes, blob.data(), 4);
  if (blob.size() < 4 || bytes == 0 || bytes % 4 != 0 || bytes > blob.size() - 4)
    throw InputError(where + ": precompiled_charsmap is cut short or its table size is wrong");
  units_.resize(bytes / 4);
  std::memcpy(units_.data(), blob.data() + 4, bytes);
  texts_ = blob.substr(4 + bytes);
  if (!utf8::valid(texts_)) throw InputError(where + ": precompiled_charsmap holds text that is not UTF-8");
}

// Of all keys that are prefixes of the chunk the shortest decides, as in Hugging Face's reader.
std::optional<std::string_view> PrecompiledMap::find(std::string_view chunk) const {
  size_t node = offset(units_[0]);
  for (char c : chunk) {
    const auto byte = static_cast<uint8_t>(c);
    node ^= byte;
    if (byte == 0 || node >= units_.size() || label(units_[node]) != byte) return std::nullopt;
    const uint32_t unit = units_[node];
    node ^= offset(unit);
    if (node >= units_.size()) return std::nullopt;
    if (has_leaf(unit)) {
      const size_t begin = value(units_[node]);
      if (begin >= texts_.size()) return std::nullopt;
      return std::string_view(texts_).substr(begin, texts_.find('\0', begin) - begin);
    }
  }
  return std::nullopt;
}

std::string PrecompiledMap::apply(std::string_view text) const {
  std::string out;
  const char *p = text.data(), *end = p + text.size();
  while (p < end) {
    const char* stop = p;
    utf8proc_int32_t state = 0;
    for (;;) {  // one extended grapheme cluster
      const auto [c, n] = utf8::decode(stop);
      stop += n;
      if (stop >= end || utf8proc_grapheme_break_stateful(static_cast<utf8proc_int32_t>(c),
                                                          static_cast<utf8proc_int32_t>(utf8::decode(stop).code_point), &state))
        break;
    }
    const std::string_view grapheme(p, static_cast<size_t>(stop - p));
    std::optional<std::string_view> whole;
    if (grapheme.size() < 6) whole = find(grapheme);
    if (whole) {
      out += *whole;
    } else {
      for (const char* q = p; q < stop;) {
        const std::string_view one(q, static_cast<size_t>(utf8::length(*q)));
        out += find(one).value_or(one);
        q += one.size();
      }
    }
    p = stop;
  }
  return out;
}

}  // namespace qb
