#include "views/models/FactsModel.h"

#include <QCoreApplication>
#include <QDateTime>
#include <QLocale>
#include <algorithm>

#include "core/measure/evaluators.h"
#include "views/models/Accuracy.h"
#include "views/models/Format.h"
#include "views/models/LinearErrors.h"
#include "views/models/RunList.h"
#include "views/plots/PlotStyle.h"

namespace qb::views {
namespace {

QString tr(const char* text) { return QCoreApplication::translate("FactsModel", text); }

QString text(const std::string& value) { return QString::fromStdString(value); }

// Beside figures of two runs, in the inspector's width.
QString shortMetric(Metric metric) {
  switch (metric) {
    case Metric::OutputRelativeError: return tr("Output error");
    case Metric::OutputSqnr: return tr("Output dB");
    case Metric::OutputCosine: return tr("Output cosine");
    case Metric::WeightMse: return tr("Weight MSE");
    case Metric::WeightMaxError: return tr("Weight max.");
    case Metric::WeightSqnr: return tr("Weight dB");
    case Metric::WeightKurtosis: return tr("W. kurtosis");
    case Metric::InputKurtosis: return tr("In. kurtosis");
    case Metric::Seconds: return tr("Time (s)");
  }
  return {};
}

}  // namespace

QVector<Fact> runFacts(const RunReport& report, const QString& owner) {
  QVector<Fact> facts;
  const auto add = [&facts](const QString& name, const QString& value, const QString& toolTip = {}) {
    if (!value.isEmpty()) facts.push_back({name, value, toolTip});
  };
  add(tr("Status"), owner.isEmpty() ? runStatusText(report.status) : tr("Running elsewhere (%1)").arg(owner));
  add(tr("Error"), text(report.error));
  add(tr("Model"), text(report.model_name), text(report.model_path));
  add(tr("Scheme"), text(report.scheme));
  add(tr("Pipeline"), text(report.pipeline));
  for (const EvaluationResult& result : report.evaluations) {
    const EvaluatorInfo* evaluator = find_evaluator(result.evaluator);
    for (const qb::Metric& metric : result.metrics) {
      const bool first = &metric == &result.metrics.front();
      // Of what stands beside the quantized model its first figure is enough.
      if (!first && (result.float_model || !evaluator || std::find(evaluator->headline.begin(), evaluator->headline.end(), metric.name) == evaluator->headline.end())) continue;
      const MetricInfo* info = find_metric(result.evaluator, metric.name);
      const QString title = info ? text(info->title) : text(metric.name);
      QString value = metric.value >= 1e-3 ? formatPerplexity(metric.value) : formatNumber(metric.value);
      if (metric.standard_error != 0) value = tr("%1 ± %2").arg(value, formatNumber(metric.standard_error, 2));
      if (info && !info->unit.empty()) value += QLatin1Char(' ') + text(info->unit);
      if (first) value += QLatin1Char('\n') + conditionsText(result);
      add(result.float_model ? tr("%1, %2").arg(title, text(subject_text(result))) : title, value, info ? tr("%1. ± one standard error").arg(text(info->help)) : QString());
    }
  }
  if (report.bits_per_weight > 0)
    add(tr("Bits per weight"), formatNumber(report.bits_per_weight), tr("Of the quantized linears, scales and zero points included"));
  if (report.quantized_bytes > 0) {
    QString size = formatBytes(double(report.quantized_bytes));
    if (report.float_bytes > 0)
      size = tr("%1 of %2 (%3×)").arg(size, formatBytes(double(report.float_bytes)),
                                      formatNumber(double(report.float_bytes) / double(report.quantized_bytes), 3));
    add(tr("Size of linears"), size, tr("All linears in blocks, quantized and as float"));
  }
  for (const LinearReport& matrix : report.vocabulary)
    add(matrix.name == "lm_head" ? tr("Head") : text(matrix.name), tr("%1, %2 bits").arg(text(matrix.scheme), formatNumber(matrix.bits_per_weight)), text(matrix.note));
  if (report.model_bytes > 0) {
    QString size = formatBytes(double(report.model_bytes));
    if (report.model_float_bytes > 0)
      size = tr("%1 of %2 (%3×)").arg(size, formatBytes(double(report.model_float_bytes)), formatNumber(double(report.model_float_bytes) / double(report.model_bytes), 3));
    add(tr("Size of model"), size, tr("All tensors: linears, embedding and head in codes or as they are stored, norms"));
  }
  if (report.quantize_seconds > 0) add(tr("Quantize time"), formatDuration(report.quantize_seconds));
  if (report.evaluate_seconds > 0) add(tr("Evaluate time"), formatDuration(report.evaluate_seconds));
  if (!report.costs.empty()) {
    double processor = 0, device = 0;
    QStringList stages;
    for (const StageCost& cost : report.costs) {
      processor += cost.cpu_seconds;
      device += cost.device_seconds;
      QString line = tr("%1: %2, %3 of the processor, at most %4").arg(text(cost.stage), formatDuration(cost.seconds), formatDuration(cost.cpu_seconds), formatBytes(double(cost.peak_rss_bytes)));
      if (cost.peak_device_bytes > 0) line += tr(", %1 of the GPU").arg(formatBytes(double(cost.peak_device_bytes)));
      stages << line;
    }
    add(tr("Processor time"), formatDuration(processor), stages.join(QLatin1Char('\n')));
    if (device > 0) add(tr("GPU held"), formatDuration(device), tr("Time for which the run had the GPU to itself"));
    const auto costliest = std::max_element(report.costs.begin(), report.costs.end(), [](const StageCost& a, const StageCost& b) { return a.seconds < b.seconds; });
    add(tr("Longest stage"), tr("%1, %2").arg(text(costliest->stage), formatDuration(costliest->seconds)), stages.join(QLatin1Char('\n')));
  }
  if (report.peak_rss_bytes > 0) add(tr("Peak memory"), formatBytes(double(report.peak_rss_bytes)));
  if (report.peak_device_bytes > 0) add(tr("Peak GPU memory"), formatBytes(double(report.peak_device_bytes)));
  if (report.calibration_tokens > 0) add(tr("Calibration"), tr("%1 tokens").arg(QLocale().toString(qlonglong(report.calibration_tokens))));
  if (report.statistics_cached_blocks > 0)
    add(tr("Cached statistics"), tr("%1 blocks").arg(report.statistics_cached_blocks), tr("Collected by an earlier run on the same model and text"));
  if (!report.blocks.empty()) add(tr("Blocks measured"), QString::number(report.blocks.size()));
  add(tr("Seed"), QString::number(report.seed));
  const auto time = [&add](const QString& name, const std::string& iso) {
    const QDateTime moment = QDateTime::fromString(text(iso), Qt::ISODate);
    add(name, moment.isValid() ? tr("%1 UTC").arg(moment.toUTC().toString(QStringLiteral("yyyy-MM-dd HH:mm"))) : text(iso), text(iso));
  };
  time(tr("Started"), report.started);
  time(tr("Finished"), report.finished);
  const Environment& machine = report.environment;
  if (!machine.device.empty() || !machine.cpu.empty())
    add(tr("Hardware"), tr("%1\n%2, %3 threads").arg(text(machine.device), text(machine.cpu)).arg(machine.threads), text(machine.host));
  if (!machine.program_version.empty())
    add(tr("Versions"), tr("LLM-QBench %1, libtorch %2").arg(text(machine.program_version), text(machine.torch_version)));
  const auto hash = [&add](const QString& name, const std::string& value) { add(name, text(value).left(12), text(value)); };
  hash(tr("Model hash"), report.model_hash);
  hash(tr("Data hash"), report.calibration_hash);
  hash(tr("Recipe hash"), report.recipe_hash);
  return facts;
}

QVector<Fact> linearFacts(const LinearReport& linear) {
  QVector<Fact> facts;
  facts.push_back({tr("Shape"), tr("%1 × %2").arg(linear.out_features).arg(linear.in_features), tr("Output features × input features")});
  if (!linear.subset.empty()) facts.push_back({tr("Subset"), text(linear.subset), tr("Linears that share one input")});
  facts.push_back({tr("Scheme"), text(linear.scheme), {}});
  if (linear.bits_per_weight > 0) facts.push_back({tr("Bits per weight"), formatNumber(linear.bits_per_weight), tr("Scales and zero points included")});
  return facts;
}

QVector<Fact> tensorFacts(const TensorSummary& summary) {
  QStringList sizes;
  for (const int64_t size : summary.shape) sizes << QString::number(size);
  QVector<Fact> facts{{tr("Shape"), sizes.join(QStringLiteral(" × ")), {}}, {tr("Stored as"), text(summary.dtype), {}}};
  facts.push_back({tr("Values"), QLocale().toString(qlonglong(summary.values)), {}});
  if (summary.not_finite > 0) facts.push_back({tr("Not finite"), QLocale().toString(qlonglong(summary.not_finite)), tr("NaN or infinite; left out of all other figures")});
  facts.push_back({tr("Mean"), formatNumber(summary.mean), {}});
  facts.push_back({tr("Deviation"), formatNumber(summary.deviation), tr("Standard deviation of all values")});
  facts.push_back({tr("Largest |w|"), formatNumber(summary.abs_max), {}});
  facts.push_back({tr("Kurtosis"), formatNumber(summary.kurtosis), tr("3 for normally distributed values; larger: more of them far out")});
  facts.push_back({tr("Outliers"), tr("%1 % beyond %2 deviations").arg(formatNumber(100 * summary.outlier_share, 3)).arg(kOutlierDeviations),
                   tr("Share of values farther than %1 standard deviations from the mean").arg(kOutlierDeviations)});
  return facts;
}

void FactsModel::setFacts(const QVector<Fact>& facts) {
  if (facts == m_facts) return;
  if (facts.size() == m_facts.size()) {
    m_facts = facts;
    if (!facts.isEmpty()) Q_EMIT dataChanged(index(0, 0), index(int(facts.size()) - 1, 1));
    return;
  }
  beginResetModel();
  m_facts = facts;
  endResetModel();
}

int FactsModel::rowCount(const QModelIndex& parent) const { return parent.isValid() ? 0 : int(m_facts.size()); }

int FactsModel::columnCount(const QModelIndex& parent) const { return parent.isValid() ? 0 : 2; }

QVariant FactsModel::data(const QModelIndex& index, int role) const {
  if (!index.isValid()) return {};
  const Fact& fact = m_facts[index.row()];
  if (role == Qt::DisplayRole) return index.column() == 0 ? fact.name : fact.value;
  if (role == Qt::ToolTipRole && !fact.toolTip.isEmpty()) return fact.toolTip;
  if (role == Qt::TextAlignmentRole) return int(Qt::AlignLeft | Qt::AlignTop);
  return {};
}

QVariant FactsModel::headerData(int section, Qt::Orientation orientation, int role) const {
  if (orientation != Qt::Horizontal || role != Qt::DisplayRole) return {};
  return section == 0 ? tr("Fact") : tr("Value");
}

void LinearNumbersModel::setRuns(const QVector<RunEntry>& runs, const LinearKey& key) {
  const bool same = runs.size() == m_runs.size();
  if (!same) beginResetModel();
  m_runs = runs;
  m_linears.clear();
  for (const RunEntry& run : runs) m_linears.push_back(findLinear(*run.report, key));
  if (!same) {
    endResetModel();
  } else if (!runs.isEmpty()) {
    Q_EMIT dataChanged(index(0, 0), index(rowCount() - 1, columnCount() - 1));
    Q_EMIT headerDataChanged(Qt::Horizontal, 0, columnCount() - 1);
  }
}

int LinearNumbersModel::rowCount(const QModelIndex& parent) const { return parent.isValid() ? 0 : int(allMetrics().size()) + 1; }

int LinearNumbersModel::columnCount(const QModelIndex& parent) const { return parent.isValid() ? 0 : int(m_runs.size()); }

QVariant LinearNumbersModel::data(const QModelIndex& index, int role) const {
  if (!index.isValid()) return {};
  const LinearReport* linear = m_linears[index.column()];
  if (role == Qt::TextAlignmentRole) return int(Qt::AlignRight | Qt::AlignVCenter);
  if (role == Qt::ToolTipRole)
    return QStringLiteral("%1, %2: %3").arg(headerData(index.column(), Qt::Horizontal, Qt::ToolTipRole).toString(),
                                            headerData(index.row(), Qt::Vertical, Qt::ToolTipRole).toString(),
                                            data(index, Qt::DisplayRole).toString());
  if (role != Qt::DisplayRole) return {};
  if (!linear) return QStringLiteral("–");
  if (index.row() == 0) return formatNumber(linear->bits_per_weight);
  return formatNumber(metricValue(*linear, allMetrics()[index.row() - 1]));
}

QVariant LinearNumbersModel::headerData(int section, Qt::Orientation orientation, int role) const {
  if (orientation == Qt::Vertical) {
    if (section < 0 || section >= rowCount()) return {};
    if (role == Qt::DisplayRole) return section == 0 ? tr("Bits/weight") : shortMetric(allMetrics()[section - 1]);
    if (role == Qt::ToolTipRole || role == Qt::AccessibleTextRole) return section == 0 ? tr("Bits per weight") : metricLabel(allMetrics()[section - 1]);
    return {};
  }
  if (section < 0 || section >= m_runs.size()) return {};
  const RunEntry& run = m_runs[section];
  if (role == Qt::DisplayRole) return elide(runName(*run.report), 9);
  if (role == Qt::ToolTipRole || role == Qt::AccessibleTextRole) return runName(*run.report);
  if (role == Qt::DecorationRole) return markerPixmap(run.colour, markerOf(run.colour, run.marker), 12, 2);
  return {};
}

}  // namespace qb::views
