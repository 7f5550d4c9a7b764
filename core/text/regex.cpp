#include "core/text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <fmt/format.h>
#include <pcre2.h>

#include "core/base/error.h"
#include "core/text/regex_syntax.h"
#include "core/text/utf8.h"

namespace qb {
namespace {

std::string message_of(int code) {
  PCRE2_UCHAR buffer[256];
  pcre2_get_error_message(code, buffer, sizeof buffer);
  return reinterpret_cast<const char*>(buffer);
}

// Match data and a machine stack for compiled patterns, one a thread.
struct Workspace {
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(32 << 10, 8 << 20, nullptr);
  Workspace() { pcre2_jit_stack_assign(context, nullptr, stack); }
  ~Workspace() {
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
    pcre2_jit_stack_free(stack);
  }
};

Workspace& workspace() {
  thread_local Workspace w;
  return w;
}

}  // namespace

struct Regex::Code {
  pcre2_code* code = nullptr;
  std::string origin;
  ~Code() { pcre2_code_free(code); }
};

Regex::Regex(std::string_view pattern, const std::string& origin) : code_(std::make_unique<Code>()) {
  const std::string translated = pcre_from_oniguruma(pattern, origin);
  int error = 0;
  PCRE2_SIZE offset = 0;
  code_->origin = origin;
  code_->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(), PCRE2_UTF | PCRE2_UCP, &error, &offset, nullptr);
  if (!code_->code) throw InputError(fmt::format("{}: regular expression '{}': {}", origin, pattern, message_of(error)));
  pcre2_jit_compile(code_->code, PCRE2_JIT_COMPLETE);  // where it is unavailable, matching interprets
}

Regex::~Regex() = default;

bool Regex::find(std::string_view text, size_t from, size_t& begin, size_t& end) const {
  Workspace& w = workspace();
  const int found = pcre2_match(code_->code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from, PCRE2_NO_UTF_CHECK, w.data, w.context);
  if (found == PCRE2_ERROR_NOMATCH) return false;
  if (found < 0) throw InputError(fmt::format("{}: a regular expression gave up on this text: {}", code_->origin, message_of(found)));
  const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(w.data);
  begin = ends[0];
  end = ends[1];
  return true;
}

size_t Regex::next_character(std::string_view text, size_t at) {
  return at >= text.size() ? text.size() + 1 : at + static_cast<size_t>(utf8::length(text[at]));
}

}  // namespace qb
