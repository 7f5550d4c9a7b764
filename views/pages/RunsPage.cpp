#include "views/pages/RunsPage.h"

#include <QAction>
#include <QClipboard>
#include <QComboBox>
#include <QDataStream>
#include <QFileDialog>
#include <QGuiApplication>
#include <QHBoxLayout>
#include <QHeaderView>
#include <QLabel>
#include <QLineEdit>
#include <QMenu>
#include <QPushButton>
#include <QTimer>
#include <QTreeView>
#include <QVBoxLayout>
#include <algorithm>
#include <map>

#include "core/base/files.h"
#include "views/Icons.h"
#include "views/Workbench.h"
#include "views/models/RunTable.h"
#include "views/pages/Delegates.h"
#include "views/pages/RunMenu.h"

namespace qb::views {
namespace {

constexpr int kStateVersion = 1;
constexpr int kEye = 48;  // px, with the run's mark

// The cell of a group has no eye.
class EyeOrGroupDelegate : public EyeDelegate {
 public:
  using EyeDelegate::EyeDelegate;
  void paint(QPainter* painter, const QStyleOptionViewItem& option, const QModelIndex& index) const override {
    if (index.data(RunList::IdRole).isValid())
      EyeDelegate::paint(painter, option, index);
    else
      QStyledItemDelegate::paint(painter, option, index);
  }

 protected:
  bool editorEvent(QEvent* event, QAbstractItemModel* model, const QStyleOptionViewItem& option, const QModelIndex& index) override {
    return index.data(RunList::IdRole).isValid() && EyeDelegate::editorEvent(event, model, option, index);
  }
};

}  // namespace

RunsPage::RunsPage(Workbench* workbench, QWidget* parent) : QWidget(parent), m_workbench(workbench) {
  m_model = new RunTable(workbench->selection(), workbench->runList(), workbench->background(), this);
  m_runMenu = new RunMenu(workbench, this);
  makeTable();
  m_nothing = new QLabel;
  m_nothing->setWordWrap(true);
  m_nothing->setForegroundRole(QPalette::PlaceholderText);
  m_nothing->setMargin(10);
  m_nothing->setAlignment(Qt::AlignTop | Qt::AlignLeft);
  auto* column = new QVBoxLayout(this);
  column->setContentsMargins(0, 0, 0, 0);
  column->setSpacing(0);
  column->addWidget(makeControls());
  m_mistake = new QLabel;
  m_mistake->setWordWrap(true);
  m_mistake->setContentsMargins(8, 0, 8, 4);
  m_mistake->setAccessibleName(tr("What is wrong with the filter"));
  m_mistake->hide();
  column->addWidget(m_mistake);
  column->addWidget(m_nothing);
  column->addWidget(m_table, 1);

  connect(m_model, &RunTable::showRequested, workbench, &Workbench::show);
  connect(m_model, &RunTable::renameRequested, workbench, &Workbench::rename);
  connect(m_model, &RunTable::tagsRequested, workbench, &Workbench::setTags);
  connect(m_model, &RunTable::notesRequested, workbench, &Workbench::setNotes);
  connect(m_model, &RunTable::aboutToArrange, this, &RunsPage::remember);
  connect(m_model, &RunTable::arranged, this, &RunsPage::restore);
  connect(m_runMenu, &RunMenu::compareRequested, this, &RunsPage::compareRequested);
  connect(m_runMenu, &RunMenu::exportRequested, this, &RunsPage::exportRequested);
  connect(m_runMenu, &RunMenu::logRequested, this, &RunsPage::logRequested);
  connect(m_runMenu, &RunMenu::renameRequested, this, [this](const QString& id) {
    const QModelIndex name = m_model->indexOf(id, RunTable::columnOf("name"));
    m_table->setCurrentIndex(name);
    m_table->edit(name);
  });
  connect(workbench->selection(), &Selection::currentRunChanged, this, &RunsPage::followCurrent);
  connect(workbench, &Workbench::readingChanged, this, &RunsPage::showState);
  showState();
}

QWidget* RunsPage::makeControls() {
  auto* bar = new QWidget;
  auto* line = new QHBoxLayout(bar);
  line->setContentsMargins(8, 4, 8, 4);
  m_filter = new QLineEdit;
  m_filter->setObjectName(QStringLiteral("runFilter"));
  m_filter->setPlaceholderText(tr("Filter: words, and conditions such as ppl<30 status=finished tags~paper"));
  m_filter->setToolTip(tr("Words are looked for in names, models, schemes, pipelines, sweeps, tags, notes and states. Conditions are a column's key with = != < <= > >= ~ (contains) or !~ "
                          "and a value; the key of a column is told by its heading. In quotes what has spaces."));
  m_filter->setAccessibleName(tr("Filter of the runs"));
  m_filter->setClearButtonEnabled(true);
  m_filter->addAction(icon(QStringLiteral("search")), QLineEdit::LeadingPosition);
  auto* timer = new QTimer(this);
  timer->setSingleShot(true);
  timer->setInterval(150);
  connect(m_filter, &QLineEdit::textChanged, timer, qOverload<>(&QTimer::start));
  connect(timer, &QTimer::timeout, this, &RunsPage::readFilter);
  connect(m_filter, &QLineEdit::returnPressed, m_table, qOverload<>(&QWidget::setFocus));

  auto* label = new QLabel(tr("&Groups:"));
  m_grouping = new QComboBox;
  m_grouping->setAccessibleName(tr("Groups of runs"));
  m_grouping->addItem(tr("None"), QString());
  for (const char* key : {"model", "scheme", "pipeline", "sweep", "status", "tags"}) m_grouping->addItem(QString::fromStdString(run_column(key).title), QString::fromLatin1(key));
  label->setBuddy(m_grouping);
  connect(m_grouping, &QComboBox::currentIndexChanged, this, [this] { m_model->setGrouping(m_grouping->currentData().toString()); });

  m_count = new QLabel;
  m_count->setAccessibleName(tr("How many runs are shown and chosen"));
  auto* columns = new QPushButton(tr("Columns"));
  auto* menu = new QMenu(columns);
  connect(menu, &QMenu::aboutToShow, this, [this, menu] {
    menu->clear();
    fillColumnMenu(menu);
  });
  columns->setMenu(menu);
  auto* table = new QPushButton(tr("Table"));
  table->setAccessibleName(tr("Actions of the table"));
  auto* actions = new QMenu(table);
  actions->addAction(icon(QStringLiteral("export")), tr("Export as CSV, JSON or Markdown…"), this, &RunsPage::exportTable);
  actions->addAction(icon(QStringLiteral("copy")), tr("Copy as Markdown"), this, [this] {
    std::vector<const RunReport*> runs;
    for (const QString& id : selectedRuns().size() > 1 ? selectedRuns() : m_model->ids())
      if (const RunEntry* run = m_workbench->selection()->find(id)) runs.push_back(run->report.get());
    QGuiApplication::clipboard()->setText(QString::fromStdString(runs_as_markdown(runs, shownColumns(), m_model->baseline().get())));
  });
  table->setMenu(actions);
  line->addWidget(m_filter, 1);
  line->addWidget(label);
  line->addWidget(m_grouping);
  line->addWidget(columns);
  line->addWidget(table);
  line->addWidget(m_count);
  return bar;
}

void RunsPage::makeTable() {
  m_table = new QTreeView;
  m_table->setObjectName(QStringLiteral("runTable"));
  m_table->setAccessibleName(tr("All runs of the workspace"));
  m_table->setModel(m_model);
  m_table->setItemDelegate(new RoomyDelegate(m_table));
  m_table->setItemDelegateForColumn(0, new EyeOrGroupDelegate(m_table));
  m_table->setUniformRowHeights(true);
  m_table->setAlternatingRowColors(true);
  m_table->setRootIsDecorated(false);
  m_table->setIndentation(16);
  m_table->setSelectionBehavior(QAbstractItemView::SelectRows);
  m_table->setSelectionMode(QAbstractItemView::ExtendedSelection);
  m_table->setEditTriggers(QAbstractItemView::EditKeyPressed);
  m_table->setExpandsOnDoubleClick(false);
  m_table->setContextMenuPolicy(Qt::CustomContextMenu);
  m_table->setFrameShape(QFrame::NoFrame);
  m_table->setHorizontalScrollMode(QAbstractItemView::ScrollPerPixel);
  QHeaderView* header = m_table->header();
  header->setSectionsMovable(true);
  header->setFirstSectionMovable(false);
  header->setSectionResizeMode(0, QHeaderView::Fixed);
  header->setStretchLastSection(false);
  header->setMinimumSectionSize(40);
  header->setContextMenuPolicy(Qt::CustomContextMenu);
  header->setSortIndicatorClearable(true);  // the third click: newest first again
  m_table->setSortingEnabled(true);
  m_table->sortByColumn(-1, Qt::AscendingOrder);
  standardColumns();

  connect(header, &QWidget::customContextMenuRequested, this, [this, header](const QPoint& place) {
    QMenu menu(this);
    fillColumnMenu(&menu);
    menu.exec(header->mapToGlobal(place));
  });
  connect(m_table, &QWidget::customContextMenuRequested, this, &RunsPage::menu);
  connect(m_table->selectionModel(), &QItemSelectionModel::currentRowChanged, this, [this](const QModelIndex& index) {
    if (const QString id = index.data(RunList::IdRole).toString(); !m_restoring && !id.isEmpty()) m_workbench->makeCurrent(id);
  });
  connect(m_table->selectionModel(), &QItemSelectionModel::selectionChanged, this, &RunsPage::showState);
  const auto open = [this](const QModelIndex& index) {
    const QString id = index.data(RunList::IdRole).toString();
    if (id.isEmpty() || index.column() == 0) return;
    m_workbench->show(id, true);
    Q_EMIT pageRequested(QStringLiteral("layers"));
  };
  connect(m_table, &QTreeView::doubleClicked, this, open);
  const auto add = [this](const QString& text, const QKeySequence& key, auto act) {
    auto* action = new QAction(text, m_table);
    action->setShortcut(key);
    action->setShortcutContext(Qt::WidgetShortcut);
    m_table->addAction(action);
    connect(action, &QAction::triggered, this, act);
  };
  add(tr("Delete runs"), QKeySequence::Delete, [this] {
    if (const QStringList runs = selectedRuns(); !runs.isEmpty()) m_runMenu->remove(runs);
  });
  add(tr("Show the run's layers"), Qt::Key_Return, [this, open] { open(m_table->currentIndex().siblingAtColumn(1)); });
  add(tr("Add a tag"), QKeySequence(Qt::CTRL | Qt::Key_T), [this] {
    if (const QStringList runs = selectedRuns(); !runs.isEmpty()) m_runMenu->addTag(runs);
  });
}

void RunsPage::standardColumns() {
  QHeaderView* header = m_table->header();
  // What stands there as a rule; figures are never to be cut.
  static const std::map<std::string, QString> usual{{"name", QStringLiteral("W4 g64 AWQ, GPTQ #12")}, {"scheme", QStringLiteral("W4A16 g64 asymmetric")}, {"pipeline", QStringLiteral("awq → clip → gptq")},
                                                    {"model", QStringLiteral("SmolLM2-135M")}, {"tags", QStringLiteral("paper, table 3")}, {"status", QStringLiteral("Elsewhere 12/30")}};
  for (int section = 1; section < header->count(); ++section) {
    header->moveSection(header->visualIndex(section), section);
    const RunColumn& column = run_columns()[size_t(section - 1)];
    header->setSectionHidden(section, !column.standard);
    const int heading = fontMetrics().horizontalAdvance(QString::fromStdString(column_heading(column))) + 30;  // with room for the sort's arrow
    const auto found = usual.find(column.key);
    const QString sample = found != usual.end() ? found->second : column.kind == RunColumnKind::figure ? QString::fromLatin1(column.unit == "MB" ? "+00000." : "+000.") + QString(column.decimals, QLatin1Char('0')) : QStringLiteral("2026-01-02");
    header->resizeSection(section, std::max(heading, fontMetrics().horizontalAdvance(sample) + 16));
  }
}

RunColumns RunsPage::shownColumns() const {
  RunColumns columns;
  for (int place = 0; place < m_table->header()->count(); ++place)
    if (const int section = m_table->header()->logicalIndex(place); section > 0 && !m_table->header()->isSectionHidden(section)) columns.push_back(&run_columns()[size_t(section - 1)]);
  return columns;
}

void RunsPage::fillColumnMenu(QMenu* menu) {
  QHeaderView* header = m_table->header();
  for (int section = 1; section < header->count(); ++section) {
    const RunColumn& column = run_columns()[size_t(section - 1)];
    if (column.key == "name") continue;  // by which a run is known
    QAction* action = menu->addAction(QString::fromStdString(column_heading(column)));
    action->setToolTip(QString::fromStdString(column.help));
    action->setCheckable(true);
    action->setChecked(!header->isSectionHidden(section));
    connect(action, &QAction::toggled, this, [header, section](bool shown) { header->setSectionHidden(section, !shown); });
  }
  menu->addSeparator();
  menu->addAction(tr("Standard columns"), this, &RunsPage::standardColumns);
  menu->setToolTipsVisible(true);
}

QStringList RunsPage::selectedRuns() const {
  QStringList ids;
  for (const QModelIndex& index : m_table->selectionModel()->selectedRows()) ids << index.data(RunList::IdRole).toString();
  return ids;
}

// A filter that is not understood says so and leaves the table as it is.
void RunsPage::readFilter() {
  try {
    m_model->setQuery(RunQuery::parse(m_filter->text().toStdString()));
    m_mistake->hide();
  } catch (const Error& error) {
    m_mistake->setText(QString::fromUtf8(error.what()));
    m_mistake->show();
  }
}

void RunsPage::remember() {
  m_selected = selectedRuns();
  m_current = m_table->currentIndex().data(RunList::IdRole).toString();
  m_top = m_table->indexAt(QPoint(2, 2)).data(RunList::IdRole).toString();
  if (m_model->isGrouped())
    for (int row = 0; row < m_model->rowCount(); ++row) {
      const QModelIndex group = m_model->index(row, 0);
      const QString title = group.data().toString().section(QStringLiteral("   ("), 0, 0);
      if (m_table->isExpanded(group))
        m_folded.remove(title);
      else
        m_folded.insert(title);
    }
  m_restoring = true;
}

void RunsPage::restore() {
  m_table->setRootIsDecorated(m_model->isGrouped());
  m_table->header()->resizeSection(0, m_model->isGrouped() ? kEye + 2 * m_table->indentation() : kEye);  // runs stand in under their group
  if (m_model->isGrouped())
    for (int row = 0; row < m_model->rowCount(); ++row) {
      const QModelIndex group = m_model->index(row, 0);
      m_table->setFirstColumnSpanned(row, {}, true);
      m_table->setExpanded(group, !m_folded.contains(group.data().toString().section(QStringLiteral("   ("), 0, 0)));
    }
  QItemSelection rows;
  for (const QString& id : m_selected)
    if (const QModelIndex index = m_model->indexOf(id); index.isValid()) rows.select(index, index.siblingAtColumn(m_model->columnCount() - 1));
  m_table->selectionModel()->select(rows, QItemSelectionModel::ClearAndSelect);
  const QModelIndex current = m_model->indexOf(m_current.isEmpty() ? m_workbench->selection()->currentRun() : m_current, 1);
  if (current.isValid()) m_table->selectionModel()->setCurrentIndex(current, m_selected.isEmpty() ? QItemSelectionModel::SelectCurrent | QItemSelectionModel::Rows : QItemSelectionModel::NoUpdate);
  if (const QModelIndex top = m_model->indexOf(m_top); top.isValid()) m_table->scrollTo(top, QAbstractItemView::PositionAtTop);
  m_restoring = false;
  showState();
}

void RunsPage::followCurrent() {
  const QModelIndex current = m_model->indexOf(m_workbench->selection()->currentRun(), 1);
  if (!current.isValid() || m_table->currentIndex().siblingAtColumn(1) == current) return;
  m_restoring = true;
  m_table->selectionModel()->setCurrentIndex(current, QItemSelectionModel::ClearAndSelect | QItemSelectionModel::Rows);
  m_restoring = false;
}

void RunsPage::showState() {
  const auto all = m_workbench->selection()->runs().size();
  const int shown = m_model->shownRuns();
  const auto chosen = m_table->selectionModel()->selectedRows().size();
  const QLocale locale;
  const QString count = shown == all ? (all == 1 ? tr("1 run") : tr("%1 runs").arg(locale.toString(all))) : tr("%1 of %2 runs").arg(locale.toString(shown), locale.toString(all));
  m_count->setText(chosen > 1 ? tr("%1, %2 chosen").arg(count, locale.toString(chosen)) : count);
  const QString reading = m_workbench->readingText();
  m_nothing->setText(!reading.isEmpty() ? reading : all == 0 ? tr("No runs yet. Write a recipe and press Start run; each run appears here as it goes.") : tr("No run passes the filter."));
  m_nothing->setVisible(!reading.isEmpty() || shown == 0);
}

void RunsPage::menu(const QPoint& place) {
  const QString id = m_table->indexAt(place).data(RunList::IdRole).toString();
  if (id.isEmpty()) return;
  QMenu menu(this);
  m_runMenu->fill(&menu, id, selectedRuns());
  menu.exec(m_table->viewport()->mapToGlobal(place));
}

void RunsPage::exportTable() {
  auto* dialog = new QFileDialog(this, tr("Export the table of runs"), {}, tr("CSV (*.csv);;JSON (*.json);;Markdown (*.md)"));
  dialog->setAcceptMode(QFileDialog::AcceptSave);
  dialog->setDefaultSuffix(QStringLiteral("csv"));
  dialog->selectFile(QStringLiteral("runs.csv"));
  dialog->setAttribute(Qt::WA_DeleteOnClose);
  connect(dialog, &QFileDialog::filterSelected, dialog, [dialog](const QString& filter) { dialog->setDefaultSuffix(filter.section(QStringLiteral("*."), 1).section(QLatin1Char(')'), 0, 0)); });
  connect(dialog, &QFileDialog::fileSelected, this, [this](const QString& path) {
    QVector<RunPtr> reports;
    for (const QString& id : m_model->ids())
      if (const RunEntry* run = m_workbench->selection()->find(id)) reports << run->report;
    m_workbench->background()->run(
        {},
        [reports, columns = shownColumns(), path, baseline = m_model->baseline()](const std::stop_token&) {
          std::vector<const RunReport*> runs;
          for (const RunPtr& report : reports) runs.push_back(report.get());
          const auto write = path.endsWith(QLatin1String(".json")) ? runs_as_json : path.endsWith(QLatin1String(".md")) ? runs_as_markdown : runs_as_csv;
          write_atomically(path.toStdString(), write(runs, columns, baseline.get()));
          return runs.size();
        },
        [this, path](size_t runs) { Q_EMIT m_workbench->status(tr("Wrote %1 runs into %2").arg(runs).arg(path)); },
        [this](const QString& error) { Q_EMIT m_workbench->notice(Workbench::Place::Window, Workbench::Kind::Error, error); });
  });
  dialog->open();
}

QByteArray RunsPage::saveState() const {
  QByteArray state;
  QDataStream stream(&state, QIODevice::WriteOnly);
  stream << kStateVersion << m_grouping->currentData().toString() << m_table->header()->saveState();
  return state;
}

void RunsPage::restoreState(const QByteArray& state) {
  QDataStream stream(state);
  int version = 0;
  QString grouping;
  QByteArray header;
  stream >> version >> grouping >> header;
  if (stream.status() != QDataStream::Ok || version != kStateVersion) return;
  m_table->header()->restoreState(header);
  m_table->header()->setSectionHidden(0, false);
  m_table->header()->setSectionResizeMode(0, QHeaderView::Fixed);
  m_table->header()->setSectionHidden(RunTable::columnOf("name"), false);
  m_grouping->setCurrentIndex(std::max(0, m_grouping->findData(grouping)));
  m_table->sortByColumn(m_table->header()->sortIndicatorSection(), m_table->header()->sortIndicatorOrder());
}

}  // namespace qb::views
