#include "core/text/vocabulary.h"

#include <fmt/format.h>

#include "core/base/error.h"

namespace qb {

void Vocabulary::add(std::string token, int64_t id, const std::string& origin, bool allow_repeats) {
  if (id < 0 || id > highest_id)
    throw InputError(fmt::format("{}: token '{}' has the id {}, expected 0 to {}", origin, token, id, highest_id));
  const auto at = static_cast<size_t>(id);
  if (at >= tokens_.size()) {
    tokens_.resize(at + 1);
    present_.resize(at + 1, false);
  }
  if (present_[at]) throw InputError(fmt::format("{}: the tokens '{}' and '{}' have the same id {}", origin, tokens_[at], token, id));
  auto [it, fresh] = ids_.insert_or_assign(token, static_cast<int32_t>(id));
  (void)it;
  if (!fresh && !allow_repeats) throw InputError(fmt::format("{}: the token '{}' stands there twice", origin, token));
  present_[at] = true;
  tokens_[at] = std::move(token);
  ++count_;
}

const std::string& Vocabulary::token(int32_t id) const {
  static const std::string none;
  return has(id) ? tokens_[static_cast<size_t>(id)] : none;
}

}  // namespace qb
