#pragma once
#include <memory>
#include <string>
#include <string_view>

#include "core/text/json_field.h"
#include "core/text/regex.h"

namespace qb {

// {"pattern": {"String": …} or {"Regex": …}, "content": …}: every match becomes `content`, which is taken literally.
class Replacement {
 public:
  explicit Replacement(const JsonField& description);
  std::string apply(std::string_view text) const;

 private:
  std::string literal_;           // for a String pattern
  std::unique_ptr<Regex> regex_;  // for a Regex pattern
  std::string content_;
};

}  // namespace qb
