#include "views/pages/RunMenu.h"

#include <QClipboard>
#include <QGuiApplication>
#include <QInputDialog>
#include <QMenu>
#include <QMessageBox>

#include "views/Icons.h"
#include "views/Workbench.h"

namespace qb::views {

RunMenu::RunMenu(Workbench* workbench, QWidget* parent) : QObject(parent), m_workbench(workbench), m_parent(parent) {}

void RunMenu::fill(QMenu* menu, const QString& id, const QStringList& ids) {
  const RunEntry* run = m_workbench->selection()->find(id);
  if (!run) return;
  menu->addAction(icon(QStringLiteral("compare")), tr("Show only the selected runs"), this, [this, ids] { Q_EMIT compareRequested(ids); });
  menu->addAction(run->shown ? tr("Hide in plots") : tr("Show in plots"), this, [this, id, shown = !run->shown] { m_workbench->show(id, shown); });
  QAction* baseline = menu->addAction(tr("Baseline of comparisons"));
  baseline->setCheckable(true);
  baseline->setChecked(m_workbench->selection()->baseline() == id);
  connect(baseline, &QAction::toggled, this, [this, id](bool on) {
    if (on) m_workbench->show(id, true);
    m_workbench->selection()->setBaseline(on ? id : QString());
  });
  menu->addSeparator();
  QStringList resumable;
  for (const QString& each : ids)
    if (m_workbench->canResume(each)) resumable << each;
  QAction* resumed = menu->addAction(icon(QStringLiteral("resume")), resumable.size() > 1 ? tr("Resume %1 runs").arg(resumable.size()) : tr("Resume"), this, [this, resumable] { resume(resumable); });
  resumed->setEnabled(!resumable.isEmpty());
  QAction* exported = menu->addAction(icon(QStringLiteral("export")), tr("Export…"), this, [this, id] { Q_EMIT exportRequested(id); });
  const QString obstacle = m_workbench->exportObstacle(id);
  exported->setEnabled(obstacle.isEmpty());
  exported->setToolTip(obstacle);
  menu->setToolTipsVisible(true);  // only those that were set
  menu->addAction(icon(QStringLiteral("recipe")), tr("Open its recipe"), this, [this, id] { m_workbench->openRecipeOf(id); });
  menu->addAction(tr("Show its log"), this, [this, id] { Q_EMIT logRequested(id); });
  menu->addAction(icon(QStringLiteral("copy")), tr("Copy as command line"), this, [this, id, name = QString::fromStdString(run->report->name)] {
    QGuiApplication::clipboard()->setText(m_workbench->commandLineOf(id));
    Q_EMIT m_workbench->status(tr("Copied the command line of %1: paste it in a terminal to do the same there").arg(name));
  });
  menu->addSeparator();
  menu->addAction(ids.size() > 1 ? tr("Add a tag to %1 runs…").arg(ids.size()) : tr("Add a tag…"), this, [this, ids] { addTag(ids); });
  menu->addAction(tr("Rename"), this, [this, id] { Q_EMIT renameRequested(id); });
  menu->addAction(icon(QStringLiteral("delete")), tr("Delete…"), this, [this, ids] { remove(ids); });
}

void RunMenu::resume(const QStringList& runs) {
  for (const QString& run : runs)
    if (m_workbench->canResume(run)) m_workbench->resume(run);
}

void RunMenu::addTag(const QStringList& runs) {
  auto* dialog = new QInputDialog(m_parent);
  dialog->setWindowTitle(tr("Add a tag"));
  dialog->setLabelText(runs.size() > 1 ? tr("Tag of these %1 runs:").arg(runs.size()) : tr("Tag of this run:"));
  // Those that there are already; a tag is most useful twice.
  QStringList known;
  for (const RunEntry& run : m_workbench->selection()->runs())
    for (const std::string& tag : run.report->tags)
      if (!known.contains(QString::fromStdString(tag))) known << QString::fromStdString(tag);
  known.sort(Qt::CaseInsensitive);
  dialog->setComboBoxItems(known);
  dialog->setComboBoxEditable(true);
  dialog->setTextValue({});
  dialog->setAttribute(Qt::WA_DeleteOnClose);
  connect(dialog, &QInputDialog::textValueSelected, this, [this, runs](const QString& tag) {
    if (tag.trimmed().isEmpty()) return;
    for (const QString& id : runs)
      if (const RunEntry* run = m_workbench->selection()->find(id)) {
        std::vector<std::string> tags = run->report->tags;
        tags.push_back(tag.trimmed().toStdString());
        m_workbench->setTags(id, tags);
      }
  });
  dialog->open();
}

void RunMenu::remove(const QStringList& ids) {
  QStringList names;
  for (const QString& id : ids)
    if (const RunEntry* run = m_workbench->selection()->find(id)) names << QString::fromStdString(run->report->name);
  constexpr int kNamed = 12;  // more would not fit on a screen
  const QStringList told = names.size() > kNamed ? names.mid(0, kNamed - 1) << tr("… and %1 more").arg(names.size() - kNamed + 1) : names;
  auto* question = new QMessageBox(QMessageBox::Question, tr("Delete runs"),
                                   names.size() == 1 ? tr("Delete this run with its results from disk? This cannot be undone.")
                                                     : tr("Delete these %1 runs with their results from disk? This cannot be undone.").arg(names.size()), QMessageBox::NoButton, m_parent);
  question->setInformativeText(told.join(QLatin1Char('\n')));
  QAbstractButton* yes = question->addButton(tr("Delete"), QMessageBox::DestructiveRole);
  question->addButton(QMessageBox::Cancel);
  question->setDefaultButton(QMessageBox::Cancel);
  question->setAttribute(Qt::WA_DeleteOnClose);
  connect(question, &QMessageBox::buttonClicked, this, [this, yes, ids](QAbstractButton* pressed) {
    if (pressed != yes) return;
    for (const QString& id : ids) m_workbench->remove(id);
  });
  question->open();
}

}  // namespace qb::views
