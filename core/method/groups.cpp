#include "core/method/groups.h"

#include <fmt/format.h>

namespace qb {

at::Tensor group_errors(const at::Tensor& difference, const at::Tensor& gram, int64_t group) {
  const int64_t out = difference.size(0), groups = difference.size(1) / group;
  const at::Tensor blocks = gram.view({groups, group, groups, group}).diagonal(0, 0, 2).permute({2, 0, 1});
  const at::Tensor d = difference.view({out, groups, group}).transpose(0, 1);
  return at::bmm(d, blocks).mul_(d).sum(2).t();
}

std::string integer_groups_problem(const std::optional<QuantSpec>& spec, const char* method) {
  if (!spec || (spec->type.kind == NumberType::Kind::integer && spec->granularity == Granularity::group)) return {};
  return fmt::format("{} needs integer codes in groups, found {}", method, describe(*spec));
}

}  // namespace qb
