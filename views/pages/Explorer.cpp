#include "views/pages/Explorer.h"

#include <QAction>
#include <QClipboard>
#include <QComboBox>
#include <QGuiApplication>
#include <QHeaderView>
#include <QLabel>
#include <QLineEdit>
#include <QMenu>
#include <QMessageBox>
#include <QSplitter>
#include <QTableView>
#include <QTimer>
#include <QToolButton>
#include <QTreeView>
#include <QVBoxLayout>

#include "views/Icons.h"
#include "views/Workbench.h"
#include "views/models/Format.h"
#include "views/pages/BitsMenu.h"
#include "views/pages/Delegates.h"
#include "views/pages/RunMenu.h"

namespace qb::views {
namespace {

QLabel* hint(const QString& text) {
  auto* label = new QLabel(text);
  label->setWordWrap(true);
  label->setForegroundRole(QPalette::PlaceholderText);
  label->setMargin(10);
  label->setAlignment(Qt::AlignTop | Qt::AlignLeft);
  return label;
}

QLabel* heading(const QString& text) {
  auto* label = new QLabel(QStringLiteral("<b>%1</b>").arg(text));
  label->setContentsMargins(8, 4, 0, 2);
  return label;
}

}  // namespace

Explorer::Explorer(Workbench* workbench, QWidget* parent) : QWidget(parent), m_workbench(workbench) {
  auto* splitter = new QSplitter(Qt::Vertical);
  splitter->setObjectName(QStringLiteral("explorerSplitter"));
  splitter->addWidget(makeModels());
  splitter->addWidget(makeRuns());
  splitter->setChildrenCollapsible(false);
  splitter->setSizes({320, 260});
  auto* column = new QVBoxLayout(this);
  column->setContentsMargins(0, 0, 0, 0);
  column->addWidget(splitter);
  connect(m_workbench->selection(), &Selection::currentRunChanged, this, &Explorer::followSelection);
  connect(m_workbench->selection(), &Selection::currentLinearChanged, this, &Explorer::followSelection);
  connect(m_workbench->selection(), &Selection::runsChanged, this, &Explorer::showEmpty);
  connect(m_workbench, &Workbench::readingChanged, this, &Explorer::showEmpty);
  connect(m_workbench->models(), &QAbstractItemModel::rowsInserted, this, &Explorer::showEmpty);
  connect(m_workbench->models(), &QAbstractItemModel::modelReset, this, &Explorer::showEmpty);
  connect(m_workbench->models(), &QAbstractItemModel::rowsInserted, this, &Explorer::followSelection, Qt::QueuedConnection);
  connect(m_workbench->selection(), &Selection::modelsChanged, this, &Explorer::showModels);
  connect(m_workbench->selection(), &Selection::currentModelChanged, this, &Explorer::showModels);
  connect(m_workbench->selection(), &Selection::currentModelChanged, this, &Explorer::followModel);
  showModels();
  showEmpty();
}

QWidget* Explorer::makeModels() {
  m_search = new QLineEdit;
  m_search->setPlaceholderText(tr("Search names, shapes, types (Ctrl+F)"));
  m_search->setAccessibleName(tr("Search in the open models"));
  m_search->setClearButtonEnabled(true);
  m_search->addAction(icon(QStringLiteral("search")), QLineEdit::LeadingPosition);
  m_filter = new ModelFilter(this);
  m_filter->setSourceModel(m_workbench->models());
  m_tree = new QTreeView;
  m_tree->setModel(m_filter);
  m_tree->setUniformRowHeights(true);
  m_tree->setAlternatingRowColors(true);
  m_tree->setContextMenuPolicy(Qt::CustomContextMenu);
  m_tree->setAccessibleName(tr("Open models"));
  m_tree->setFrameShape(QFrame::NoFrame);
  m_tree->setIndentation(14);
  m_tree->setIndentation(14);
  m_tree->setTextElideMode(Qt::ElideLeft);  // what tells linears apart stands at the end
  m_tree->setItemDelegate(new RoomyDelegate(m_tree));
  m_tree->header()->setStretchLastSection(false);
  m_tree->header()->setSectionResizeMode(ModelTree::Name, QHeaderView::Stretch);
  for (int column : {ModelTree::Shape, ModelTree::Type, ModelTree::Size}) m_tree->header()->setSectionResizeMode(column, QHeaderView::ResizeToContents);
  m_tree->header()->setMinimumSectionSize(40);
  m_noneFound = hint(tr("No tensor matches. Words are looked for in names, shapes and types; a number means a block or a size."));
  m_noneFound->hide();
  m_noModels = hint(tr("No model is open. Open a folder with config.json and safetensors, or a GGUF file; or drop one here."));

  auto* timer = new QTimer(this);
  timer->setSingleShot(true);
  timer->setInterval(120);
  connect(m_search, &QLineEdit::textChanged, timer, qOverload<>(&QTimer::start));
  connect(timer, &QTimer::timeout, this, [this] { search(m_search->text()); });
  connect(m_search, &QLineEdit::returnPressed, m_tree, qOverload<>(&QWidget::setFocus));
  connect(m_tree, &QWidget::customContextMenuRequested, this, &Explorer::modelMenu);
  connect(m_tree->selectionModel(), &QItemSelectionModel::currentChanged, this, [this](const QModelIndex& index) {
    if (!index.isValid()) return;
    Selection* selection = m_workbench->selection();
    selection->setCurrentModel(selection->modelAt(index.data(ModelTree::PathRole).toString()));
    const auto key = index.data(ModelTree::LinearRole).value<LinearKey>();
    const QString tensor = index.data(ModelTree::TensorRole).toString();
    if (key.isValid())
      selection->setCurrentLinear(key);
    else if (!tensor.isEmpty())
      selection->setCurrentTensor(tensor);
    if (!tensor.isEmpty() && m_tree->hasFocus()) Q_EMIT tensorChosen();
  });
  connect(m_tree, &QTreeView::clicked, this, [this](const QModelIndex& index) {
    if (!index.data(ModelTree::TensorRole).toString().isEmpty()) Q_EMIT tensorChosen();
  });
  connect(m_workbench->models(), &QAbstractItemModel::rowsInserted, this, [this](const QModelIndex& parent, int first, int last) {
    if (!parent.isValid())
      for (int row = first; row <= last; ++row) m_tree->expand(m_filter->mapFromSource(m_workbench->models()->index(row, 0)));
  });

  auto* box = new QWidget;
  auto* column = new QVBoxLayout(box);
  column->setContentsMargins(0, 0, 0, 0);
  column->setSpacing(2);
  column->addWidget(heading(tr("Models")));
  auto* line = new QHBoxLayout;
  line->setContentsMargins(6, 0, 6, 2);
  line->addWidget(m_search);
  column->addLayout(line);
  column->addWidget(m_noModels, 1);
  column->addWidget(m_noneFound);
  column->addWidget(m_tree, 1);
  m_facts = hint({});
  m_facts->setForegroundRole(QPalette::WindowText);
  m_facts->setContentsMargins(2, 0, 2, 0);
  m_facts->setMargin(6);
  m_facts->setTextInteractionFlags(Qt::TextSelectableByMouse);
  m_facts->setAccessibleName(tr("The current model"));
  column->addWidget(m_facts);
  return box;
}

QWidget* Explorer::makeRuns() {
  m_sorted = new RunFilter(m_workbench->selection(), m_workbench->runList(), this);
  m_runs = new QTableView;
  m_runs->setModel(m_sorted);
  m_runs->setItemDelegateForColumn(RunList::Shown, new EyeDelegate(m_runs));
  m_runs->setSelectionBehavior(QAbstractItemView::SelectRows);
  m_runs->setSelectionMode(QAbstractItemView::ExtendedSelection);
  m_runs->setSortingEnabled(true);
  m_runs->sortByColumn(-1, Qt::AscendingOrder);
  m_runs->setShowGrid(false);
  m_runs->setAlternatingRowColors(true);
  m_runs->setWordWrap(false);
  m_runs->setTabKeyNavigation(false);
  m_runs->setFrameShape(QFrame::NoFrame);
  m_runs->setAccessibleName(tr("Runs of the workspace"));
  m_runs->setContextMenuPolicy(Qt::CustomContextMenu);
  m_runs->setEditTriggers(QAbstractItemView::EditKeyPressed);
  m_runs->verticalHeader()->hide();
  m_runs->verticalHeader()->setDefaultSectionSize(m_runs->fontMetrics().height() + 8);
  QHeaderView* header = m_runs->horizontalHeader();
  header->setHighlightSections(false);
  header->setMinimumSectionSize(36);
  header->setSectionResizeMode(RunList::Name, QHeaderView::Stretch);
  for (int column : {RunList::Shown, RunList::Perplexity, RunList::Bits, RunList::Status}) header->setSectionResizeMode(column, QHeaderView::ResizeToContents);
  m_noRuns = hint({});
  m_noRunFound = hint(tr("No run matches. Words are looked for in names, schemes, pipelines and states."));
  m_searchRuns = new QLineEdit;
  m_searchRuns->setPlaceholderText(tr("Search runs"));
  m_searchRuns->setAccessibleName(tr("Search in the runs"));
  m_searchRuns->setClearButtonEnabled(true);
  m_searchRuns->addAction(icon(QStringLiteral("search")), QLineEdit::LeadingPosition);
  connect(m_searchRuns, &QLineEdit::textChanged, this, [this](const QString& text) {
    m_sorted->search(text);
    showEmpty();
  });

  connect(m_runs, &QWidget::customContextMenuRequested, this, &Explorer::runMenu);
  connect(m_runs->selectionModel(), &QItemSelectionModel::currentRowChanged, this, [this](const QModelIndex& index) {
    if (index.isValid()) m_workbench->makeCurrent(index.data(RunList::IdRole).toString());
  });
  connect(m_runs, &QTableView::doubleClicked, this, [this](const QModelIndex& index) {
    if (index.column() == RunList::Shown) return;
    m_workbench->show(index.data(RunList::IdRole).toString(), true);
    Q_EMIT pageRequested(QStringLiteral("layers"));
  });

  auto* remove = new QAction(tr("Delete runs"), m_runs);
  remove->setShortcut(QKeySequence::Delete);
  remove->setShortcutContext(Qt::WidgetShortcut);
  m_runs->addAction(remove);
  connect(remove, &QAction::triggered, this, [this] {
    if (const QStringList ids = selectedRuns(); !ids.isEmpty()) m_runMenu->remove(ids);
  });
  m_runMenu = new RunMenu(m_workbench, this);
  connect(m_runMenu, &RunMenu::compareRequested, this, &Explorer::compareRequested);
  connect(m_runMenu, &RunMenu::exportRequested, this, &Explorer::exportRequested);
  connect(m_runMenu, &RunMenu::logRequested, this, &Explorer::logRequested);
  connect(m_runMenu, &RunMenu::renameRequested, this, [this](const QString& id) {
    const QModelIndex place = m_sorted->mapFromSource(m_workbench->runList()->index(m_workbench->runList()->rowOf(id), RunList::Name));
    if (place.isValid()) m_runs->edit(place);
  });

  m_model = new QComboBox;
  m_model->setAccessibleName(tr("Model whose runs are shown"));
  m_model->setToolTip(tr("The model that is looked at: pages, baseline and “best” are about its runs only"));
  m_model->setSizeAdjustPolicy(QComboBox::AdjustToMinimumContentsLengthWithIcon);
  m_model->setMinimumContentsLength(6);
  connect(m_model, &QComboBox::activated, this, [this](int index) { m_workbench->selection()->setCurrentModel(m_model->itemData(index).toString()); });

  auto* compare = new QToolButton;
  compare->setIcon(icon(QStringLiteral("compare")));
  compare->setAccessibleName(tr("Compare selected runs"));
  compare->setAutoRaise(true);
  compare->setToolTip(tr("Show the selected runs, and no others, side by side (Ctrl+K)"));
  connect(compare, &QToolButton::clicked, this, [this] { Q_EMIT compareRequested(selectedRuns()); });

  auto* box = new QWidget;
  auto* column = new QVBoxLayout(box);
  column->setContentsMargins(0, 0, 0, 0);
  column->setSpacing(2);
  auto* head = new QHBoxLayout;
  head->addWidget(heading(tr("Runs of")));
  head->addWidget(m_model, 1);
  head->addWidget(compare);
  column->addLayout(head);
  auto* line = new QHBoxLayout;
  line->setContentsMargins(6, 0, 6, 2);
  line->addWidget(m_searchRuns);
  column->addLayout(line);
  column->addWidget(m_noRuns, 1);
  column->addWidget(m_noRunFound);
  column->addWidget(m_runs, 1);
  return box;
}

void Explorer::search(const QString& text) {
  m_filter->search(text);
  m_noneFound->setVisible(m_filter->rowCount() == 0 && !m_workbench->models()->models().empty());
  if (text.trimmed().isEmpty()) {
    m_tree->collapseAll();
    for (int row = 0; row < m_filter->rowCount(); ++row) m_tree->expand(m_filter->index(row, 0));
    return;
  }
  // Opening thousands of rows takes a while and helps nobody.
  int found = 0;
  for (int model = 0; model < m_filter->rowCount(); ++model) {
    const QModelIndex top = m_filter->index(model, 0);
    m_tree->expand(top);
    for (int block = 0; block < m_filter->rowCount(top) && found < 400; ++block) {
      const QModelIndex index = m_filter->index(block, 0, top);
      found += m_filter->rowCount(index);
      m_tree->expand(index);
    }
  }
}

void Explorer::focusSearch() {
  m_search->setFocus();
  m_search->selectAll();
}

QStringList Explorer::selectedRuns() const {
  QStringList ids;
  for (const QModelIndex& index : m_runs->selectionModel()->selectedRows()) ids << index.data(RunList::IdRole).toString();
  return ids;
}

void Explorer::modelMenu(const QPoint& place) {
  const QModelIndex index = m_tree->indexAt(place);
  QMenu menu(this);
  if (index.isValid()) {
    const QString path = index.data(ModelTree::PathRole).toString();
    menu.addAction(tr("New recipe for this model"), this, [this, path] {
      m_workbench->newRecipe();
      Recipe recipe = m_workbench->document()->recipe();
      recipe.model = path.toStdString();
      m_workbench->document()->setRecipe(recipe, QStringLiteral("model.path"), tr("Model"));
    });
    if (const auto linear = index.data(ModelTree::LinearRole).value<LinearKey>(); linear.isValid()) {
      m_workbench->selection()->setCurrentModel(m_workbench->selection()->modelAt(path));
      addBitsMenu(&menu, linear, [this](const LinearKey& key, int bits) { m_workbench->giveBits(key, bits); });
      menu.addSeparator();
    }
    const QString name = index.siblingAtColumn(ModelTree::Name).data().toString();
    menu.addAction(tr("Copy name"), this, [name] { QGuiApplication::clipboard()->setText(name); });
    menu.addAction(tr("Copy path"), this, [path] { QGuiApplication::clipboard()->setText(path); });
    menu.addSeparator();
    menu.addAction(tr("Close model"), this, [this, path] { m_workbench->closeModel(path); });
    menu.addSeparator();
  }
  menu.addAction(icon(QStringLiteral("open")), tr("Open model…"), this, &Explorer::openModelRequested);
  menu.exec(m_tree->viewport()->mapToGlobal(place));
}

void Explorer::runMenu(const QPoint& place) {
  const QModelIndex index = m_runs->indexAt(place);
  if (!index.isValid()) return;
  QMenu menu(this);
  m_runMenu->fill(&menu, index.data(RunList::IdRole).toString(), selectedRuns());
  menu.exec(m_runs->viewport()->mapToGlobal(place));
}

// What was chosen elsewhere is marked here too.
void Explorer::followSelection() {
  const Selection* selection = m_workbench->selection();
  const int row = m_workbench->runList()->rowOf(selection->currentRun());
  const QModelIndex run = m_sorted->mapFromSource(m_workbench->runList()->index(row, RunList::Name));
  if (run.isValid() && m_runs->currentIndex().row() != run.row()) {
    const QSignalBlocker quiet(m_runs->selectionModel());
    m_runs->setCurrentIndex(run);
    m_runs->scrollTo(run);  // which the view would do if it were told
    m_runs->viewport()->update();
  }
  const LinearKey key = selection->currentLinear();
  if (!key.isValid() || m_tree->currentIndex().data(ModelTree::LinearRole).value<LinearKey>() == key) return;  // other tensors are chosen here only
  const auto& models = m_workbench->models()->models();
  for (int m = 0; m < int(models.size()); ++m) {
    if (models[size_t(m)] != selection->openModel()) continue;
    const QModelIndex index = m_filter->mapFromSource(m_workbench->models()->indexOf(m, key));
    if (!index.isValid()) continue;
    m_tree->setCurrentIndex(index);
    m_tree->scrollTo(index);
    return;
  }
}

// The tree shows the current model, unless something of it is chosen already.
void Explorer::followModel() {
  const ModelPtr open = m_workbench->selection()->openModel();
  const auto& models = m_workbench->models()->models();
  for (int m = 0; open && m < int(models.size()); ++m) {
    if (models[size_t(m)] != open || m_tree->currentIndex().data(ModelTree::PathRole).toString() == QString::fromStdString(open->path.string())) continue;
    const QModelIndex index = m_filter->mapFromSource(m_workbench->models()->index(m, 0));
    if (!index.isValid()) continue;
    m_tree->expand(index);
    m_tree->setCurrentIndex(index);
    m_tree->scrollTo(index, QAbstractItemView::PositionAtTop);
  }
}

void Explorer::showModels() {
  const Selection* selection = m_workbench->selection();
  m_model->clear();
  for (const KnownModel& model : selection->models()) {
    m_model->addItem(model.runs == 0 ? model.name : tr("%1 (%2)").arg(model.name).arg(model.runs), model.key);
    m_model->setItemData(m_model->count() - 1, model.open ? modelToolTip(*model.open) : tr("%1, known by its runs; it is not open").arg(model.name), Qt::ToolTipRole);
  }
  m_model->setCurrentIndex(m_model->findData(selection->currentModel()));
  m_model->setEnabled(m_model->count() > 0);
  const ModelPtr open = selection->openModel();
  m_facts->setVisible(bool(open));
  if (open) {
    m_facts->setText(modelSummary(*open));
    m_facts->setToolTip(modelToolTip(*open));
  }
  showEmpty();
}

void Explorer::showEmpty() {
  constexpr int kMany = 8;  // runs that are seen at a glance
  const auto count = m_workbench->selection()->runsOfModel().size();
  const bool models = !m_workbench->models()->models().empty(), runs = count > 0;
  m_searchRuns->setVisible(count > kMany || !m_searchRuns->text().isEmpty());
  m_noRunFound->setVisible(runs && m_sorted->rowCount() == 0);
  m_noModels->setVisible(!models);
  m_tree->setVisible(models);
  m_search->setEnabled(models);
  const QString reading = m_workbench->readingText();
  m_noRuns->setText(reading.isEmpty() ? tr("No runs yet. Write a recipe and press Start run; each run appears here as it goes.") : reading);
  m_noRuns->setVisible(!runs);
  m_runs->setVisible(runs);
}

}  // namespace qb::views
