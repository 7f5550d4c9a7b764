#include "views/pages/SchemeFields.h"

namespace qb::views {
namespace {

QString text(const std::string& value) { return QString::fromStdString(value); }

void addSpecField(FieldGroup& group, const QString& prefix, const SpecField& field, const SpecAccess& access) {
  const auto at = [access](const Recipe& recipe) -> const QuantSpec* { return access(const_cast<Recipe&>(recipe)); };
  const FieldText words{prefix + QLatin1Char('.') + text(field.knob.name), text(field.knob.title), text(field.knob.help), text(field.knob.unit), [at, &field](const Recipe& recipe) {
                          const QuantSpec* spec = at(recipe);
                          return spec && field.applies(*spec);
                        }};
  const auto get = [at, &field](const Recipe& recipe) {
    const QuantSpec* spec = at(recipe);
    return spec ? field.get(*spec) : field.knob.default_value;
  };
  const auto set = [access, &field](Recipe& recipe, const KnobValue& value) {
    QuantSpec* spec = access(recipe);
    return !spec || choose(*spec, field, value);
  };
  switch (field.knob.type) {
    case KnobType::boolean:
      group.boolean(words, [get](const Recipe& r) { return std::get<bool>(get(r)); }, [set](Recipe& r, bool value) { set(r, value); });
      break;
    case KnobType::integer:
      group.integer(words, qint64(field.knob.minimum), qint64(field.knob.maximum), [get](const Recipe& r) { return qint64(std::get<int64_t>(get(r))); },
                    [set](Recipe& r, qint64 value) { set(r, int64_t(value)); }, text(field.knob.zero));
      break;
    case KnobType::real:
      group.real(words, field.knob.minimum, field.knob.maximum, [get](const Recipe& r) { return std::get<double>(get(r)); }, [set](Recipe& r, double value) { set(r, value); });
      break;
    case KnobType::choice: {
      QStringList values, titles;
      for (const std::string& value : field.knob.choices) values << text(value);
      for (const std::string& title : field.choice_titles) titles << text(title);
      const bool othersToo = field.knob.name == "type";  // int5, e4m10
      group.choice(words, values, titles, [get](const Recipe& r) { return text(std::get<std::string>(get(r))); }, [set](Recipe& r, const QString& value) { return set(r, value.toStdString()); }, othersToo);
      break;
    }
  }
}

}  // namespace

void addSpecFields(FieldGroup& group, const QString& key, SpecRole role, SpecAccess access) {
  for (const SpecField& field : spec_fields(role))
    if (field.offered) addSpecField(group, key, field, access);
}

}  // namespace qb::views
