#include "views/Settings.h"

#include <QStandardPaths>

namespace qb::views {

Settings::Settings() : m_store(QStringLiteral("llm-qbench"), QStringLiteral("workbench")) {}
Settings::Settings(const QString& iniFile) : m_store(iniFile, QSettings::IniFormat) {}

void Settings::addRecent(const QString& path) {
  QStringList paths = recent();
  paths.removeAll(path);
  paths.prepend(path);
  m_store.setValue("recent", QStringList(paths.mid(0, 12)));
}

QString Settings::workspace() const {
  const QString standard = QStandardPaths::writableLocation(QStandardPaths::GenericDataLocation) + QStringLiteral("/llm-qbench/workspace");
  return m_store.value("workspace", standard).toString();
}

void Settings::setRecipe(const QString& text, const QString& path, bool modified) {
  m_store.setValue("recipe/text", text);
  m_store.setValue("recipe/path", path);
  m_store.setValue("recipe/modified", modified);
}

}  // namespace qb::views
