#include "core/run/export_job.h"

#include <algorithm>
#include <cctype>

#include "core/base/error.h"
#include "core/exporting/formats.h"
#include "core/model/canonical_source.h"
#include "core/run/run_export.h"

namespace qb {

namespace fs = std::filesystem;

ExportSurvey survey_exports(const fs::path& run, const Control& control) {
  FinishedRun opened = open_run(run, control);
  ExportSurvey survey;
  if (const auto& files = opened.model.model->files)
    for (const TensorInfo& tensor : files->stored()->tensors()) survey.source_bytes += tensor.bytes;
  for (const FormatInfo& format : export_formats()) {
    control.checkpoint();
    ExportOutlook outlook = export_outlook(opened.model, format.name);
    FormatOffer offer{format.name, std::move(outlook.obstacles), outlook.bytes, {}};
    if (offer.obstacles.empty())
      for (const EngineInfo& engine : export_engines()) {
        control.checkpoint();
        EngineOffer taken{engine.name, scheme_obstacles(opened.model, format.name, engine.name), {}};
        for (const EngineInfo::Takes& takes : engine.takes)
          if (takes.format == format.name) taken.note = takes.note;
        offer.engines.push_back(std::move(taken));
      }
    survey.formats.push_back(std::move(offer));
  }
  survey.report = std::move(opened.report);
  survey.report.blocks.clear();
  return survey;
}

ExportResult export_run(const fs::path& run, const ExportOptions& options, const Control& control) {
  if (const std::string against = output_obstacle(options.output, options.format); !against.empty()) throw InputError(against);
  const FinishedRun opened = open_run(run, control);
  control.checkpoint();
  ExportOptions wanted = options;
  wanted.card = card_of(opened);
  return export_checkpoint(opened.model, wanted, control);
}

std::string export_difference(const fs::path& run, const fs::path& checkpoint, const Control& control) {
  return checkpoint_difference(open_run(run, control).model, checkpoint, control);
}

fs::path suggested_output(const fs::path& folder, const RunReport& report, const std::string& format, const std::vector<fs::path>& taken) {
  std::string name = (report.model_name.empty() ? std::string("model") : report.model_name) + "-" + report.scheme + "-" + format;
  std::string tidy;
  for (char c : name) {
    const bool plain = std::isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '_' || c == '+' || c == '-';
    if (plain || (!tidy.empty() && tidy.back() != '-')) tidy += plain ? c : '-';
  }
  std::error_code error;
  const std::string extension = format == "gguf" ? ".gguf" : "";
  fs::path output = folder / (tidy + extension);
  for (int number = 2; fs::exists(output, error) || std::find(taken.begin(), taken.end(), output) != taken.end(); ++number)
    output = folder / (tidy + "-" + std::to_string(number) + extension);
  return output;
}

OutputCheck check_output(const fs::path& output, const std::string& format) {
  OutputCheck check{output_obstacle(output, format), 0};
  std::error_code error;
  fs::path above = fs::absolute(output, error);
  while (!fs::exists(above, error) && above.has_relative_path()) above = above.parent_path();
  if (const auto space = fs::space(above, error); !error) check.free_bytes = space.available;
  return check;
}

}  // namespace qb
