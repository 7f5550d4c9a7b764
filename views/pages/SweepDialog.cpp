#include "views/pages/SweepDialog.h"

#include <QFileInfo>
#include <QHeaderView>
#include <QLabel>
#include <QPlainTextEdit>
#include <QPointer>
#include <QProgressBar>
#include <QScreen>
#include <QStackedWidget>
#include <QTableView>
#include <QVBoxLayout>
#include <algorithm>

#include "views/Icons.h"
#include "views/Workbench.h"
#include "views/pages/NoticeBar.h"

namespace qb::views {
namespace {

QString text(const std::string& value) { return QString::fromStdString(value); }

}  // namespace

SweepDialog::SweepDialog(Workbench* workbench, const QString& path, QWidget* parent) : QDialog(parent), m_workbench(workbench), m_path(path), m_name(QFileInfo(path).completeBaseName()) {
  setAttribute(Qt::WA_DeleteOnClose);
  setObjectName(QStringLiteral("sweepDialog"));
  m_title = new QLabel;
  m_title->setTextFormat(Qt::PlainText);
  QFont font = m_title->font();
  font.setPointSizeF(font.pointSizeF() * 1.3);
  font.setBold(true);
  m_title->setFont(font);
  m_facts = new QLabel;
  m_facts->setForegroundRole(QPalette::PlaceholderText);
  m_facts->setTextFormat(Qt::PlainText);
  m_facts->setWordWrap(true);
  m_notices = new NoticeBar;

  auto* waiting = new QWidget;
  auto* middle = new QVBoxLayout(waiting);
  m_waiting = new QLabel;
  m_waiting->setAlignment(Qt::AlignCenter);
  m_bar = new QProgressBar;
  m_bar->setMaximumWidth(fontMetrics().horizontalAdvance(QLatin1Char('n')) * 40);
  m_bar->setAccessibleName(tr("Recipes that were looked at"));
  middle->addStretch(1);
  middle->addWidget(m_waiting);
  middle->addWidget(m_bar, 0, Qt::AlignHCenter);
  middle->addStretch(2);

  auto* found = new QWidget;
  auto* column = new QVBoxLayout(found);
  column->setContentsMargins(0, 0, 0, 0);
  m_view = new QTableView;
  m_view->setModel(&m_table);
  m_view->setAccessibleName(tr("Recipes of the sweep"));
  m_view->setSelectionBehavior(QAbstractItemView::SelectRows);
  m_view->setAlternatingRowColors(true);
  m_view->setShowGrid(false);
  m_view->setWordWrap(false);
  m_view->verticalHeader()->hide();
  m_view->verticalHeader()->setDefaultSectionSize(fontMetrics().height() + 8);
  m_view->horizontalHeader()->setHighlightSections(false);
  m_view->setHorizontalScrollMode(QAbstractItemView::ScrollPerPixel);
  column->addWidget(m_view, 3);
  m_omittedTitle = new QLabel;
  m_omittedText = new QPlainTextEdit;
  m_omittedText->setReadOnly(true);
  m_omittedText->setLineWrapMode(QPlainTextEdit::WidgetWidth);
  m_omittedText->setAccessibleName(tr("Combinations that are left out, with the reason"));
  m_omittedTitle->setBuddy(m_omittedText);
  column->addWidget(m_omittedTitle);
  column->addWidget(m_omittedText, 1);
  m_pages = new QStackedWidget;
  m_pages->addWidget(waiting);
  m_pages->addWidget(found);

  m_summary = new QLabel;
  m_summary->setTextFormat(Qt::PlainText);
  m_summary->setWordWrap(true);
  const auto button = [this](const QString& iconName, const QString& title, auto act) {
    auto* made = iconName.isEmpty() ? new QPushButton(title) : new QPushButton(icon(iconName), title);
    made->setAutoDefault(false);
    connect(made, &QPushButton::clicked, this, act);
    return made;
  };
  m_all = button({}, tr("&All"), [this] { m_table.setAll(true); });
  m_all->setToolTip(tr("Carry all out that are not done"));
  m_none = button({}, tr("&None"), [this] { m_table.setAll(false); });
  m_again = button({}, tr("&Look again"), [this] { survey(); });
  m_again->setToolTip(tr("Read the file and the workspace again"));
  m_queue = button(QStringLiteral("start"), {}, [this] { enqueue(); });
  m_queue->setDefault(true);
  m_close = button({}, tr("Close"), [this] { close(); });
  auto* buttons = new QHBoxLayout;
  for (QPushButton* each : {m_all, m_none, m_again}) buttons->addWidget(each);
  buttons->addStretch(1);
  for (QPushButton* each : {m_queue, m_close}) buttons->addWidget(each);

  auto* all = new QVBoxLayout(this);
  all->setContentsMargins(14, 12, 14, 12);
  all->addWidget(m_title);
  all->addWidget(m_facts);
  all->addSpacing(4);
  all->addWidget(m_notices);
  all->addWidget(m_pages, 1);
  all->addWidget(m_summary);
  all->addLayout(buttons);
  const QSize room = screen()->availableSize() - QSize(40, 80);
  resize(QSize(fontMetrics().horizontalAdvance(QLatin1Char('n')) * 126, fontMetrics().height() * 38).boundedTo(room));

  connect(&m_table, &QAbstractItemModel::dataChanged, this, &SweepDialog::refresh);
  connect(&m_table, &QAbstractItemModel::modelReset, this, &SweepDialog::refresh);
  connect(workbench, &Workbench::workspaceChanged, this, &SweepDialog::survey);
  survey();
}

SweepDialog::~SweepDialog() { m_workbench->background()->cancel(slot()); }

void SweepDialog::survey() {
  setWindowTitle(tr("Sweep %1").arg(m_name));
  m_title->setText(tr("Sweep %1").arg(m_name));
  m_facts->setText(m_path);
  m_notices->clear();
  m_waiting->setText(tr("Looking at models, texts and the workspace…"));
  m_bar->setRange(0, 0);
  m_bar->show();
  m_pages->setCurrentIndex(0);
  refresh();
  const QPointer<SweepDialog> dialog(this);
  const auto told = [dialog, background = m_workbench->background()](size_t done, size_t of) {
    QMetaObject::invokeMethod(background, [dialog, done, of] {
      if (!dialog) return;
      dialog->m_bar->setRange(0, int(of));
      dialog->m_bar->setValue(int(done));
      dialog->m_waiting->setText(tr("Looking at recipe %1 of %2…").arg(done + 1).arg(of));
    });
  };
  m_workbench->background()->run(
      slot(),
      [survey = m_workbench->services().surveySweep, file = std::filesystem::path(m_path.toStdString()), device = m_workbench->device().toStdString(), workspace = m_workbench->workspace(), told](const std::stop_token& stop) {
        return survey(file, RunOptions{device, {}}, workspace, stop, told);
      },
      [dialog](SweepSurvey&& found) {
        if (dialog) dialog->showSurvey(std::move(found));
      },
      [dialog](const QString& error) {
        if (!dialog) return;
        dialog->m_bar->hide();
        dialog->m_waiting->setText(tr("This sweep cannot be carried out as it is."));
        dialog->m_notices->tell(NoticeBar::Error, error);
      });
}

void SweepDialog::showSurvey(SweepSurvey&& found) {
  m_name = text(found.sweep.name);
  setWindowTitle(tr("Sweep %1").arg(m_name));
  m_title->setText(tr("Sweep %1").arg(m_name));
  m_sweep = found.sweep;
  int done = 0, refused = 0;
  for (const SweepRow& row : found.rows) {
    done += row.state == SweepRow::State::done ? 1 : 0;
    refused += row.plan ? 0 : 1;
  }
  QStringList facts{found.rows.size() == 1 ? tr("1 recipe") : tr("%1 recipes").arg(found.rows.size())};
  if (done > 0) facts << tr("%1 done in this workspace").arg(done);
  if (refused > 0) facts << tr("%1 that do not fit").arg(refused);
  m_facts->setText(facts.join(QStringLiteral(" · ")) + QStringLiteral(" · ") + m_path);
  m_table.setRows(std::move(found.rows), m_workbench->device() != QLatin1String("cpu"));
  m_view->resizeColumnsToContents();
  m_view->horizontalHeader()->setStretchLastSection(true);
  const QString omitted = omissions();
  m_omittedText->setPlainText(omitted);
  m_omittedTitle->setText(tr("Left out"));
  m_omittedText->setMaximumHeight(fontMetrics().height() * (std::min(5, int(omitted.count(QLatin1Char('\n'))) * 2 + 2) + 1));
  for (QWidget* part : {static_cast<QWidget*>(m_omittedTitle), static_cast<QWidget*>(m_omittedText)}) part->setVisible(!omitted.isEmpty());
  if (!found.sweep.notes.empty()) {
    QStringList notes;
    for (const std::string& note : found.sweep.notes) notes << text(note);
    m_notices->tell(NoticeBar::Warning, notes.join(QLatin1Char('\n')));
  }
  m_pages->setCurrentIndex(1);
  refresh();
  if (isVisible()) m_view->setFocus();
}

QString SweepDialog::omissions() const {
  QStringList lines;
  for (const auto& reasons : {refusals(m_table.rows()), qb::omissions(m_sweep, false), qb::omissions(m_sweep, true)})
    for (const SweepReason& reason : reasons) lines << QStringLiteral("%1: %2").arg(text(names_text(reason)), text(reason.why));
  return lines.join(QLatin1Char('\n'));
}

void SweepDialog::refresh() {
  const bool found = m_pages->currentIndex() == 1;
  const size_t wanted = found ? m_table.checked().size() : 0;
  m_queue->setText(wanted == 1 ? tr("&Queue 1 run") : tr("&Queue %1 runs").arg(wanted));
  m_queue->setEnabled(wanted > 0);
  for (QPushButton* each : {m_all, m_none}) each->setEnabled(found);
  m_summary->setText(found ? m_table.summary() : QString());
}

void SweepDialog::enqueue() {
  std::vector<Recipe> recipes;
  QStringList stopped;
  for (const SweepRow* row : m_table.checked())
    if (row->state == SweepRow::State::stopped)
      stopped << text(row->run);
    else
      recipes.push_back(row->entry.recipe);
  m_workbench->startSweep(m_name, recipes, stopped);
  close();
}

}  // namespace qb::views
