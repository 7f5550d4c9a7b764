#include "views/models/Selection.h"

#include <QDir>
#include <QFileInfo>
#include <QSet>
#include <algorithm>
#include <array>

namespace qb::views {
namespace {

// Okabe & Ito's colour-blind-safe set without black and yellow, which vanish on one of the two themes.
constexpr std::array<QRgb, 6> kColours = {0xff0072b2, 0xffd55e00, 0xff009e73, 0xffcc79a7, 0xffe69f00, 0xff56b4e9};

}  // namespace

QVector<Metric> allMetrics() {
  return {Metric::OutputRelativeError, Metric::OutputSqnr, Metric::OutputCosine,   Metric::WeightMse, Metric::WeightMaxError,
          Metric::WeightSqnr,          Metric::WeightKurtosis, Metric::InputKurtosis, Metric::Seconds};
}

QString metricTitle(Metric metric) {
  switch (metric) {
    case Metric::OutputRelativeError: return Selection::tr("Output relative error");
    case Metric::OutputSqnr: return Selection::tr("Output SQNR");
    case Metric::OutputCosine: return Selection::tr("Output cosine similarity");
    case Metric::WeightMse: return Selection::tr("Weight MSE");
    case Metric::WeightMaxError: return Selection::tr("Weight maximum error");
    case Metric::WeightSqnr: return Selection::tr("Weight SQNR");
    case Metric::WeightKurtosis: return Selection::tr("Weight kurtosis");
    case Metric::InputKurtosis: return Selection::tr("Input kurtosis");
    case Metric::Seconds: return Selection::tr("Time");
  }
  return {};
}

QString metricUnit(Metric metric) {
  switch (metric) {
    case Metric::OutputSqnr:
    case Metric::WeightSqnr: return QStringLiteral("dB");
    case Metric::Seconds: return QStringLiteral("s");
    default: return {};
  }
}

double metricValue(const LinearReport& linear, Metric metric) {
  switch (metric) {
    case Metric::OutputRelativeError: return linear.output_relative_error;
    case Metric::OutputSqnr: return linear.output_sqnr_db;
    case Metric::OutputCosine: return linear.output_cosine;
    case Metric::WeightMse: return linear.weight_mse;
    case Metric::WeightMaxError: return linear.weight_max_error;
    case Metric::WeightSqnr: return linear.weight_sqnr_db;
    case Metric::WeightKurtosis: return linear.weight_kurtosis;
    case Metric::InputKurtosis: return linear.input_kurtosis;
    case Metric::Seconds: return linear.seconds;
  }
  return 0;
}

bool metricIsLogarithmic(Metric metric) {
  return metric != Metric::OutputSqnr && metric != Metric::WeightSqnr && metric != Metric::OutputCosine && metric != Metric::Seconds;
}

bool metricHigherIsBetter(Metric metric) {
  return metric == Metric::OutputSqnr || metric == Metric::WeightSqnr || metric == Metric::OutputCosine;
}

Selection::Selection(QObject* parent) : QObject(parent) {}

QVector<RunEntry> Selection::runsOfModel() const {
  QVector<RunEntry> runs;
  std::copy_if(m_runs.begin(), m_runs.end(), std::back_inserter(runs), [this](const RunEntry& run) { return run.model == m_currentModel; });
  return runs;
}

QVector<RunEntry> Selection::shownRuns() const {
  QVector<RunEntry> shown = runsOfModel();
  shown.erase(std::remove_if(shown.begin(), shown.end(), [](const RunEntry& run) { return !run.shown; }), shown.end());
  return shown;
}

const RunEntry* Selection::find(const QString& id) const { return const_cast<Selection*>(this)->entry(id); }

RunEntry* Selection::entry(const QString& id) {
  const auto row = m_rows.constFind(id);
  return row == m_rows.constEnd() ? nullptr : &m_runs[*row];
}

void Selection::indexRuns() {
  m_rows.clear();
  for (int row = 0; row < int(m_runs.size()); ++row) m_rows.insert(m_runs[row].id, row);
}

const Selection::Chosen& Selection::chosen() const {
  static const Chosen nothing;
  const auto it = m_chosen.constFind(m_currentModel);
  return it == m_chosen.constEnd() ? nothing : *it;
}

QString Selection::modelAt(const QString& path) const {
  const QString clean = QDir::cleanPath(path);
  const QString hash = m_hashes.value(clean);
  return hash.isEmpty() ? clean : hash;
}

QString Selection::keyOf(const RunReport& report) const {
  return report.model_hash.empty() ? modelAt(QString::fromStdString(report.model_path)) : QString::fromStdString(report.model_hash);
}

QVector<KnownModel> Selection::models() const {
  QVector<KnownModel> models;
  const auto known = [&](const QString& key) -> KnownModel& {
    const auto it = std::find_if(models.begin(), models.end(), [&](const KnownModel& model) { return model.key == key; });
    if (it != models.end()) return *it;
    models.push_back({key, {}, {}, 0});
    return models.back();
  };
  for (const ModelPtr& model : m_open) {
    KnownModel& one = known(modelAt(QString::fromStdString(model->path.string())));
    one.open = model;
    one.name = QString::fromStdString(model->name);
  }
  for (const RunEntry& run : m_runs) {
    KnownModel& one = known(run.model);
    ++one.runs;
    if (one.name.isEmpty() || !one.open) one.name = QString::fromStdString(run.report->model_name);
    if (one.name.isEmpty()) one.name = QFileInfo(QString::fromStdString(run.report->model_path)).fileName();
  }
  // Two models of one name, such as one that was changed on disk, are told apart by their hashes.
  const QVector<KnownModel> all = models;
  for (KnownModel& model : models)
    if (std::count_if(all.begin(), all.end(), [&](const KnownModel& other) { return other.name == model.name; }) > 1)
      model.name = tr("%1 (%2)").arg(model.name, QFileInfo(model.key).fileName().left(8));
  std::sort(models.begin(), models.end(), [](const KnownModel& a, const KnownModel& b) { return a.name.localeAwareCompare(b.name) < 0; });
  return models;
}

ModelPtr Selection::openModel() const {
  for (const ModelPtr& model : m_open)
    if (modelAt(QString::fromStdString(model->path.string())) == m_currentModel) return model;
  return {};
}

// Runs that wait have no hash yet: they belong to the model that is at their path.
bool Selection::learnHash(const QString& path, const QString& hash) {
  const QString clean = QDir::cleanPath(path);
  if (clean.isEmpty() || hash.isEmpty() || m_hashes.value(clean) == hash) return false;
  const QString old = modelAt(clean);
  m_hashes[clean] = hash;
  for (RunEntry& run : m_runs)
    if (run.report->model_hash.empty()) run.model = keyOf(*run.report);
  if (old != clean) return true;
  if (const auto it = m_chosen.find(old); it != m_chosen.end()) {
    if (!m_chosen.contains(hash)) m_chosen.insert(hash, *it);
    m_chosen.remove(old);
  }
  if (m_currentModel == old) m_currentModel = hash;
  return true;
}

int Selection::freeStyle(const QString& model) const {
  for (int style = 0;; ++style)
    if (std::none_of(m_runs.begin(), m_runs.end(), [&](const RunEntry& run) { return run.model == model && run.style == style; })) return style;
}

void Selection::putRun(const RunPtr& report) { putRuns({report}); }

void Selection::putRuns(const QVector<RunPtr>& reports) {
  bool changed = false;
  QStringList updated;
  QString first;  // model of the first new run
  for (const RunPtr& report : reports) {
    if (!report) continue;
    const QString id = QString::fromStdString(report->id);
    // What is at a path now is told by the open model, and by a run only where nobody else does: it may be an old one.
    const QString path = QString::fromStdString(report->model_path);
    const bool regrouped = !m_hashes.contains(QDir::cleanPath(path)) && learnHash(path, QString::fromStdString(report->model_hash));
    const QString model = keyOf(*report);
    if (RunEntry* known = entry(id)) {
      changed = changed || regrouped || known->model != model;
      known->report = report;
      known->model = model;
      updated << id;
      continue;
    }
    const int style = report->style >= 0 ? report->style : freeStyle(model);
    m_rows.insert(id, int(m_runs.size()));
    m_runs.push_back({id, report, QColor(kColours[style % kColours.size()]), style / int(kColours.size()), style, false, model, {}});
    if (first.isEmpty()) first = model;
    changed = true;
  }
  for (const QString& id : updated) Q_EMIT runUpdated(id);
  if (m_currentModel.isEmpty() && !first.isEmpty()) setCurrentModel(first);
  if (!changed) return;
  Q_EMIT modelsChanged();
  Q_EMIT runsChanged();
}

void Selection::removeRun(const QString& id) { removeRuns({id}); }

void Selection::removeRuns(const QStringList& ids) {
  const QSet<QString> gone(ids.begin(), ids.end());
  if (m_runs.removeIf([&](const RunEntry& run) { return gone.contains(run.id); }) == 0) return;
  indexRuns();
  const Chosen before = chosen();
  for (Chosen& its : m_chosen) {
    if (gone.contains(its.run)) its.run.clear();
    if (gone.contains(its.baseline)) its.baseline.clear();
  }
  if (before.run != chosen().run) Q_EMIT currentRunChanged();
  if (before.baseline != chosen().baseline) Q_EMIT baselineChanged();
  leaveUnknownModel();
  Q_EMIT modelsChanged();
  Q_EMIT runsChanged();
}

void Selection::putModel(const ModelPtr& model) {
  const QString path = QDir::cleanPath(QString::fromStdString(model->path.string()));
  m_open.erase(std::remove_if(m_open.begin(), m_open.end(), [&](const ModelPtr& other) { return QDir::cleanPath(QString::fromStdString(other->path.string())) == path; }), m_open.end());
  m_open.push_back(model);
  const bool regrouped = learnHash(path, QString::fromStdString(model->hash));
  if (m_currentModel.isEmpty()) setCurrentModel(modelAt(path));
  Q_EMIT modelsChanged();
  if (regrouped) Q_EMIT runsChanged();
}

void Selection::removeModel(const QString& path) {
  m_open.erase(std::remove_if(m_open.begin(), m_open.end(), [&](const ModelPtr& model) { return QString::fromStdString(model->path.string()) == path; }), m_open.end());
  leaveUnknownModel();
  Q_EMIT modelsChanged();
}

// A model that is neither open nor has runs is no longer there to look at.
void Selection::leaveUnknownModel() {
  const QVector<KnownModel> all = models();
  if (std::any_of(all.begin(), all.end(), [this](const KnownModel& model) { return model.key == m_currentModel; })) return;
  setCurrentModel(all.isEmpty() ? QString() : all.front().key);
}

void Selection::setCurrentModel(const QString& key) {
  if (m_currentModel == key) return;
  const Chosen before = chosen();
  m_currentModel = key;
  const Chosen& now = chosen();
  Q_EMIT currentModelChanged();
  Q_EMIT runsChanged();
  if (before.run != now.run) Q_EMIT currentRunChanged();
  if (before.baseline != now.baseline) Q_EMIT baselineChanged();
  if (!(before.linear == now.linear) || before.tensor != now.tensor) Q_EMIT currentLinearChanged();
}

void Selection::setShown(const QString& id, bool shown) {
  RunEntry* run = entry(id);
  if (!run || run->shown == shown) return;
  run->shown = shown;
  Q_EMIT runsChanged();
}

void Selection::setCurrentRun(const QString& id) {
  const RunEntry* run = find(id);
  if (!id.isEmpty() && !run) return;
  const QString model = run ? run->model : m_currentModel;
  if (m_chosen[model].run == id && model == m_currentModel) return;
  m_chosen[model].run = id;
  if (model != m_currentModel) return setCurrentModel(model);
  Q_EMIT currentRunChanged();
}

void Selection::setBaseline(const QString& id) {
  if (const RunEntry* run = find(id); !id.isEmpty() && (!run || run->model != m_currentModel)) return;
  if (m_chosen[m_currentModel].baseline == id) return;
  m_chosen[m_currentModel].baseline = id;
  Q_EMIT baselineChanged();
}

void Selection::setCurrentLinear(const LinearKey& key) {
  Chosen& its = m_chosen[m_currentModel];
  if (its.linear == key && its.tensor.isEmpty()) return;
  its.linear = key;
  its.tensor.clear();
  Q_EMIT currentLinearChanged();
}

void Selection::setCurrentTensor(const QString& tensor) {
  Chosen& its = m_chosen[m_currentModel];
  if (its.tensor == tensor && !its.linear.isValid()) return;
  its.linear = {};
  its.tensor = tensor;
  Q_EMIT currentLinearChanged();
}

QString Selection::currentTensor() const {
  const Chosen& its = chosen();
  const ModelPtr open = openModel();
  if (!open) return {};
  if (!its.linear.isValid()) return its.tensor;
  for (const BlockInfo& block : open->blocks)
    if (block.index == its.linear.block)
      for (const LinearInfo& linear : block.linears)
        if (QString::fromStdString(linear.name) == its.linear.name) return QString::fromStdString(linear.tensor);
  return {};
}

void Selection::setOwner(const QString& id, const QString& owner) {
  RunEntry* run = entry(id);
  if (!run || run->owner == owner) return;
  run->owner = owner;
  Q_EMIT runUpdated(id);
}

void Selection::setMetric(Metric metric) {
  if (m_metric == metric) return;
  m_metric = metric;
  Q_EMIT metricChanged();
}

}  // namespace qb::views
