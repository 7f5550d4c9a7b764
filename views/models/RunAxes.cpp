#include "views/models/RunAxes.h"

#include <QCollator>
#include <QCoreApplication>
#include <QMap>
#include <QSet>
#include <algorithm>
#include <cmath>

#include "core/measure/evaluators.h"
#include "views/models/Accuracy.h"
#include "views/models/LinearErrors.h"
#include "views/plots/PlotStyle.h"

namespace qb::views {
namespace {

QString tr(const char* source) { return QCoreApplication::translate("RunAxes", source); }
QString text(const std::string& utf8) { return QString::fromStdString(utf8); }

// 1, 2 or 5 times a power of ten, so that about `parts` of them make up `range`.
double roundStep(double range, int parts) {
  const double raw = range / parts, power = std::pow(10, std::floor(std::log10(raw)));
  for (const double times : {1.0, 2.0, 5.0})
    if (times * power >= raw * (1 - 1e-9)) return times * power;
  return 10 * power;
}
constexpr int kParts = 4;

QString spelled(const KnobValue& value) {
  if (const bool* on = std::get_if<bool>(&value)) return *on ? tr("yes") : tr("no");
  return text(to_text(value));
}

QString described(const std::optional<QuantSpec>& spec) { return spec ? text(describe(*spec)) : tr("float"); }

void addScheme(QVector<QPair<QString, QString>>& found, const Scheme& scheme) {
  found.append({tr("Weights"), scheme.weights ? text(type_text(*scheme.weights)) : tr("float")});
  if (scheme.weights) {
    const QuantSpec& weights = *scheme.weights;
    found.append({tr("Group size"), weights.granularity == Granularity::group ? QString::number(weights.group_size) : text(to_text(weights.granularity))});
    found.append({tr("Symmetric"), weights.symmetric ? tr("yes") : tr("no")});
    found.append({tr("Scales"), text(to_text(weights.scale_type))});
    found.append({tr("Range"), text(to_text(weights.range))});
  }
  found.append({tr("Activations"), described(scheme.activations)});
  found.append({tr("KV cache"), described(scheme.kv_cache)});
  found.append({tr("Embedding"), described(scheme.embedding)});
  found.append({tr("Head"), described(scheme.head)});
  found.append({tr("Mix"), scheme.mix.empty() ? tr("none") : text(scheme.mix)});
  QStringList ignored, overridden;
  for (const std::string& pattern : scheme.ignore) ignored << text(pattern);
  for (const SchemeOverride& each : scheme.overrides) overridden << QStringLiteral("%1: %2").arg(text(each.match), described(each.weights));
  found.append({tr("Ignored"), ignored.isEmpty() ? tr("none") : ignored.join(QStringLiteral(", "))});
  found.append({tr("Overrides"), overridden.isEmpty() ? tr("none") : overridden.join(QStringLiteral(", "))});
}

void addPipeline(QVector<QPair<QString, QString>>& found, const std::vector<StageSpec>& pipeline) {
  QStringList names;
  for (const StageSpec& stage : pipeline) names << text(stage.method);
  found.append({tr("Pipeline"), names.join(QStringLiteral(" → "))});
  QMap<QString, int> seen;
  for (const StageSpec& stage : pipeline) {
    const MethodInfo* method = find_method(stage.method);
    if (!method) continue;
    const int nth = ++seen[text(stage.method)];
    const QString name = nth > 1 ? QStringLiteral("%1 %2").arg(text(stage.method)).arg(nth) : text(stage.method);
    for (const KnobInfo& info : method->knobs) found.append({QStringLiteral("%1: %2").arg(name, text(info.title)), spelled(knob(stage, info.name))});
  }
}

// An axis of texts: in the order of their numbers where they are numbers.
RunAxes::Axis settingAxis(const QString& name, const QSet<QString>& values) {
  RunAxes::Axis axis;
  axis.key = axis.title = name;
  axis.categories = QStringList(values.begin(), values.end());
  QCollator byNumber(QLocale::c());
  byNumber.setNumericMode(true);
  std::sort(axis.categories.begin(), axis.categories.end(), [&](const QString& a, const QString& b) {
    bool isA = false, isB = false;
    const double x = a.toDouble(&isA), y = b.toDouble(&isB);
    if (isA && isB) return x < y;
    if (isA != isB) return isA;
    return byNumber.compare(a, b) < 0;
  });
  return axis;
}

// An axis of figures; false: the runs do not differ.
bool spanAxis(RunAxes::Axis& axis, const QVector<double>& values) {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  for (const double value : values)
    if (std::isfinite(value)) low = std::min(low, value), high = std::max(high, value);
  if (!(high > low)) return false;
  axis.logarithmic = low > 0 && high > 20 * low;
  if (!axis.logarithmic) {
    const double step = roundStep(high - low, kParts);
    low = std::floor(low / step + 1e-9) * step;
    high = std::ceil(high / step - 1e-9) * step;
  }
  axis.low = low;
  axis.high = high;
  return true;
}

using Settings = QVector<QPair<QString, QString>>;

Settings reportedSettings(const RunReport& report) {
  Settings found;
  const auto add = [&](const QString& name, const QString& value) {
    if (!value.isEmpty()) found.append({name, value});
  };
  add(tr("Scheme"), text(report.scheme));
  add(tr("Pipeline"), text(report.pipeline));
  if (report.calibration_tokens > 0) add(tr("Calibration tokens"), QString::number(report.calibration_tokens));
  add(tr("Seed"), QString::number(report.seed));
  return found;
}

void addSettings(RunAxes& found, const QVector<const RunEntry*>& runs, const QHash<QString, RecipePtr>& recipes) {
  const bool any = std::any_of(runs.begin(), runs.end(), [&](const RunEntry* run) { return recipes.value(run->id) != nullptr; });
  QVector<QHash<QString, QString>> values;
  QStringList names;
  for (const RunEntry* run : runs) {
    const RecipePtr recipe = recipes.value(run->id);
    values.append(QHash<QString, QString>());
    for (const auto& [name, value] : recipe ? settingsOf(*recipe) : any ? Settings() : reportedSettings(*run->report)) {
      values.last().insert(name, value);
      if (!names.contains(name)) names << name;
    }
  }
  for (const QString& name : names) {
    QSet<QString> distinct;
    for (const auto& its : values)
      if (const auto value = its.find(name); value != its.end()) distinct.insert(*value);
    if (distinct.size() < 2) continue;
    const RunAxes::Axis axis = settingAxis(name, distinct);
    for (int i = 0; i < int(runs.size()); ++i) {
      const auto value = values[i].find(name);
      found.runs[i].values.push_back(value == values[i].end() ? std::nan("") : double(axis.categories.indexOf(*value)));
    }
    found.axes.push_back(axis);
  }
}

void addFigure(RunAxes& found, RunAxes::Axis axis, const QVector<double>& values) {
  if (!spanAxis(axis, values)) return;
  for (int i = 0; i < int(values.size()); ++i) found.runs[i].values.push_back(values[i]);
  found.axes.push_back(axis);
}

void addMeasures(RunAxes& found, const QVector<const RunEntry*>& runs, const QString& chosen) {
  struct Measure {
    RunAxes::Axis axis;
    QString corpus;
    QVector<double> values;
  };
  std::vector<Measure> measures;
  for (int i = 0; i < int(runs.size()); ++i)
    for (const EvaluationResult& result : runs[i]->report->evaluations) {
      const EvaluatorInfo* evaluator = find_evaluator(result.evaluator);
      if (result.float_model || !evaluator) continue;
      const MetricInfo& metric = evaluator->metrics.front();
      const QString key = conditionsKey(result);
      auto at = std::find_if(measures.begin(), measures.end(), [&](const Measure& measure) { return measure.axis.key == key; });
      if (at == measures.end()) {
        RunAxes::Axis axis;
        axis.key = key;
        axis.title = text(metric.title);
        axis.note = text(metric.unit);
        axis.conditions = conditionsText(result);
        axis.better = metric.higher_is_better ? 1 : -1;
        at = measures.insert(measures.end(), {axis, text(result.corpus), QVector<double>(runs.size(), std::nan(""))});
      }
      at->values[i] = result.value(metric.name);
    }
  // One figure on several texts: which text is told.
  for (Measure& measure : measures)
    if (std::count_if(measures.begin(), measures.end(), [&](const Measure& other) { return other.axis.title == measure.axis.title; }) > 1)
      measure.axis.note = measure.axis.note.isEmpty() ? measure.corpus : QStringLiteral("%1; %2").arg(measure.axis.note, measure.corpus);
  std::stable_partition(measures.begin(), measures.end(), [&](const Measure& measure) { return measure.axis.key != chosen; });
  for (const Measure& measure : measures) addFigure(found, measure.axis, measure.values);
}

}  // namespace

double RunAxes::Axis::place(double value) const {
  if (!std::isfinite(value)) return std::nan("");
  if (!categories.isEmpty()) return value < 0 ? std::nan("") : (value + 0.5) / double(categories.size());
  if (logarithmic) return value > 0 ? std::log(value / low) / std::log(high / low) : std::nan("");
  return (value - low) / (high - low);
}

QString RunAxes::Axis::text(double value) const {
  if (!std::isfinite(value)) return QStringLiteral("–");
  return categories.isEmpty() ? formatNumber(value) : categories.value(int(value));
}

QVector<double> RunAxes::Axis::ticks() const {
  QVector<double> found;
  if (!categories.isEmpty()) {
    for (int i = 0; i < int(categories.size()); ++i) found.push_back(i);
    return found;
  }
  if (!logarithmic) {
    const double step = roundStep(high - low, kParts + 1);
    for (double at = std::ceil(low / step - 1e-9); at * step <= high + 1e-9 * step; ++at) found.push_back(at * step);
    return found;
  }
  for (double power = std::pow(10, std::floor(std::log10(low))); power <= high; power *= 10)
    for (const double times : {1.0, 2.0, 5.0})
      if (times * power >= low && times * power <= high) found.push_back(times * power);
  return found;
}

QString RunAxes::Axis::heading() const { return note.isEmpty() ? title : QStringLiteral("%1 (%2)").arg(title, note); }

QVector<QPair<QString, QString>> settingsOf(const Recipe& recipe) {
  QVector<QPair<QString, QString>> found;
  if (!recipe.checkpoint.empty()) {
    found.append({tr("Checkpoint"), text(recipe.checkpoint.filename().string())});
    return found;
  }
  addScheme(found, recipe.scheme);
  addPipeline(found, recipe.pipeline);
  found.append({tr("Quantized inputs"), recipe.propagate_quantized ? tr("yes") : tr("no")});
  if (recipe.calibration) {
    const CorpusSpec& corpus = recipe.calibration->corpus;
    const SamplingSpec& sampling = recipe.calibration->sampling;
    found.append({tr("Calibration text"), text(corpus.name.empty() ? corpus.path.filename().string() : corpus.name)});
    found.append({tr("Sampling"), text(sampling.sampling)});
    found.append({tr("Samples"), QString::number(sampling.samples)});
    found.append({tr("Tokens a sample"), QString::number(sampling.seq_len)});
    found.append({tr("Seed of samples"), QString::number(sampling.seed)});
  }
  found.append({tr("Type of passes"), text(recipe.dtype)});
  found.append({tr("Seed"), QString::number(recipe.seed)});
  return found;
}

RunAxes gatherAxes(const Selection& selection, const QStringList& ids, const QHash<QString, RecipePtr>& recipes, const QString& chosen) {
  RunAxes found;
  QVector<const RunEntry*> runs;
  QVector<double> bits, seconds;
  const auto known = [](double value) { return value > 0 ? value : std::nan(""); };
  for (const QString& id : ids) {
    const RunEntry* run = selection.find(id);
    if (!run) continue;
    runs.push_back(run);
    found.runs.push_back({id, runName(*run->report), run->colour, run->shown, id == selection.currentRun(), {}});
    bits.push_back(known(run->report->bits_per_weight));
    seconds.push_back(known(run->report->quantize_seconds));
  }
  addSettings(found, runs, recipes);
  RunAxes::Axis axis;
  axis.better = -1;
  axis.key = QStringLiteral("bits");
  axis.title = tr("Bits per weight");
  axis.conditions = tr("scales and zeros included");
  addFigure(found, axis, bits);
  axis.key = QStringLiteral("seconds");
  axis.title = tr("Time");
  axis.note = tr("s");
  axis.conditions = tr("calibration, quantization and its measurement");
  addFigure(found, axis, seconds);
  addMeasures(found, runs, chosen);
  return found;
}

}  // namespace qb::views
