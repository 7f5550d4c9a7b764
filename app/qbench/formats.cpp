#include <fmt/format.h>
#include <fmt/ranges.h>

#include <iostream>

#include "cli.h"
#include "core/exporting/formats.h"

namespace cli {
namespace {

std::vector<std::string> texts(const std::vector<qb::SchemeRule>& rules) {
  std::vector<std::string> all;
  for (const qb::SchemeRule& rule : rules) all.push_back(qb::describe(rule));
  return all;
}

template <class Rules>
std::string cache_texts(const Rules& rules) {
  std::vector<std::string> all;
  for (const qb::CacheRule& rule : rules) all.push_back(qb::describe(rule));
  return fmt::format("{}", fmt::join(all, ", or "));
}

std::string holds(const qb::FormatInfo& format) {
  if (!format.codes) return "any weights, as numbers";
  return fmt::format("{}", fmt::join(texts(format.schemes), "; ")) + (format.head && format.embedding ? "; embedding and head too" : format.head ? "; the head too" : "") +
         (format.caches.empty() ? "" : "; keys and values " + cache_texts(format.caches));
}

nlohmann::json engines_of(const qb::FormatInfo& format) {
  nlohmann::json list = nlohmann::json::array();
  for (const qb::EngineInfo& engine : qb::export_engines())
    for (const qb::EngineInfo::Takes& takes : engine.takes)
      if (takes.format == format.name)
        list.push_back({{"name", engine.name}, {"title", engine.title}, {"version", engine.version}, {"date", engine.date}, {"source", engine.source},
                        {"takes", texts(takes.schemes)}, {"caches", cache_texts(takes.caches)}, {"note", qb::note_of(engine, takes)}});
  return list;
}

int show(const Options& options) {
  nlohmann::json list = nlohmann::json::array();
  for (const qb::FormatInfo& format : qb::export_formats())
    list.push_back({{"name", format.name}, {"title", format.title}, {"help", format.help}, {"holds", holds(format)}, {"one_scheme", format.uniform}, {"engines", engines_of(format)}});
  if (options.json) {
    std::cout << list.dump(2) << '\n';
    return ok;
  }
  for (const auto& format : list) {
    std::cout << bold(format["name"]) << fmt::format("  {}\n  holds {}{}\n", format["help"].get<std::string>(), format["holds"].get<std::string>(),
                                                     format["one_scheme"].get<bool>() ? "; the same for all linears" : "");
    for (const auto& engine : format["engines"]) {
      const auto takes = engine["takes"].get<std::vector<std::string>>();
      const std::string note = engine["note"], caches = engine["caches"];
      std::cout << fmt::format("  {} {} ({}, {}): {}{}\n", engine["title"].get<std::string>(), engine["version"].get<std::string>(), engine["source"].get<std::string>(),
                               engine["date"].get<std::string>(), (takes.empty() ? "all of it" : fmt::format("{}", fmt::join(takes, "; "))) + (caches.empty() || takes.empty() ? "" : "; keys and values " + caches), note.empty() ? "" : "; " + note);
    }
  }
  return ok;
}

}  // namespace

void add_formats(CLI::App& app, const Options& options, Action& action) {
  CLI::App* command = app.add_subcommand("formats", "List what runs can be exported as, what each format holds, and what engines take of it");
  command->callback([&options, &action] { action = [&options] { return show(options); }; });
}

}  // namespace cli
