#include <fmt/format.h>
#include <fmt/ranges.h>

#include <iostream>

#include "cli.h"
#include "core/base/error.h"
#include "core/quant/spec_fields.h"

namespace cli {
namespace {

const qb::SpecRole kRoles[] = {qb::SpecRole::weights, qb::SpecRole::activations, qb::SpecRole::cache};

std::string storage_note(qb::SpecRole role, const qb::SpecField& field) {
  if (field.knob.name == "type" || role == qb::SpecRole::cache) return {};  // caches have no such types
  switch (field.by_type) {
    case qb::SpecField::ByType::fixed: return "fixed by a file format's type";
    case qb::SpecField::ByType::own_search: return "not of a file format's type, which has a search of its own";
    case qb::SpecField::ByType::free: return {};
  }
  throw qb::InternalError("unknown kind of field");
}

// "" stands for what a recipe leaves out.
qb::KnobInfo shown(const qb::SpecField& field) {
  qb::KnobInfo knob = field.knob;
  std::erase(knob.choices, "");
  if (qb::to_text(knob.default_value).empty()) knob.default_value = field.choice_titles.front();
  return knob;
}

int scheme(const std::string& role, const Options& options) {
  nlohmann::json all = nlohmann::json::object();
  bool found = false;
  for (const qb::SpecRole each : kRoles) {
    const std::string name = qb::to_text(each);
    if (!role.empty() && name != role) continue;
    found = true;
    nlohmann::json list = nlohmann::json::array();
    if (!options.json) std::cout << bold(name) << '\n';
    for (const qb::SpecField& field : qb::spec_fields(each)) {
      if (!field.offered) continue;
      const qb::KnobInfo knob = shown(field);
      const std::string note = storage_note(each, field);
      list.push_back({{"name", knob.name}, {"title", knob.title}, {"default", qb::to_text(knob.default_value)}, {"range", qb::range_text(knob)}, {"unit", knob.unit}, {"help", knob.help}, {"storage", note}});
      if (!options.json)
        std::cout << fmt::format("    {} = {}  ({})\n        {}: {}{}\n", knob.name, qb::to_text(knob.default_value), qb::range_text(knob), knob.title, knob.help, note.empty() ? "" : fmt::format(" ({})", note));
    }
    all[name] = std::move(list);
  }
  if (!found) throw qb::InputError(fmt::format("there is no part of a scheme \"{}\"; expected weights, activations or kv_cache", role));
  if (options.json) std::cout << all.dump(2) << '\n';
  return ok;
}

}  // namespace

void add_scheme(CLI::App& app, const Options& options, Action& action) {
  auto role = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand("scheme", "List what a scheme can say of weights, activations and caches");
  command->add_option("part", *role, "Only this part: weights, activations or kv_cache");
  command->callback([role, &options, &action] { action = [role, &options] { return scheme(*role, options); }; });
}

}  // namespace cli
