#include <fmt/format.h>

#include <iostream>

#include "cli.h"
#include "core/base/help.h"

namespace cli {
namespace {

int help(const std::string& wanted, const Options& options) {
  if (!wanted.empty()) {
    const qb::HelpPage page = qb::help_page(wanted);
    if (options.json)
      std::cout << nlohmann::json{{"name", page.name}, {"title", page.title}, {"markdown", page.text}}.dump() << '\n';
    else
      std::cout << page.text;
    return ok;
  }
  nlohmann::json list = nlohmann::json::array();
  for (const qb::HelpPage& page : qb::help_pages()) {
    list.push_back({{"name", page.name}, {"title", page.title}});
    if (!options.json) std::cout << fmt::format("{}  {}\n", bold(page.name), page.title);
  }
  if (options.json) std::cout << list.dump() << '\n';
  return ok;
}

}  // namespace

void add_help(CLI::App& app, const Options& options, Action& action) {
  auto page = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand("help", "List the pages of help, or print one (Markdown)");
  command->add_option("page", *page, "Page, such as scale");
  command->callback([page, &options, &action] { action = [page, &options] { return help(*page, options); }; });
}

}  // namespace cli
