#include <fmt/format.h>
#include <fmt/ranges.h>

#include <iostream>

#include "cli.h"
#include "core/model/model_info.h"

namespace cli {

void add_families(CLI::App& app, const Options& options, Action& action) {
  CLI::App* command = app.add_subcommand("families", "List the model families that can be opened");
  command->callback([&options, &action] {
    action = [&options] {
      const auto families = qb::known_families();
      if (options.json) {
        nlohmann::json list = nlohmann::json::array();
        for (const auto& f : families) list.push_back({{"name", f.name}, {"title", f.title}, {"model_types", f.model_types}, {"gguf", f.gguf}});
        std::cout << list.dump(2) << '\n';
        return ok;
      }
      std::vector<std::vector<std::string>> rows;
      for (const auto& f : families) rows.push_back({f.title, fmt::format("{}", fmt::join(f.model_types, ", ")), f.gguf.empty() ? "–" : fmt::format("{}", fmt::join(f.gguf, ", "))});
      print_table({"family", "model_type in config.json", "general.architecture in GGUF"}, rows);
      return ok;
    };
  });
}

}  // namespace cli
