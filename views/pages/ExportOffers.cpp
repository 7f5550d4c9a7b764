#include "views/pages/ExportOffers.h"

#include <QCoreApplication>
#include <algorithm>

#include "views/models/Format.h"

namespace qb::views {
namespace {

QString tr(const char* text) { return QCoreApplication::translate("ExportOffers", text); }
QString text(const std::string& value) { return QString::fromStdString(value); }

// What can be chosen stands before what cannot.
void sortByObstacles(QVector<Choice>& choices) {
  std::stable_partition(choices.begin(), choices.end(), [](const Choice& choice) { return choice.obstacles.isEmpty(); });
}

}  // namespace

QStringList exportTexts(const std::vector<std::string>& values) {
  QStringList all;
  for (const std::string& value : values) all << text(value);
  return all;
}

QString engineTitle(const EngineInfo& engine) { return QStringLiteral("%1 %2").arg(text(engine.title), text(engine.version)); }

QString exportSizeText(uint64_t bytes, uint64_t source) {
  if (source == 0) return formatBytes(double(bytes));
  return tr("%1, %2 % of the float model's %3").arg(formatBytes(double(bytes))).arg(qRound(100.0 * double(bytes) / double(source))).arg(formatBytes(double(source)));
}

Choices formatChoices(const ExportSurvey& survey) {
  Choices choices;
  for (const FormatOffer& offer : survey.formats) {
    const FormatInfo* format = find_format(offer.format);
    Choice choice{text(offer.format), text(format->title), text(format->help), exportTexts(offer.obstacles)};
    if (offer.obstacles.empty()) {
      QStringList engines;
      for (const EngineOffer& engine : offer.engines)
        if (engine.obstacles.empty()) engines << text(find_engine(engine.engine)->title);
      choice.detail += QLatin1Char('\n') + tr("%1 · %2").arg(formatBytes(double(offer.bytes)), engines.isEmpty() ? tr("no engine that is known takes it") : tr("for %1").arg(engines.join(QStringLiteral(", "))));
      if (choices.first.isEmpty() && !engines.isEmpty()) choices.first = choice.key;
    }
    choices.all << choice;
  }
  sortByObstacles(choices.all);
  if (choices.first.isEmpty() && !choices.all.isEmpty() && choices.all.front().obstacles.isEmpty()) choices.first = choices.all.front().key;
  return choices;
}

Choices engineChoices(const FormatOffer& offer, const QString& before) {
  Choices choices;
  QString kept;
  for (const EngineOffer& one : offer.engines) {
    const EngineInfo* engine = find_engine(one.engine);
    Choice choice{text(one.engine), engineTitle(*engine), tr("%1, %2").arg(text(engine->source), text(engine->date)), exportTexts(one.obstacles)};
    if (one.obstacles.empty()) {
      if (!one.note.empty()) choice.detail += QLatin1Char('\n') + text(one.note);
      if (choices.first.isEmpty()) choices.first = choice.key;
      if (choice.key == before) kept = before;
    }
    choices.all << choice;
  }
  choices.all << Choice{QString(), tr("No particular engine"), tr("Only what the format itself can hold is asked for."), {}};
  sortByObstacles(choices.all);
  if (!kept.isEmpty()) choices.first = kept;
  return choices;
}

}  // namespace qb::views
