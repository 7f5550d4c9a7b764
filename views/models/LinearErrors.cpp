#include "views/models/LinearErrors.h"

#include <QCoreApplication>
#include <QLocale>
#include <QSet>
#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <string_view>
#include <unordered_map>

#include "core/method/method_info.h"
#include "views/models/Format.h"

namespace qb::views {
namespace {
constexpr double kMissing = std::numeric_limits<double>::quiet_NaN();
QString tr(const char* text) { return QCoreApplication::translate("LinearErrors", text); }
}  // namespace

int LinearErrors::rowOf(const LinearKey& key) const {
  const auto first = std::lower_bound(keys.begin(), keys.end(), key.block, [](const LinearKey& a, int block) { return a.block < block; });
  for (auto it = first; it != keys.end() && it->block == key.block; ++it)
    if (it->name == key.name) return int(it - keys.begin());
  return -1;
}

double LinearErrors::currentValue(int row) const { return current < 0 ? kMissing : runs[current].values[row]; }

double LinearErrors::delta(int row) const {
  return current < 0 || baseline < 0 ? kMissing : runs[current].values[row] - runs[baseline].values[row];
}

double LinearErrors::worsening(int row) const { return metricHigherIsBetter(metric) ? -delta(row) : delta(row); }

QStringList LinearErrors::subsetTypes() const {
  QStringList types;
  QSet<QString> seen;
  for (const QString& subset : subsets)
    if (!subset.isEmpty() && !seen.contains(subset)) {
      seen.insert(subset);
      types.push_back(subset);
    }
  return types;
}

QStringList LinearErrors::names() const {
  QStringList names;
  QSet<QString> seen;
  for (const LinearKey& key : keys)
    if (!seen.contains(key.name)) {
      seen.insert(key.name);
      names.push_back(key.name);
    }
  return names;
}

QVector<RunEntry> drawnRuns(const Selection& selection) {
  QVector<RunEntry> runs = selection.shownRuns();
  if (runs.isEmpty())
    if (const RunEntry* current = selection.find(selection.currentRun())) runs.push_back(*current);
  return runs;
}

Folding::Folding(const Selection& selection) : m_folds(drawnRuns(selection).size() > kMostColours), m_baseline(selection.baseline()) {
  if (const RunEntry* current = currentEntry(selection)) m_current = current->id;
}

const RunEntry* currentEntry(const Selection& selection) {
  if (const RunEntry* current = selection.find(selection.currentRun())) return current;
  for (const RunEntry& run : selection.shownRuns()) return selection.find(run.id);
  return nullptr;
}

LinearErrors gatherErrors(const Selection& selection) {
  LinearErrors errors;
  errors.metric = selection.metric();
  QVector<RunEntry> runs = drawnRuns(selection);
  const int drawn = int(runs.size());
  const auto add = [&runs](const RunEntry* run) {
    if (!run) return -1;
    const auto it = std::find_if(runs.begin(), runs.end(), [run](const RunEntry& other) { return other.id == run->id; });
    if (it != runs.end()) return int(it - runs.begin());
    runs.push_back(*run);
    return int(runs.size()) - 1;
  };
  errors.current = add(currentEntry(selection));
  errors.baseline = add(selection.find(selection.baseline()));

  // Rows: the union of all runs, so that partly finished runs lie beside whole ones.
  struct Block {
    QVector<QString> names;
    QVector<QString> subsets;
    std::unordered_map<std::string_view, int> rows;
  };
  std::map<int, Block> blocks;
  for (const RunEntry& run : runs)
    for (const BlockReport& block : run.report->blocks)
      for (const LinearReport& linear : block.linears) {
        Block& place = blocks[linear.block];
        const std::string_view name(linear.name);
        if (!place.rows.emplace(name, int(place.names.size())).second) continue;  // the view lives as long as the report, which `runs` holds
        place.names.push_back(QString::fromStdString(linear.name));
        place.subsets.push_back(QString::fromStdString(linear.subset));
      }
  const Folding folded(selection);
  std::map<int, int> firstRow;
  for (const auto& [number, block] : blocks) {
    firstRow[number] = int(errors.keys.size());
    for (const QString& name : block.names) errors.keys.push_back({number, name});
    for (const QString& subset : block.subsets) errors.subsets.push_back(subset);
  }
  for (const RunEntry& run : runs) {
    LinearErrors::Run values{run.id, runName(*run.report), run.colour, run.marker, errors.runs.size() < drawn, folded(run.id), QVector<double>(errors.keys.size(), kMissing)};
    for (const BlockReport& block : run.report->blocks)
      for (const LinearReport& linear : block.linears)
        values.values[firstRow[linear.block] + blocks[linear.block].rows.at(linear.name)] =
            metricValue(linear, errors.metric);
    errors.runs.push_back(std::move(values));
  }
  return errors;
}

const LinearReport* findLinear(const RunReport& report, const LinearKey& key) {
  if (!key.isValid()) return nullptr;
  const std::string name = key.name.toStdString();
  for (const BlockReport& block : report.blocks)
    for (const LinearReport& linear : block.linears)
      if (linear.block == key.block && linear.name == name) return &linear;
  return nullptr;
}

QString runName(const RunReport& report) { return QString::fromStdString(report.name.empty() ? report.id : report.name); }

QString linearTitle(const LinearKey& key) {
  return key.isValid() ? tr("Block %1 · %2").arg(key.block).arg(key.name) : QString();
}

QVector<int> orderedRows(const LinearErrors& errors, LinearOrder order, const QString& subset) {
  QVector<int> rows;
  for (int row = 0; row < errors.rows(); ++row)
    if (subset.isEmpty() || errors.subsets[row] == subset) rows.push_back(row);
  if (order == LinearOrder::Depth) return rows;
  const bool descending = order == LinearOrder::Delta || !metricHigherIsBetter(errors.metric);
  const auto badness = [&](int row) {
    const double value = order == LinearOrder::Delta ? errors.worsening(row) : errors.currentValue(row);
    if (!std::isfinite(value)) return -std::numeric_limits<double>::infinity();
    return descending ? value : -value;
  };
  std::stable_sort(rows.begin(), rows.end(), [&](int a, int b) { return badness(a) > badness(b); });
  return rows;
}

QString metricLabel(Metric metric) {
  const QString unit = metricUnit(metric);
  return unit.isEmpty() ? metricTitle(metric) : tr("%1 (%2)").arg(metricTitle(metric), unit);
}

// What stages of a run do to the coordinates of weights.
static bool leaves(const RunReport& report, Trace trace) {
  for (const QString& stage : QString::fromStdString(report.pipeline).split(QStringLiteral(" → ")))
    if (const MethodInfo* method = find_method(stage.toStdString()); method && method->contract.leaves.has(trace)) return true;
  return false;
}

QString weightBasis(const QVector<RunEntry>& runs, Metric metric) {
  if (metric != Metric::WeightMse && metric != Metric::WeightMaxError && metric != Metric::WeightSqnr) return {};
  bool scaled = false, rotated = false;
  for (const RunEntry& run : runs) {
    const bool turns = leaves(*run.report, Trace::transforms);
    rotated |= turns;
    scaled |= !turns && leaves(*run.report, Trace::scaled);
  }
  QStringList said;
  if (scaled) said << tr("weight errors are in the original basis; unimportant channels may carry large ones");
  if (rotated) said << tr("rotated weights are compared as they were rotated");
  return said.join(QStringLiteral("; "));
}

QString errorConditions(const Selection& selection) {
  const QVector<RunEntry> runs = drawnRuns(selection);
  if (runs.isEmpty()) return {};
  QString model;  // one: the current
  QSet<int64_t> tokens;
  for (const RunEntry& run : runs) {
    if (model.isEmpty()) model = QString::fromStdString(run.report->model_name);
    // Of the calibration text, as many as errors were measured on.
    if (!run.report->blocks.empty() && !run.report->blocks.front().linears.empty())
      if (const int64_t measured = run.report->blocks.front().linears.front().measured_tokens; measured > 0) tokens.insert(measured);
  }
  const QString calibration =
      tokens.isEmpty()     ? tr("against the float model")
      : tokens.size() == 1 ? tr("against the float model on %1 calibration tokens").arg(QLocale().toString(qlonglong(*tokens.begin())))
                           : tr("against the float model; calibration tokens differ between runs");
  const QString conditions = model.isEmpty() ? calibration : tr("%1, %2").arg(model, calibration);
  const QString basis = weightBasis(runs, selection.metric());
  return basis.isEmpty() ? conditions : conditions + QStringLiteral("; ") + basis;
}

}  // namespace qb::views
