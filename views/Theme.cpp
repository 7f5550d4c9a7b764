#include "views/Theme.h"

#include <QApplication>
#include <QDBusConnection>
#include <QDBusMessage>
#include <QDBusPendingCallWatcher>
#include <QDBusPendingReply>
#include <QFont>
#include <QPainter>
#include <QProxyStyle>
#include <QStyleOption>
#include <QToolTip>

namespace qb::views {
namespace {

// The desktops' common place for the choice: org.freedesktop.appearance color-scheme, 1 dark, 2 light, 0 no preference.
constexpr auto kService = "org.freedesktop.portal.Desktop";
constexpr auto kPath = "/org/freedesktop/portal/desktop";
constexpr auto kInterface = "org.freedesktop.portal.Settings";
constexpr auto kGroup = "org.freedesktop.appearance";
constexpr auto kKey = "color-scheme";

// Fusion outlines fields in a darker tone of the window, which a dark window swallows.
class OutlinedFusion : public QProxyStyle {
 public:
  OutlinedFusion() : QProxyStyle(QStringLiteral("Fusion")) {}
  void drawPrimitive(PrimitiveElement element, const QStyleOption* option, QPainter* painter, const QWidget* widget) const override {
    QProxyStyle::drawPrimitive(element, option, painter, widget);
    if (element == PE_FrameLineEdit || element == PE_IndicatorCheckBox) outline(option, painter);
    if (element == PE_IndicatorRadioButton) outline(option, painter, true);
    if (element == PE_PanelMenu && isNight(option)) {
      painter->setPen(option->palette.color(QPalette::Mid));
      painter->drawRect(option->rect.adjusted(0, 0, -1, -1));
    }
  }
  void drawComplexControl(ComplexControl control, const QStyleOptionComplex* option, QPainter* painter, const QWidget* widget) const override {
    const auto* tool = qstyleoption_cast<const QStyleOptionToolButton*>(option);
    if (control == CC_ToolButton && tool && tool->features & QStyleOptionToolButton::HasMenu && !(tool->features & QStyleOptionToolButton::MenuButtonPopup))
      return drawMenuButton(tool, painter, widget);
    QProxyStyle::drawComplexControl(control, option, painter, widget);
    const auto* combo = qstyleoption_cast<const QStyleOptionComboBox*>(option);
    if (control == CC_SpinBox || (control == CC_ComboBox && combo && combo->editable)) outline(option, painter);
  }
  // The icons of standard buttons are dark pictures, whatever the window is; a shadow below greyed texts blurs them on a dark one.
  int styleHint(StyleHint hint, const QStyleOption* option, const QWidget* widget, QStyleHintReturn* returned) const override {
    return hint == SH_DialogButtonBox_ButtonsHaveIcons || hint == SH_EtchDisabledText ? 0 : QProxyStyle::styleHint(hint, option, widget, returned);
  }

 private:
  // Fusion puts the arrow into the lower corner, over the icon: here beside the text, and nowhere where there is no text.
  void drawMenuButton(const QStyleOptionToolButton* tool, QPainter* painter, const QWidget* widget) const {
    QStyleOptionToolButton plain(*tool);
    plain.features &= ~QStyleOptionToolButton::HasMenu;
    QProxyStyle::drawComplexControl(CC_ToolButton, &plain, painter, widget);
    if (tool->toolButtonStyle == Qt::ToolButtonIconOnly || tool->text.isEmpty()) return;
    QStyleOption arrow(*tool);
    arrow.rect = visualRect(tool->direction, tool->rect, QRect(tool->rect.right() - 13, tool->rect.center().y() - 3, 8, 8));
    proxy()->drawPrimitive(PE_IndicatorArrowDown, &arrow, painter, widget);
  }
  static bool isNight(const QStyleOption* option) { return option->palette.color(QPalette::Window).lightness() < 128; }
  static void outline(const QStyleOption* option, QPainter* painter, bool round = false) {
    if (!isNight(option) || option->state & State_HasFocus) return;
    painter->save();
    painter->setRenderHint(QPainter::Antialiasing);
    painter->setPen(option->palette.color(QPalette::Disabled, QPalette::Text));
    painter->setBrush(Qt::NoBrush);
    const QRectF edge = QRectF(option->rect).adjusted(0.5, 0.5, -0.5, -0.5);
    if (round)
      painter->drawEllipse(edge);
    else
      painter->drawRoundedRect(edge, 2, 2);
    painter->restore();
  }
};

bool currentIsDark() { return QApplication::palette().color(QPalette::Window).lightness() < 128; }

QVariant unwrapped(QVariant value) {
  while (value.canConvert<QDBusVariant>()) value = value.value<QDBusVariant>().variant();
  return value;
}

}  // namespace

Theme::Theme(QObject* parent) : QObject(parent) {
  m_systemDark = currentIsDark();  // of the platform's own palette, before ours
  m_systemPointSize = QApplication::font().pointSizeF();
  QApplication::setStyle(new OutlinedFusion);
  apply();
  askDesktop();
}

void Theme::askDesktop() {
  QDBusConnection bus = QDBusConnection::sessionBus();
  if (!bus.isConnected()) return;
  bus.connect(kService, kPath, kInterface, QStringLiteral("SettingChanged"), this,
              SLOT(desktopSettingChanged(QString, QString, QDBusVariant)));
  QDBusMessage call = QDBusMessage::createMethodCall(kService, kPath, kInterface, QStringLiteral("Read"));
  call << QString::fromLatin1(kGroup) << QString::fromLatin1(kKey);
  auto* watcher = new QDBusPendingCallWatcher(bus.asyncCall(call, 2000), this);
  connect(watcher, &QDBusPendingCallWatcher::finished, this, [this, watcher] {
    const QDBusPendingReply<QDBusVariant> reply = *watcher;
    if (reply.isValid()) desktopSettingChanged(kGroup, kKey, reply.value());
    watcher->deleteLater();
  });
}

void Theme::desktopSettingChanged(const QString& group, const QString& key, const QDBusVariant& value) {
  if (group != QLatin1String(kGroup) || key != QLatin1String(kKey)) return;
  const uint scheme = unwrapped(value.variant()).toUInt();
  if (scheme != 0) setSystemDark(scheme == 1);
}

void Theme::setSystemDark(bool dark) {
  if (m_systemDark == dark) return;
  m_systemDark = dark;
  if (m_choice == ThemeChoice::System) apply();
}

void Theme::choose(ThemeChoice choice) {
  m_choice = choice;
  apply();
}

bool Theme::isDark() const { return m_choice == ThemeChoice::System ? m_systemDark : m_choice == ThemeChoice::Dark; }

void Theme::setTextScale(double factor) {
  QFont font = QApplication::font();
  font.setPointSizeF(m_systemPointSize * factor);
  QApplication::setFont(font);
}

void Theme::apply() {
  const QPalette colours = palette(isDark());
  QApplication::setPalette(colours);
  QToolTip::setPalette(colours);
  Q_EMIT changed();
}

QPalette Theme::palette(bool dark) {
  const auto c = [dark](const char* light, const char* night) { return QColor(QLatin1String(dark ? night : light)); };
  const QColor text = c("#1b2026", "#e3e6ea"), faint = c("#9aa2ac", "#6d747d");
  QPalette p;
  p.setColor(QPalette::Window, c("#f3f4f6", "#202327"));
  p.setColor(QPalette::WindowText, text);
  p.setColor(QPalette::Base, c("#ffffff", "#17191c"));
  p.setColor(QPalette::AlternateBase, c("#f7f8fa", "#1c1f23"));
  p.setColor(QPalette::Text, text);
  p.setColor(QPalette::PlaceholderText, c("#7a838e", "#8b929b"));
  p.setColor(QPalette::Button, c("#fbfbfc", "#2c3035"));
  p.setColor(QPalette::ButtonText, text);
  p.setColor(QPalette::BrightText, c("#ffffff", "#ffffff"));
  p.setColor(QPalette::ToolTipBase, c("#ffffff", "#2c3035"));
  p.setColor(QPalette::ToolTipText, text);
  p.setColor(QPalette::Highlight, c("#1a68b8", "#2b74c4"));
  p.setColor(QPalette::HighlightedText, QColor(Qt::white));
  p.setColor(QPalette::Link, c("#1a68b8", "#74b3f5"));
  p.setColor(QPalette::LinkVisited, c("#6b4fa0", "#b59ae0"));
  // Fusion draws its frames from these.
  p.setColor(QPalette::Light, c("#ffffff", "#34393f"));
  p.setColor(QPalette::Midlight, c("#eceef1", "#2a2e33"));
  p.setColor(QPalette::Mid, c("#c9ced5", "#3a3f46"));
  p.setColor(QPalette::Dark, c("#a9b0b9", "#0f1113"));
  p.setColor(QPalette::Shadow, c("#79828d", "#08090a"));
  for (const auto role : {QPalette::WindowText, QPalette::Text, QPalette::ButtonText}) p.setColor(QPalette::Disabled, role, faint);
  p.setColor(QPalette::Disabled, QPalette::Highlight, c("#c9ced5", "#3a3f46"));
  p.setColor(QPalette::Disabled, QPalette::Base, c("#f3f4f6", "#202327"));
  return p;
}

// Contrast of at least 4.5 : 1 on window and base of their theme.
QColor Theme::error() { return currentIsDark() ? QColor(0xff, 0x86, 0x7c) : QColor(0xb3, 0x26, 0x1e); }
QColor Theme::warning() { return currentIsDark() ? QColor(0xf0, 0xb4, 0x4c) : QColor(0x8a, 0x57, 0x00); }
QColor Theme::success() { return currentIsDark() ? QColor(0x6c, 0xc9, 0x8a) : QColor(0x1b, 0x73, 0x3f); }
QColor Theme::border() { return QApplication::palette().color(QPalette::Mid); }
QColor Theme::faintText() { return QApplication::palette().color(QPalette::PlaceholderText); }

}  // namespace qb::views
