#include "views/pages/Dialogs.h"

#include <QAbstractItemView>
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
#include "views/plots/Plot.h"

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
  runs->setRange(0, 64);
  runs->setSpecialValueText(tr("as many as memory lets"));
  runs->setValue(settings->runsPerDevice());
  runs->setToolTip(tr("Runs at a time share the cores; each is given its share of threads and waits for its memory. A GPU takes one run at a time."));
  connect(runs, &QSpinBox::valueChanged, this, [=](int value) {
    settings->setRunsPerDevice(value);
    queue->setPerDevice(value);
  });
  form->addRow(tr("&Runs at a time on the CPU"), runs);

  auto* threads = new QSpinBox;
  threads->setRange(0, usable_cores());
  threads->setSpecialValueText(tr("all cores"));
  threads->setToolTip(tr("At most the cores that this program may use; runs at a time share them"));
  threads->setValue(settings->threads());
  connect(threads, &QSpinBox::valueChanged, this, [=](int value) {
    settings->setThreads(value);
    queue->setThreads(value);
  });
  form->addRow(tr("&Compute threads"), threads);
  auto* later = new QLabel(tr("A change of threads counts from the next run on."));
  later->setForegroundRole(QPalette::PlaceholderText);
  form->addRow(later);

  auto* buttons = new QDialogButtonBox(QDialogButtonBox::Close);
  connect(buttons, &QDialogButtonBox::rejected, this, &QDialog::close);
  auto* column = new QVBoxLayout(this);
  column->addLayout(form);
  column->addWidget(buttons);
}

ShortcutsSheet::ShortcutsSheet(QWidget* window) : QDialog(window) {
  setWindowTitle(tr("Keyboard shortcuts"));
  setAttribute(Qt::WA_DeleteOnClose);
  using Rows = QVector<QPair<QString, QString>>;
  const auto tell = [](Rows& rows, const QAction* action) {
    QStringList keys;
    for (const QKeySequence& key : action->shortcuts())
      if (!key.isEmpty()) keys << key.toString(QKeySequence::NativeText);
    const QVariant given = action->property("sheetText");
    const QString what = QString(given.isValid() ? given.toString() : action->text()).remove(QLatin1Char('&')).remove(QStringLiteral("…"));
    const QPair<QString, QString> row(keys.join(tr(", ")), what);
    if (!keys.isEmpty() && !rows.contains(row)) rows << row;  // every plot has the same
  };
  Rows ofWindow, ofLists, ofPlots, ofOthers;
  const QList<QAction*> own = window->actions();
  for (const QAction* action : own) tell(ofWindow, action);
  for (const QAction* action : window->findChildren<QAction*>())
    if (!own.contains(action)) tell(qobject_cast<Plot*>(action->parent()) ? ofPlots : qobject_cast<QAbstractItemView*>(action->parent()) ? ofLists : ofOthers, action);
  // What is pressed without there being an action.
  ofLists << Rows{{tr("Space"), tr("Show or hide the run (on the eye)")}, {tr("F2"), tr("Rename the run")}, {tr("Menu key"), tr("Everything that can be done with a run, a job or a model")}};
  ofPlots << Rows{{tr("Wheel"), tr("Zoom, or turn to other runs where there are more than rows (then Ctrl and wheel zoom)")},
                  {tr("Drag, arrow keys"), tr("Move, or step from layer to layer and run to run")}, {tr("Menu key"), tr("Everything that can be done with a plot")}};
  QString html;
  for (const auto& [title, rows] : {std::pair(tr("Window"), ofWindow), {tr("Runs, models and queue"), ofLists}, {tr("Plots"), ofPlots}, {tr("Elsewhere"), ofOthers}}) {
    if (rows.isEmpty()) continue;
    html += QStringLiteral("<h3>%1</h3><table>").arg(title.toHtmlEscaped());
    for (const auto& [keys, what] : rows)
      html += QStringLiteral("<tr><td style='padding:2px 18px 2px 0'><b>%1</b></td><td style='padding:2px 0'>%2</td></tr>").arg(keys.toHtmlEscaped(), what.toHtmlEscaped());
    html += QStringLiteral("</table>");
  }
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
