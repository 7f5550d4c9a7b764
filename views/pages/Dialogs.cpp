#include "views/pages/Dialogs.h"

#include <QAction>
#include <QComboBox>
#include <QDialogButtonBox>
#include <QFormLayout>
#include <QLabel>
#include <QSpinBox>
#include <QTextBrowser>
#include <QVBoxLayout>

#include "core/base/cores.h"
#include "views/Settings.h"
#include "views/Theme.h"
#include "views/jobs/RunQueue.h"

namespace qb::views {

SettingsDialog::SettingsDialog(Settings* settings, Theme* theme, RunQueue* queue, QWidget* parent) : QDialog(parent) {
  setWindowTitle(tr("Settings"));
  setAttribute(Qt::WA_DeleteOnClose);
  auto* form = new QFormLayout;
  auto* themes = new QComboBox;
  themes->addItems({tr("As the desktop"), tr("Light"), tr("Dark")});
  themes->setCurrentIndex(int(theme->choice()));
  connect(themes, &QComboBox::currentIndexChanged, this, [=](int index) {
    settings->setTheme(ThemeChoice(index));
    theme->choose(ThemeChoice(index));
  });
  form->addRow(tr("&Theme"), themes);

  auto* scale = new QComboBox;
  for (int percent : {90, 100, 110, 125, 150, 175, 200}) scale->addItem(tr("%1 %").arg(percent), percent / 100.0);
  scale->setCurrentIndex(std::max(0, scale->findData(settings->textScale())));
  connect(scale, &QComboBox::currentIndexChanged, this, [=](int index) {
    settings->setTextScale(scale->itemData(index).toDouble());
    theme->setTextScale(settings->textScale());
  });
  form->addRow(tr("Text &size"), scale);

  auto* runs = new QSpinBox;
  runs->setRange(1, 16);
  runs->setValue(settings->runsPerDevice());
  runs->setToolTip(tr("More than one shares the device's cores and memory"));
  connect(runs, &QSpinBox::valueChanged, this, [=](int value) {
    settings->setRunsPerDevice(value);
    queue->setPerDevice(value);
  });
  form->addRow(tr("&Runs at a time on one device"), runs);

  auto* threads = new QSpinBox;
  threads->setRange(0, usable_cores());
  threads->setSpecialValueText(tr("all cores"));
  threads->setToolTip(tr("At most the cores that this program may use; runs at a time share them"));
  threads->setValue(settings->threads());
  connect(threads, &QSpinBox::valueChanged, this, [=](int value) { settings->setThreads(value); });
  form->addRow(tr("&Compute threads"), threads);
  auto* later = new QLabel(tr("A change of threads counts from the next start on."));
  later->setForegroundRole(QPalette::PlaceholderText);
  form->addRow(later);

  auto* buttons = new QDialogButtonBox(QDialogButtonBox::Close);
  connect(buttons, &QDialogButtonBox::rejected, this, &QDialog::close);
  auto* column = new QVBoxLayout(this);
  column->addLayout(form);
  column->addWidget(buttons);
}

ShortcutsSheet::ShortcutsSheet(const QList<QAction*>& actions, QWidget* parent) : QDialog(parent) {
  setWindowTitle(tr("Keyboard shortcuts"));
  setAttribute(Qt::WA_DeleteOnClose);
  const auto row = [](const QString& keys, const QString& what) {
    return QStringLiteral("<tr><td style='padding:2px 18px 2px 0'><b>%1</b></td><td style='padding:2px 0'>%2</td></tr>").arg(keys.toHtmlEscaped(), what.toHtmlEscaped());
  };
  QString html = QStringLiteral("<h3>%1</h3><table>").arg(tr("Window"));
  for (const QAction* action : actions)
    if (!action->shortcut().isEmpty()) html += row(action->shortcut().toString(QKeySequence::NativeText), QString(action->property("sheetText").isValid() ? action->property("sheetText").toString() : action->text()).remove(QLatin1Char('&')).remove(QStringLiteral("…")));
  html += QStringLiteral("</table><h3>%1</h3><table>").arg(tr("Runs and queue"));
  html += row(tr("Space"), tr("Show or hide the run (on the eye)"));
  html += row(tr("F2"), tr("Rename the run"));
  html += row(tr("Menu key"), tr("Everything that can be done with a run, a job or a model"));
  html += QStringLiteral("</table><h3>%1</h3><table>").arg(tr("Plots"));
  html += row(tr("Wheel, + and −"), tr("Zoom"));
  html += row(tr("Drag, arrow keys"), tr("Move, or step from layer to layer and run to run"));
  html += row(tr("Page Up, Page Down, wheel"), tr("Other runs, where there are more than rows (zoom: Ctrl and wheel)"));
  html += row(tr("Shift and drag, R"), tr("Zoom into a rectangle"));
  html += row(tr("Home, L, G"), tr("Reset the view, logarithmic axis, legend"));
  html += row(tr("Ctrl+E, Ctrl+C, Ctrl+Shift+C"), tr("Export, copy the picture, copy its numbers"));
  html += row(tr("Menu key"), tr("Reset, logarithmic axis, export"));
  html += QStringLiteral("</table>");
  auto* text = new QTextBrowser;
  text->setHtml(html);
  text->setAccessibleName(windowTitle());
  auto* buttons = new QDialogButtonBox(QDialogButtonBox::Close);
  connect(buttons, &QDialogButtonBox::rejected, this, &QDialog::close);
  auto* column = new QVBoxLayout(this);
  column->addWidget(text);
  column->addWidget(buttons);
  resize(520, 620);
}

}  // namespace qb::views
