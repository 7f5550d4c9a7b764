#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "core/base/control.h"
#include "core/exporting/checkpoint.h"
#include "core/measure/report.h"

namespace qb {

// The way out of a run, without tensors: for windows and other callers on a thread of their own. All but suggested_output and
// check_output open the run, which takes a second or more where the model is large.

// Whether an engine loads a run in some format. Obstacles as obstacles() says them; empty: it does.
struct EngineOffer {
  std::string engine;                  // of export_engines()
  std::vector<std::string> obstacles;
  std::string note;                    // what to know
};
// Whether a run can be written in a format.
struct FormatOffer {
  std::string format;                  // of export_formats()
  std::vector<std::string> obstacles;  // of the format alone
  uint64_t bytes = 0;                  // that its tensors will take on disk; 0: cannot be written
  std::vector<EngineOffer> engines;    // all of export_engines(), where the format itself takes the run
};
struct ExportSurvey {
  RunReport report;                    // without blocks
  uint64_t source_bytes = 0;           // of the float model
  std::vector<FormatOffer> formats;    // all of export_formats()
};

// What a finished run can become. Throws InputError where there is no finished run, or its model has gone or changed.
ExportSurvey survey_exports(const std::filesystem::path& run, const Control& control = {});

// Exports a finished run as export_checkpoint does; the model card (options.card is ignored) tells of the run.
ExportResult export_run(const std::filesystem::path& run, const ExportOptions& options, const Control& control = {});

// As checkpoint_difference: the first thing in which a checkpoint differs from the run that it shall hold; empty: it holds it.
std::string export_difference(const std::filesystem::path& run, const std::filesystem::path& checkpoint, const Control& control = {});

// A name in `folder` that tells model, scheme and format, is not there yet and not among `taken`.
std::filesystem::path suggested_output(const std::filesystem::path& folder, const RunReport& report, const std::string& format,
                                       const std::vector<std::filesystem::path>& taken = {});

struct OutputCheck {
  std::string obstacle;                // as output_obstacle()
  uint64_t free_bytes = 0;             // on its disk; 0: not known
};
OutputCheck check_output(const std::filesystem::path& output, const std::string& format);

}  // namespace qb
