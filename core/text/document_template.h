#pragma once
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace jinja {
struct program;
}

namespace qb {

// A Jinja template over the fields of a document, as lm-evaluation-harness renders it: a trailing line break is kept, what
// has no value is an error. Not for several threads at once.
class DocumentTemplate {
 public:
  // `origin` stands in errors: the file and the key. Throws InputError for a template that cannot be read.
  DocumentTemplate(std::string source, std::string origin);
  ~DocumentTemplate();
  DocumentTemplate(DocumentTemplate&&) noexcept;

  std::string render(const nlohmann::ordered_json& document) const;
  // What a template of one expression stands for: a list stays a list. InputError for any other template.
  nlohmann::ordered_json evaluate(const nlohmann::ordered_json& document) const;

 private:
  std::string source_, origin_;
  bool line_break_ = false;  // at the end, which the lexer drops
  std::unique_ptr<jinja::program> program_, as_json_;  // as_json_: null where it is not one expression
};

}  // namespace qb
