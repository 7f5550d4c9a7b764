#include "core/text/text_file.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/base/error.h"
#include "core/text/utf8.h"

namespace qb {
namespace {

struct Kind {
  std::string_view magic, name, advice;
};

// Files that people have beside their texts, by how they begin.
constexpr Kind kKinds[] = {
    {"PAR1", "a Parquet file", "write its text as JSON lines: python -c \"import pandas; pandas.read_parquet('in.parquet').to_json('out.jsonl', orient='records', lines=True)\""},
    {"ARROW1", "an Arrow file", "write its text as JSON lines: datasets.Dataset.from_file('in.arrow').to_json('out.jsonl')"},
    {"\x1F\x8B", "compressed by gzip", "unpack it first (gunzip)"},
    {"\x28\xB5\x2F\xFD", "compressed by Zstandard", "unpack it first (unzstd)"},
    {"\xFD" "7zXZ", "compressed by xz", "unpack it first (unxz)"},
    {"BZh", "compressed by bzip2", "unpack it first (bunzip2)"},
    {"PK\x03\x04", "a ZIP archive", "unpack it first"},
    {"%PDF-", "a PDF", "extract its text first (pdftotext)"},
    {"GGUF", "a GGUF model", "give a text"},
};

[[noreturn]] void fail(const std::filesystem::path& path, const std::string& what) { throw InputError(fmt::format("{}: {}", path.string(), what)); }

// 1-based line of a byte, for people who open the file in an editor.
int64_t line_of(std::string_view bytes, size_t at) { return 1 + std::count(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(at), '\n'); }

std::string from_utf16(std::string_view bytes, bool big, const std::filesystem::path& path) {
  const char* name = big ? "UTF-16BE" : "UTF-16LE";
  if (bytes.size() % 2 != 0) fail(path, fmt::format("its mark says {}, but it ends in half a character (byte {})", name, bytes.size() - 1));
  auto unit = [&](size_t at) {
    const auto a = static_cast<unsigned char>(bytes[at]), b = static_cast<unsigned char>(bytes[at + 1]);
    return static_cast<uint32_t>(big ? a << 8 | b : b << 8 | a);
  };
  std::string text;
  text.reserve(bytes.size());
  for (size_t at = 2; at < bytes.size(); at += 2) {
    uint32_t c = unit(at);
    if (c >= 0xD800 && c < 0xE000) {
      const uint32_t low = c < 0xDC00 && at + 2 < bytes.size() ? unit(at + 2) : 0;
      if (low < 0xDC00 || low >= 0xE000) fail(path, fmt::format("not {}: half a surrogate pair (0x{:04X}) at byte {}", name, c, at));
      c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
      at += 2;
    }
    if (c == 0) fail(path, fmt::format("a binary file, not a text: a zero character at byte {}", at));
    utf8::append(text, c);
  }
  return text;
}

}  // namespace

std::string decode_text(std::string_view bytes, const std::filesystem::path& path) {
  using namespace std::string_view_literals;
  for (const Kind& kind : kKinds)
    if (bytes.starts_with(kind.magic)) fail(path, fmt::format("expected a text file or JSON, found {}: {}", kind.name, kind.advice));
  if (bytes.starts_with("\xFF\xFE\0\0"sv) || bytes.starts_with("\0\0\xFE\xFF"sv)) fail(path, "its mark says UTF-32, which is not read; expected UTF-8 or UTF-16");
  if (bytes.starts_with("\xFF\xFE"sv)) return from_utf16(bytes, false, path);
  if (bytes.starts_with("\xFE\xFF"sv)) return from_utf16(bytes, true, path);
  const std::string_view text = bytes.starts_with("\xEF\xBB\xBF"sv) ? bytes.substr(3) : bytes;
  const size_t mark = bytes.size() - text.size();
  if (const size_t zero = text.find('\0'); zero != std::string_view::npos)
    fail(path, fmt::format("a binary file, not a text: a zero byte at byte {}", zero + mark));
  if (const size_t at = utf8::first_invalid(text); at != std::string_view::npos)
    fail(path, fmt::format("not UTF-8: byte 0x{:02X} at byte {} (line {}); expected UTF-8, or UTF-16 with its byte-order mark",
                           static_cast<unsigned char>(text[at]), at + mark, line_of(text, at)));
  return std::string(text);
}

}  // namespace qb
