#pragma once
#include <QString>
#include <optional>

namespace qb::views {

// Carries the change base → changed over to `mine`, a text that says the same as base but may have comments, blank lines or
// another order of sections. nullopt when a changed place cannot be found in `mine`, or not surely.
std::optional<QString> mergeLines(const QString& base, const QString& changed, const QString& mine);

}  // namespace qb::views
