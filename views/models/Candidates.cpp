#include "views/models/Candidates.h"

#include <QFont>
#include <QLocale>
#include <algorithm>

#include "core/exporting/formats.h"
#include "core/measure/evaluators.h"
#include "views/models/Format.h"

namespace qb::views {
namespace {

QString text(const std::string& value) { return QString::fromStdString(value); }

QString joined(const std::vector<std::string>& values) {
  QStringList list;
  for (const std::string& value : values) list << text(value);
  return list.join(QStringLiteral(", "));
}

QString rate(double tokens) { return QLocale().toString(tokens, 'f', tokens < 100 ? 1 : 0); }

// Evaluator and metric of a column that says how good a run is.
std::pair<const char*, const char*> metricOf(const RunColumn& column) {
  if (column.key == "kl") return {"divergence", "kl"};
  if (column.key == "acc") return {"task", "acc"};
  if (column.key == "acc_norm") return {"task", "acc_norm"};
  return {"perplexity", "perplexity"};
}

}  // namespace

void CandidateTable::setAnswer(const BestAnswerPtr& answer) {
  beginResetModel();
  m_answer = answer;
  m_order.clear();
  m_columns.clear();
  if (answer && !answer->found.runs.empty()) {
    const BestPractice& found = answer->found;
    for (int i = 0; i < int(found.runs.size()); ++i) m_order << i;
    const bool higher = found.measures.front()->higher_is_better;
    std::stable_sort(m_order.begin(), m_order.end(), [&](int a, int b) {
      const BestCandidate &x = found.runs[size_t(a)], &y = found.runs[size_t(b)];
      if ((a == found.chosen) != (b == found.chosen)) return a == found.chosen;
      if (x.front != y.front) return x.front;
      return higher ? x.values[0] > y.values[0] : x.values[0] < y.values[0];
    });
    m_columns << Column{Column::Name, 0, tr("Run"), tr("Choose one to see how it stands")};
    m_columns << Column{Column::Standing, 0, tr("Standing"), tr("A difference within twice its error, paired by window or item, counts as none")};
    for (size_t m = 0; m < found.measures.size(); ++m) m_columns << Column{Column::Measured, m, text(column_heading(*found.measures[m])), text(found.measures[m]->help)};
    if (answer->wanted.hardware) {
      const QString where = tr("Predicted on %1 by a roofline: an upper bound, good engines reach 60 to 85 % of it").arg(text(answer->wanted.hardware->title));
      m_columns << Column{Column::Decode, 0, tr("Decode (tok/s, predicted)"), where} << Column{Column::Prefill, 0, tr("Prefill (tok/s, predicted)"), where}
                << Column{Column::Memory, 0, tr("Memory (predicted)"), tr("Weights and the cache of all sequences")};
    }
    if (const EngineInfo* engine = find_engine(answer->wanted.engine)) m_columns << Column{Column::Formats, 0, tr("%1 loads it as").arg(text(engine->title)), tr("Formats in which it can be exported for this engine")};
  }
  endResetModel();
}

const BestCandidate* CandidateTable::candidate(int row) const {
  const int at = candidateIndex(row);
  return at < 0 ? nullptr : &m_answer->found.runs[size_t(at)];
}

int CandidateTable::rowOf(const QString& run) const {
  for (int row = 0; row < int(m_order.size()); ++row)
    if (text(candidate(row)->report.id) == run) return row;
  return -1;
}

int CandidateTable::chosenRow() const { return m_answer ? int(m_order.indexOf(m_answer->found.chosen)) : -1; }

QString CandidateTable::cell(const BestCandidate& one, int index, const Column& column) const {
  const BestPractice& found = m_answer->found;
  switch (column.kind) {
    case Column::Name: return text(one.report.name);
    case Column::Measured: return text(cell_text(*found.measures[column.measure], RunValue(one.values[column.measure])));
    case Column::Decode: return one.speed ? rate(one.speed->decode) : QStringLiteral("–");
    case Column::Prefill: return one.speed ? rate(one.speed->prefill) : QStringLiteral("–");
    case Column::Memory: return one.speed ? formatBytes(one.speed->memory_bytes) : QStringLiteral("–");
    case Column::Formats: return joined(one.formats);
    case Column::Standing:
      if (index == found.chosen) return tr("take this one");
      return one.front || one.beaten_by < 0 ? tr("not beaten") : tr("beaten by %1").arg(text(found.runs[size_t(one.beaten_by)].report.name));
  }
  return {};
}

QVariant CandidateTable::data(const QModelIndex& index, int role) const {
  if (!index.isValid()) return {};
  const Column& column = m_columns[index.column()];
  const BestCandidate* one = candidate(index.row());
  switch (role) {
    case Qt::DisplayRole: return cell(*one, candidateIndex(index.row()), column);
    case Qt::ToolTipRole: return standingText(*m_answer, candidateIndex(index.row()));
    case Qt::TextAlignmentRole:
      return int(Qt::AlignVCenter | (column.kind == Column::Measured || column.predicted() ? Qt::AlignRight : Qt::AlignLeft));
    case Qt::FontRole: {
      QFont font;
      if (candidateIndex(index.row()) == m_answer->found.chosen) font.setWeight(QFont::DemiBold);
      font.setItalic(column.predicted());  // nobody measured these
      return font;
    }
    default: return {};
  }
}

QVariant CandidateTable::headerData(int section, Qt::Orientation orientation, int role) const {
  if (orientation != Qt::Horizontal || section >= int(m_columns.size())) return {};
  if (role == Qt::DisplayRole) return m_columns[section].title;
  if (role == Qt::ToolTipRole) return m_columns[section].help;
  return {};
}

QString standingText(const BestAnswer& answer, int candidate) {
  const BestPractice& found = answer.found;
  const BestCandidate& one = found.runs[size_t(candidate)];
  QStringList lines{QStringLiteral("%1: %2").arg(text(one.report.name), text(values_text(one, found.measures)))};
  if (one.beaten_by >= 0) {
    const BestCandidate& better = found.runs[size_t(one.beaten_by)];
    QStringList by;
    for (const RunColumn* measure : found.measures) by << QStringLiteral("%1 %2").arg(text(column_heading(*measure)), text(difference_text(one.report, better.report, *measure)));
    lines << CandidateTable::tr("Beaten by %1; against it: %2").arg(text(better.report.name), by.join(QStringLiteral(", ")));
  }
  if (one.speed && answer.wanted.hardware) {
    const QString speed = text(speed_text(*one.speed, answer.wanted.hardware->title, answer.wanted.conditions));
    lines << speed.left(1).toUpper() + speed.mid(1);
  }
  if (size_t(candidate) < answer.calibrations.size())
    lines << (answer.calibrations[size_t(candidate)].empty() ? CandidateTable::tr("Reads no calibration text") : CandidateTable::tr("Calibrated on %1").arg(text(answer.calibrations[size_t(candidate)])));
  return lines.join(QLatin1Char('\n'));
}

Accuracy accuracyOf(const BestAnswer& answer, const Selection& selection) {
  Accuracy accuracy;
  if (answer.found.measures.empty()) return accuracy;
  const auto [evaluator, metric] = metricOf(*answer.found.measures.front());
  const EvaluatorInfo* info = find_evaluator(evaluator);
  if (const MetricInfo* known = find_metric(evaluator, metric)) {
    accuracy.title = text(known->title);
    accuracy.unit = text(known->unit);
    accuracy.higherIsBetter = known->higher_is_better;
  }
  accuracy.metric = metric;
  accuracy.byItem = info && info->data == EvaluationData::task;
  accuracy.floatName = info && info->against_float ? CandidateTable::tr("noise floor") : CandidateTable::tr("float model");
  for (const BestCandidate& one : answer.found.runs) {
    const RunEntry* entry = selection.find(text(one.report.id));
    if (!entry) continue;
    const EvaluationResult* result = find_evaluation(*entry->report, evaluator, false);
    if (!result) continue;
    accuracy.runs.push_back({entry->id, text(one.report.name), entry->colour, entry->marker, false, true, entry->report, result});
    if (accuracy.conditions.isEmpty()) accuracy.conditions = conditionsText(*result);
    if (accuracy.floatModel) continue;
    accuracy.floatModel = find_evaluation(*entry->report, evaluator, true);
    if (accuracy.floatModel) accuracy.floatOwner = entry->report;
  }
  return accuracy;
}

}  // namespace qb::views
