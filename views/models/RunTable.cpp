#include "views/models/RunTable.h"

#include <QFont>
#include <QLocale>
#include <algorithm>
#include <cmath>
#include <map>

#include "views/jobs/Background.h"
#include "views/models/Format.h"

namespace qb::views {
namespace {

constexpr int kSoon = 40, kOften = 400;  // ms: what the user does; what runs report
const QString kSlot = QStringLiteral("table of runs");

const RunColumn& columnAt(int column) { return run_columns()[size_t(column - 1)]; }

QString titleOf(const RunValue& value) {
  const std::string* text = std::get_if<std::string>(&value);
  return text ? QString::fromStdString(*text) : QString();
}

}  // namespace

RunTable::RunTable(Selection* selection, RunList* list, Background* background, QObject* parent) : QAbstractItemModel(parent), m_selection(selection), m_list(list), m_background(background) {
  m_timer.setSingleShot(true);
  connect(&m_timer, &QTimer::timeout, this, &RunTable::start);
  connect(selection, &Selection::runsChanged, this, [this] {
    tellAll(0, 0);  // eyes
    schedule(kSoon);
  });
  connect(selection, &Selection::baselineChanged, this, [this] { schedule(kSoon); });
  connect(selection, &Selection::runUpdated, this, &RunTable::runChanged);
  // What the queue says of a run stands in that list.
  connect(list, &RunList::dataChanged, this, [this](const QModelIndex& first, const QModelIndex& last) {
    if (first.row() == last.row()) runChanged(first.data(RunList::IdRole).toString());
  });
  schedule(kSoon);
}

int RunTable::columnOf(const char* key) {
  const auto& columns = run_columns();
  return 1 + int(std::find_if(columns.begin(), columns.end(), [&](const RunColumn& column) { return column.key == key; }) - columns.begin());
}

void RunTable::setQuery(const RunQuery& query) {
  m_query = query;
  schedule(kSoon);
}

void RunTable::setGrouping(const QString& key) {
  m_grouping = key;
  schedule(0);
}

void RunTable::sort(int column, Qt::SortOrder order) {
  m_column = column;
  m_order = order;
  schedule(0);
}

// The earlier wish counts: a table that is always told of news must be arranged at times.
void RunTable::schedule(int milliseconds) {
  if (!m_timer.isActive() || m_timer.remainingTime() > milliseconds) m_timer.start(milliseconds);
}

void RunTable::runChanged(const QString& id) {
  const auto place = m_places.constFind(id);
  if (place != m_places.constEnd()) Q_EMIT dataChanged(indexOf(id), indexOf(id, columnCount() - 1));
  schedule(kOften);
}

void RunTable::tellAll(int first, int last) {
  const auto tell = [&](const QModelIndex& parent) {
    if (const int rows = rowCount(parent); rows > 0) Q_EMIT dataChanged(index(0, first, parent), index(rows - 1, last, parent));
  };
  tell({});
  for (int group = 0; isGrouped() && group < rowCount(); ++group) tell(index(group, 0));
}

RunPtr RunTable::baseline() const {
  const RunEntry* run = m_selection->find(m_selection->baseline());
  return run ? run->report : RunPtr();
}

void RunTable::start() {
  Wanted wanted{m_query, m_grouping.toStdString(), m_column, m_order == Qt::DescendingOrder, m_selection->runs(), baseline()};
  m_background->run(
      kSlot, [wanted](const std::stop_token&) { return arrange(wanted); },
      [this, grouping = m_grouping](const QVector<Group>& groups) {
        if (m_applied == grouping && m_groups == groups) {
          tellAll(0, columnCount() - 1);
          return;
        }
        m_applied = grouping;
        apply(groups);
      },
      [](const QString&) {});
}

QVector<RunTable::Group> RunTable::arrange(const Wanted& wanted) {
  std::vector<const RunReport*> reports;
  for (auto run = wanted.runs.rbegin(); run != wanted.runs.rend(); ++run)  // newest first
    if (wanted.query.accepts(*run->report, wanted.baseline.get())) reports.push_back(run->report.get());
  if (wanted.column > 0) {
    sort_runs(reports, {{&columnAt(wanted.column), wanted.descending}}, wanted.baseline.get());
  } else if (wanted.column == 0) {
    QSet<QString> shown;
    for (const RunEntry& run : wanted.runs)
      if (run.shown) shown.insert(run.id);
    std::stable_sort(reports.begin(), reports.end(), [&](const RunReport* a, const RunReport* b) {
      const bool first = shown.contains(QString::fromStdString(a->id)), second = shown.contains(QString::fromStdString(b->id));
      return wanted.descending ? second < first : first < second;
    });
  }
  if (wanted.grouping.empty()) {
    Group all;
    for (const RunReport* report : reports) all.ids << QString::fromStdString(report->id);
    return {all};
  }
  struct Gathered {
    Group group;
    double lowest = std::numeric_limits<double>::infinity();
  };
  std::map<QString, Gathered> gathered;
  const RunColumn &by = run_column(wanted.grouping), &perplexity = run_column("ppl");
  for (const RunReport* report : reports) {
    Gathered& one = gathered[titleOf(by.value(*report, nullptr))];
    one.group.ids << QString::fromStdString(report->id);
    if (const RunValue value = perplexity.value(*report, nullptr); const double* figure = std::get_if<double>(&value))
      if (*figure < one.lowest) one.lowest = *figure;
  }
  QVector<Group> groups;
  for (auto& [title, one] : gathered) {
    one.group.title = title.isEmpty() ? tr("no %1").arg(QString::fromStdString(by.title).toLower()) : title;
    one.group.facts = one.group.ids.size() == 1 ? tr("1 run") : tr("%1 runs").arg(one.group.ids.size());
    if (std::isfinite(one.lowest)) one.group.facts += tr(", lowest perplexity %1").arg(QString::fromStdString(cell_text(perplexity, one.lowest)));
    if (title.isEmpty())
      groups.push_back(one.group);
    else
      groups.insert(groups.size() - (gathered.contains(QString()) ? 1 : 0), one.group);
  }
  return groups;
}

void RunTable::apply(const QVector<Group>& groups) {
  Q_EMIT aboutToArrange();
  beginResetModel();
  m_groups = groups;
  m_places.clear();
  m_shown = 0;
  for (int group = 0; group < int(m_groups.size()); ++group)
    for (int row = 0; row < int(m_groups[group].ids.size()); ++row, ++m_shown) m_places.insert(m_groups[group].ids[row], {group, row});
  endResetModel();
  Q_EMIT arranged();
}

QStringList RunTable::ids() const {
  QStringList ids;
  for (const Group& group : m_groups) ids += QStringList(group.ids);
  return ids;
}

// Groups have internal id 0, and so do the rows of a table without groups; a run inside of group g has g + 1.
QModelIndex RunTable::index(int row, int column, const QModelIndex& parent) const {
  if (row < 0 || row >= rowCount(parent) || column < 0 || column >= columnCount()) return {};
  return createIndex(row, column, parent.isValid() ? quintptr(parent.row() + 1) : quintptr(0));
}

QModelIndex RunTable::parent(const QModelIndex& child) const {
  return !child.isValid() || child.internalId() == 0 ? QModelIndex() : createIndex(int(child.internalId()) - 1, 0, quintptr(0));
}

int RunTable::rowCount(const QModelIndex& parent) const {
  if (!parent.isValid()) return isGrouped() ? int(m_groups.size()) : m_groups.isEmpty() ? 0 : int(m_groups[0].ids.size());
  return isGroup(parent) && parent.column() == 0 ? int(m_groups[parent.row()].ids.size()) : 0;
}

int RunTable::columnCount(const QModelIndex&) const { return 1 + int(run_columns().size()); }

QString RunTable::idAt(const QModelIndex& index) const {
  if (!index.isValid() || isGroup(index)) return {};
  return m_groups[isGrouped() ? int(index.internalId()) - 1 : 0].ids[index.row()];
}

QModelIndex RunTable::indexOf(const QString& id, int column) const {
  const auto place = m_places.constFind(id);
  if (place == m_places.constEnd()) return {};
  return createIndex(place->row, column, isGrouped() ? quintptr(place->group + 1) : quintptr(0));
}

QVariant RunTable::data(const QModelIndex& index, int role) const {
  if (!index.isValid()) return {};
  if (isGroup(index)) {
    if (index.column() != 0) return {};
    const Group& group = m_groups[index.row()];
    if (role == Qt::DisplayRole || role == Qt::AccessibleTextRole) return tr("%1   (%2)").arg(group.title, group.facts);
    if (role == Qt::FontRole) {
      QFont bold;
      bold.setBold(true);
      return bold;
    }
    return {};
  }
  const RunEntry* run = m_selection->find(idAt(index));
  if (!run) return {};
  const bool eye = index.column() == 0;
  const auto list = [&](RunList::Column column, int asked) { return m_list->index(m_list->rowOf(run->id), column).data(asked); };
  switch (role) {
    case RunList::IdRole: return run->id;
    case RunList::ColourRole: return run->colour;
    case RunList::MarkerRole: return run->marker;
    case RunList::ModelRole: return run->model;
    case Qt::CheckStateRole: return eye ? QVariant(run->shown ? Qt::Checked : Qt::Unchecked) : QVariant();
    case Qt::FontRole: {
      QFont font;
      font.setBold(run->id == m_selection->baseline());
      return font;
    }
  }
  if (eye) return role == Qt::AccessibleTextRole || role == Qt::ToolTipRole ? list(RunList::Shown, role) : QVariant();
  const RunColumn& column = columnAt(index.column());
  switch (role) {
    case Qt::DisplayRole:
    case Qt::AccessibleTextRole: {
      if (column.key == "status") return list(RunList::Status, Qt::DisplayRole);
      const RunPtr base = baseline();
      QString text = QString::fromStdString(cell_text(column, column.value(*run->report, base.get())));
      return text.replace(QLatin1Char('\n'), QLatin1Char(' '));
    }
    case Qt::EditRole:
      if (column.key == "notes") return QString::fromStdString(run->report->notes);
      if (column.key == "tags") {
        QStringList tags;
        for (const std::string& tag : run->report->tags) tags << QString::fromStdString(tag);
        return tags.join(QStringLiteral(", "));
      }
      return column.key == "name" ? QString::fromStdString(run->report->name) : QVariant();
    case Qt::ToolTipRole:
      if (column.key == "notes" || column.key == "error" || column.key == "text") return data(index, Qt::DisplayRole);
      return runToolTip(*run->report, run->owner);
    case Qt::TextAlignmentRole: return int((column.kind == RunColumnKind::figure ? Qt::AlignRight : Qt::AlignLeft) | Qt::AlignVCenter);
  }
  return {};
}

bool RunTable::setData(const QModelIndex& index, const QVariant& value, int role) {
  const QString id = idAt(index);
  if (id.isEmpty()) return false;
  if (role == Qt::CheckStateRole && index.column() == 0) {
    Q_EMIT showRequested(id, value.toInt() == Qt::Checked);
    return true;
  }
  if (role != Qt::EditRole || index.column() == 0 || value == data(index, Qt::EditRole)) return false;
  const std::string& key = columnAt(index.column()).key;
  const QString text = value.toString().trimmed();
  if (key == "notes") {
    Q_EMIT notesRequested(id, text);
  } else if (key == "tags") {
    std::vector<std::string> tags;
    for (const QString& tag : text.split(QLatin1Char(','), Qt::SkipEmptyParts)) tags.push_back(tag.trimmed().toStdString());
    Q_EMIT tagsRequested(id, tags);
  } else if (key == "name" && !text.isEmpty()) {
    Q_EMIT renameRequested(id, text);
  } else {
    return false;
  }
  return true;
}

Qt::ItemFlags RunTable::flags(const QModelIndex& index) const {
  if (!index.isValid()) return Qt::NoItemFlags;
  if (isGroup(index)) return Qt::ItemIsEnabled;
  Qt::ItemFlags flags = Qt::ItemIsEnabled | Qt::ItemIsSelectable | Qt::ItemNeverHasChildren;
  if (index.column() == 0) return flags | Qt::ItemIsUserCheckable;
  const std::string& key = columnAt(index.column()).key;
  return key == "name" || key == "tags" || key == "notes" ? flags | Qt::ItemIsEditable : flags;
}

QVariant RunTable::headerData(int section, Qt::Orientation orientation, int role) const {
  if (orientation != Qt::Horizontal || section < 0 || section >= columnCount()) return {};
  if (section == 0) return role == Qt::ToolTipRole ? tr("Shown in plots, and the run's colour") : role == Qt::AccessibleTextRole ? tr("Shown") : role == Qt::DisplayRole ? QVariant(QString()) : QVariant();
  const RunColumn& column = columnAt(section);
  switch (role) {
    case Qt::DisplayRole: return QString::fromStdString(column_heading(column));
    case Qt::ToolTipRole: return tr("%1. In the filter: %2").arg(QString::fromStdString(column.help), QString::fromStdString(column.key));
    case Qt::TextAlignmentRole: return int((column.kind == RunColumnKind::figure ? Qt::AlignRight : Qt::AlignLeft) | Qt::AlignVCenter);
  }
  return {};
}

}  // namespace qb::views
