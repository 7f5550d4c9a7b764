#include "views/models/Sensitivities.h"

#include <QCoreApplication>
#include <QFileInfo>
#include <QLocale>
#include <array>
#include <cmath>

#include "views/plots/PlotStyle.h"

namespace qb::views {
namespace {

QString tr(const char* text) { return QCoreApplication::translate("Sensitivities", text); }

QString figureName(const std::string& name) {
  if (name == "relative_error" || name == "gram") return tr("Gram");
  if (name == "fisher") return tr("Fisher");
  if (name == "guided") return tr("guided");
  return tr("measured");
}

}  // namespace

QVector<Figure> allFigures() { return {Figure::Guided, Figure::Fisher, Figure::Gram, Figure::Measured}; }

QString figureKey(Figure figure) {
  switch (figure) {
    case Figure::Guided: return QStringLiteral("guided");
    case Figure::Fisher: return QStringLiteral("fisher");
    case Figure::Gram: return QStringLiteral("gram");
    case Figure::Measured: return QStringLiteral("measured");
  }
  return {};
}

QString figureTitle(Figure figure) {
  switch (figure) {
    case Figure::Guided: return tr("Guided KL");
    case Figure::Fisher: return tr("Fisher KL");
    case Figure::Gram: return tr("Gram error");
    case Figure::Measured: return tr("Measured KL");
  }
  return {};
}

QString figureAxis(Figure figure) {
  switch (figure) {
    case Figure::Guided:
    case Figure::Fisher: return tr("Expected KL divergence (nats per token)");
    case Figure::Gram: return tr("Relative output error, squared");
    case Figure::Measured: return tr("Measured KL divergence (nats per token)");
  }
  return {};
}

QString figureMeaning(Figure figure) {
  switch (figure) {
    case Figure::Guided: return tr("One backward pass weights each output and each token by how much the model's prediction depends on it");
    case Figure::Fisher: return tr("One backward pass weights each output by how much the model's prediction depends on it");
    case Figure::Gram: return tr("What the rounding does to the linear's own output, whatever becomes of it: no gradients");
    case Figure::Measured: return tr("The KL divergence of the model with this linear alone quantized, ± standard error over windows");
  }
  return {};
}

double figureOf(const CandidateSensitivity& candidate, Figure figure) {
  switch (figure) {
    case Figure::Guided: return candidate.guided;
    case Figure::Fisher: return candidate.fisher;
    case Figure::Gram: return candidate.relative_error;
    case Figure::Measured: return candidate.measured;
  }
  return kUnknown;
}

bool hasFigure(const Sensitivity& survey, Figure figure) {
  for (const LinearSensitivity& linear : survey.linears)
    for (const CandidateSensitivity& candidate : linear.candidates)
      if (std::isfinite(figureOf(candidate, figure))) return true;
  return false;
}

QString kindOfName(const QString& name) {
  QStringList parts = name.split(QLatin1Char('.'));
  for (QString& part : parts) {
    bool number = false;
    part.toInt(&number);
    if (number) part = QStringLiteral("*");
  }
  return parts.join(QLatin1Char('.'));
}

QColor kindColour(int place) {
  // Okabe & Ito's without black and yellow, and two more between them.
  constexpr std::array<QRgb, 8> kColours = {0xff0072b2, 0xffd55e00, 0xff009e73, 0xffcc79a7, 0xffe69f00, 0xff56b4e9, 0xff882255, 0xff999933};
  return QColor::fromRgba(kColours[size_t(std::max(0, place)) % kColours.size()]);
}

SensitivityBars gatherBars(const Sensitivity& survey, Figure figure, const QString& candidate) {
  SensitivityBars result;
  result.candidate = candidate;
  result.figure = figure;
  for (const LinearSensitivity& linear : survey.linears) {
    const QString name = QString::fromStdString(linear.name), kind = kindOfName(name);
    if (!result.kinds.contains(kind)) result.kinds.push_back(kind);
    const CandidateSensitivity* found = linear.find(candidate.toStdString());
    const double value = found ? figureOf(*found, figure) : kUnknown;
    if (!std::isfinite(value)) {
      ++result.unknown;
      continue;
    }
    QStringList others;
    for (const Figure other : allFigures())
      if (other != figure && std::isfinite(figureOf(*found, other))) others << QStringLiteral("%1: %2").arg(figureTitle(other), formatNumber(figureOf(*found, other)));
    others << tr("output error %1 %").arg(formatNumber(100 * std::sqrt(std::max(0.0, found->relative_error)), 3));
    if (linear.tokens == 0) others << tr("no token of the text reached it");
    const double error = figure == Figure::Measured && std::isfinite(found->measured_error) ? found->measured_error : 0;
    result.bars.push_back({{linear.block, name}, kind, value, error, others.join(QLatin1Char('\n'))});
  }
  std::stable_sort(result.bars.begin(), result.bars.end(), [](const auto& a, const auto& b) { return a.value > b.value; });
  return result;
}

QString tiedTitle(const BitPlan& plan, size_t linear) {
  const PlannedLinear& l = plan.linears[linear];
  QStringList names;
  for (const size_t i : plan.ties[l.tie])
    if (const QString name = shortName(QString::fromStdString(plan.linears[i].kind)); !names.contains(name)) names << name;
  return QStringLiteral("%1 · %2").arg(l.block).arg(names.join(QStringLiteral(", ")));
}

QString surveyTitle(const Sensitivity& survey) {
  const QString text = QFileInfo(QString::fromStdString(survey.corpus)).fileName();
  const QString candidates = survey.candidates.size() < 2 ? QString::fromStdString(survey.candidates.empty() ? std::string() : survey.candidates.front())
                                                          : QStringLiteral("%1 … %2").arg(QString::fromStdString(survey.candidates.front()), QString::fromStdString(survey.candidates.back()));
  const QLocale locale;
  return tr("%1 × %2 tokens of %3, %4, by %5").arg(locale.toString(qlonglong(survey.samples)), locale.toString(qlonglong(survey.seq_len)), text, candidates, QString::fromStdString(survey.rounding));
}

QStringList correlationLines(const Sensitivity& survey, const QString& candidate) {
  QStringList lines;
  const RankCorrelation* best = nullptr;
  for (const RankCorrelation& each : survey.correlations) {
    if (QString::fromStdString(each.candidate) != candidate || !std::isfinite(each.value)) continue;
    lines << tr("%1 ~ %2: %3 (%4 linears)").arg(figureName(each.first), figureName(each.second), QLocale().toString(each.value, 'f', 2)).arg(each.pairs);
    if ((each.first == "measured" || each.second == "measured") && (!best || each.value > best->value)) best = &each;
  }
  if (best) lines.prepend(tr("Of the figures, %1 ranks the linears most like what was measured.").arg(figureName(best->first == "measured" ? best->second : best->first)));
  else if (!lines.isEmpty()) lines.prepend(tr("Nothing was measured: a survey with measured linears tells which figure to trust."));
  return lines;
}

}  // namespace qb::views
