#pragma once
#include <QByteArray>
#include <QSettings>
#include <QStringList>

#include "views/Theme.h"

namespace qb::views {

// What the program remembers from one start to the next. Values are read and written at once; a test hands in its own file.
class Settings {
 public:
  Settings();                                // the user's
  explicit Settings(const QString& iniFile);

  ThemeChoice theme() const { return ThemeChoice(m_store.value("theme", 0).toInt()); }
  void setTheme(ThemeChoice choice) { m_store.setValue("theme", int(choice)); }
  double textScale() const { return m_store.value("textScale", 1.0).toDouble(); }
  void setTextScale(double scale) { m_store.setValue("textScale", scale); }
  int threads() const { return m_store.value("threads", 0).toInt(); }  // 0: all cores
  void setThreads(int threads) { m_store.setValue("threads", threads); }
  int runsPerDevice() const { return m_store.value("runsPerDevice", 1).toInt(); }
  void setRunsPerDevice(int runs) { m_store.setValue("runsPerDevice", runs); }

  QStringList recent() const { return m_store.value("recent").toStringList(); }
  void addRecent(const QString& path);       // most recent first, at most 12
  void clearRecent() { m_store.remove("recent"); }

  QString workspace() const;                 // the last one, else one in the user's data folder
  void setWorkspace(const QString& path) { m_store.setValue("workspace", path); }
  QStringList models() const { return m_store.value("models").toStringList(); }
  void setModels(const QStringList& paths) { m_store.setValue("models", paths); }
  QStringList shownRuns() const { return m_store.value("shownRuns").toStringList(); }
  void setShownRuns(const QStringList& ids) { m_store.setValue("shownRuns", ids); }
  QString recipeText() const { return m_store.value("recipe/text").toString(); }
  QString recipePath() const { return m_store.value("recipe/path").toString(); }
  bool recipeModified() const { return m_store.value("recipe/modified").toBool(); }  // against its file
  void setRecipe(const QString& text, const QString& path, bool modified);
  QByteArray bytes(const QString& key) const { return m_store.value(key).toByteArray(); }
  void setBytes(const QString& key, const QByteArray& value) { m_store.setValue(key, value); }
  int page() const { return m_store.value("page", 0).toInt(); }
  void setPage(int page) { m_store.setValue("page", page); }
  void sync() { m_store.sync(); }

 private:
  mutable QSettings m_store;
};

}  // namespace qb::views
