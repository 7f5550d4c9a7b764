#pragma once
#include "core/exporting/formats.h"
#include "core/run/export_job.h"
#include "views/pages/ChoiceList.h"

namespace qb::views {

// What a survey of exports says, in the words of the window.

struct Choices {
  QVector<Choice> all;
  QString first;  // the one to begin with; empty: none can be chosen
};
// Formats with their sizes and engines; to begin with the first that an engine takes. What cannot be chosen stands last.
Choices formatChoices(const ExportSurvey& survey);
// Engines for one format, and none in particular. before: the engine that was chosen, kept where it takes the format too.
Choices engineChoices(const FormatOffer& offer, const QString& before);

QString engineTitle(const EngineInfo& engine);               // "vLLM 0.32"
QString exportSizeText(uint64_t bytes, uint64_t source);     // "12.0 MiB, 27 % of the float model's 44.0 MiB"
QStringList exportTexts(const std::vector<std::string>& values);

}  // namespace qb::views
