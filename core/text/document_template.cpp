#include "core/text/document_template.h"

#include <fmt/format.h>
#include <jinja/lexer.h>
#include <jinja/parser.h>
#include <jinja/runtime.h>

#include <regex>

#include "core/base/error.h"
#include "core/base/utf8.h"

namespace qb {
namespace {

std::unique_ptr<jinja::program> parsed(const std::string& source) {
  return std::make_unique<jinja::program>(jinja::parse_from_tokens(jinja::lexer().tokenize(source)));
}

// Lists have no index() in this engine, and harness templates ask for it: `choices.label.index(x)` becomes `index_in(choices.label, x)`.
std::string with_index_function(const std::string& source) {
  static const std::regex call(R"(\b([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)\.index\()");
  std::string out;
  size_t at = 0;
  for (size_t begin; (begin = source.find("{{", at)) != std::string::npos;) {
    const size_t end = std::min(source.find("}}", begin), source.size());
    out += source.substr(at, begin - at) + std::regex_replace(source.substr(begin, end - begin), call, "index_in($1, ");
    at = end;
  }
  return out + source.substr(at);
}

jinja::value index_in(const jinja::func_args& args) {
  args.ensure_count(2, 2);
  const jinja::value list = args.get_pos(0), wanted = args.get_pos(1);
  if (!jinja::is_val<jinja::value_array>(list)) throw std::runtime_error("index() of what is no list");
  const std::vector<jinja::value>& items = list->as_array();
  for (size_t i = 0; i < items.size(); ++i)
    if (*items[i] == *wanted) return jinja::mk_val<jinja::value_int>(static_cast<int64_t>(i));
  throw std::runtime_error("index(): the list has no such item");
}

// The inside of a template that is one {{ … }}; empty: it is more than that.
std::string only_expression(const std::string& source) {
  const size_t begin = source.find_first_not_of(" \t\n"), end = source.find_last_not_of(" \t\n");
  if (begin == std::string::npos || end - begin < 4 || source.compare(begin, 2, "{{") != 0 || source.compare(end - 1, 2, "}}") != 0) return "";
  const std::string inside = source.substr(begin + 2, end - begin - 3);
  return inside.find("{{") == std::string::npos && inside.find("}}") == std::string::npos && inside.find("{%") == std::string::npos ? inside : "";
}

// The lexer drops line breaks behind tags and spaces before them, as chat templates want it; Jinja by itself keeps them.
bool tags_on_lines_of_their_own(const std::string& source) {
  for (size_t at = source.find("{%"); at != std::string::npos; at = source.find("{%", at + 1)) {
    const size_t before = source.find_last_not_of(" \t", at == 0 ? 0 : at - 1);
    if (at > 0 && (source[at - 1] == ' ' || source[at - 1] == '\t') && (before == std::string::npos || source[before] == '\n')) return true;
  }
  for (const char* end : {"%}\n", "#}\n"})
    if (source.find(end) != std::string::npos) return true;
  return false;
}

}  // namespace

DocumentTemplate::DocumentTemplate(std::string source, std::string origin) : source_(std::move(source)), origin_(std::move(origin)) {
  if (tags_on_lines_of_their_own(source_)) throw InputError(origin_ + ": tags {% … %} on lines of their own are not read; join them with the text");
  line_break_ = source_.ends_with('\n');
  source_ = with_index_function(source_);
  try {
    program_ = parsed(source_);
    if (const std::string inside = only_expression(source_); !inside.empty()) as_json_ = parsed("{{ (" + inside + ") | tojson }}");
  } catch (const std::exception& e) {
    throw InputError(fmt::format("{}: this template cannot be read: {}", origin_, printable(e.what(), 400)));
  }
}

DocumentTemplate::~DocumentTemplate() = default;
DocumentTemplate::DocumentTemplate(DocumentTemplate&&) noexcept = default;

namespace {

// Every part of the text, in order.
std::string rendered(const jinja::program& program, const std::string& source, const nlohmann::ordered_json& document) {
  jinja::context context(source);
  jinja::global_from_json(context, document, false);
  context.set_val("index_in", jinja::mk_val<jinja::value_func>("index_in", index_in));
  std::string text;
  jinja::runtime runtime(context);
  const jinja::value_array parts = runtime.execute(program);
  for (const auto& part : parts->as_array()) {
    if (part->is_undefined()) throw std::runtime_error("it asks for a field that is not there");
    if (part->is_none()) {
      text += "None";  // as Python writes it
    } else {
      text += jinja::runtime::gather_string_parts(part)->as_string().str();
    }
  }
  return text;
}

}  // namespace

std::string DocumentTemplate::render(const nlohmann::ordered_json& document) const {
  if (as_json_)
    if (const auto value = evaluate(document); value.is_structured()) throw InputError(fmt::format("{}: expected a text, the template makes {}", origin_, value.type_name()));
  try {
    return rendered(*program_, source_, document) + (line_break_ ? "\n" : "");
  } catch (const std::exception& e) {
    throw InputError(fmt::format("{}: the template does not take this document: {}", origin_, printable(e.what(), 400)));
  }
}

nlohmann::ordered_json DocumentTemplate::evaluate(const nlohmann::ordered_json& document) const {
  if (!as_json_) throw InputError(fmt::format("{}: expected a template of one expression, {{{{ … }}}}, found {}", origin_, qb::quoted(source_)));
  try {
    return nlohmann::ordered_json::parse(rendered(*as_json_, source_, document));
  } catch (const std::exception& e) {
    throw InputError(fmt::format("{}: the template does not take this document: {}", origin_, printable(e.what(), 400)));
  }
}

}  // namespace qb
