#include "core/base/help.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/knob.h"
#include "core/base/resources.h"

namespace qb {

std::vector<HelpPage> help_pages() {
  std::vector<HelpPage> pages;
  for (const auto& entry : std::filesystem::directory_iterator(resource("help"))) {
    if (entry.path().extension() != ".md") continue;
    HelpPage page{entry.path().stem().string(), "", read_text(entry.path(), 4 << 20)};
    if (const size_t start = page.text.find("# "); start != std::string::npos) page.title = page.text.substr(start + 2, page.text.find('\n', start) - start - 2);
    pages.push_back(std::move(page));
  }
  std::sort(pages.begin(), pages.end(), [](const HelpPage& a, const HelpPage& b) { return a.name < b.name; });
  return pages;
}

HelpPage help_page(const std::string& name) {
  std::vector<std::string> names;
  for (HelpPage& page : help_pages()) {
    if (page.name == name) return std::move(page);
    names.push_back(page.name);
  }
  const auto near = similar_names(name, names);
  throw InputError(near.empty() ? fmt::format("there is no help page \"{}\"; there is {}", name, fmt::join(names, ", ")) : fmt::format("there is no help page \"{}\"; did you mean \"{}\"?", name, near.front()));
}

}  // namespace qb
