#pragma once
#include <QDBusVariant>
#include <QObject>
#include <QPalette>

namespace qb::views {

enum class ThemeChoice { System, Light, Dark };

// The look of the program: Fusion with its own light and dark palette, following the desktop's choice or the user's.
class Theme : public QObject {
  Q_OBJECT
 public:
  explicit Theme(QObject* parent = nullptr);  // asks the desktop, and listens to it

  void choose(ThemeChoice choice);
  ThemeChoice choice() const { return m_choice; }
  bool isDark() const;
  void setTextScale(double factor);  // of the desktop's font size

  static QPalette palette(bool dark);
  // Colours that palettes lack, fit for the current palette.
  static QColor error();
  static QColor warning();
  static QColor success();
  static QColor border();
  static QColor faintText();

 Q_SIGNALS:
  void changed();

 private Q_SLOTS:
  void desktopSettingChanged(const QString& group, const QString& key, const QDBusVariant& value);

 private:
  void askDesktop();
  void apply();
  void setSystemDark(bool dark);

  ThemeChoice m_choice = ThemeChoice::System;
  bool m_systemDark = false;
  double m_systemPointSize = 0;
};

}  // namespace qb::views
