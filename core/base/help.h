#pragma once
#include <string>
#include <vector>

namespace qb {

// A page of resources/help.
struct HelpPage {
  std::string name;   // file name without ending: "scale"
  std::string title;  // its first heading
  std::string text;   // Markdown
};
// In name order. Throws InputError where there are none.
std::vector<HelpPage> help_pages();
// Throws InputError naming the pages that there are.
HelpPage help_page(const std::string& name);

}  // namespace qb
