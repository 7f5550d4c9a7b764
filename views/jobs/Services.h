#pragma once
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/engine/device.h"
#include "core/measure/tensor_summary.h"
#include "core/model/model_info.h"
#include "core/run/clip_ranges.h"
#include "core/run/export_job.h"
#include "core/run/recipe_files.h"
#include "core/run/run.h"
#include "core/run/sensitivity_job.h"
#include "core/run/slurm.h"
#include "core/run/sweep_survey.h"
#include "core/run/text_comparison.h"

namespace qb::views {

using WorkspacePtr = std::shared_ptr<Workspace>;
using Runner = std::function<RunReport(Workspace&, const std::string& id, const RunOptions&, const Control&, const RunObserver&)>;

// A model's tensor as it is stored, its channels thinned for a picture.
using TensorReader = std::function<TensorSummary(const std::filesystem::path& model, const std::string& tensor, const std::stop_token&)>;

// A sweep's recipes, checked, with what the workspace has of each and what they will take. workspace: nullptr where none is open.
struct SweepSurvey {
  Sweep sweep;
  std::vector<SweepRow> rows;
};
using SweepSurveyor = std::function<SweepSurvey(const std::filesystem::path& file, const RunOptions&, const WorkspacePtr& workspace, const std::stop_token&, const std::function<void(size_t, size_t)>& told)>;

using Exporter = std::function<ExportResult(const std::filesystem::path& run, const ExportOptions&, const Control&)>;
// Finds a model's sensitivity; returns the workspace's file of it.
using SensitivitySurveyor = std::function<std::filesystem::path(const std::filesystem::path& workspace, const SensitivityWish&, const Control&)>;

// What the window asks of core. Functions, so that tests hand in their own. All but `devices` may be slow and are only
// called on worker threads.
struct Services {
  std::function<ModelInfo(const std::filesystem::path&)> inspectModel;
  TensorReader lookAtTensor;
  std::function<RecipeFiles(const Recipe&)> lookAtFiles;
  std::function<WorkspacePtr(const std::filesystem::path&, const Workspace::Reading&)> openWorkspace;
  std::function<void(const Recipe&, const RunOptions&, const std::filesystem::path& workspace)> preflight;
  SweepSurveyor surveySweep;
  Runner carryOut;
  Runner follow;  // a run that another process carries out
  // Starts a process that carries out what waits in a workspace's queue for a device, and outlives this one.
  std::function<void(const std::filesystem::path& workspace, const RunOptions&)> startQueue;
  std::function<std::map<std::string, SlurmTask>()> clusterTasks;  // what the cluster knows of its tasks now
  std::function<void(const std::vector<std::string>& tasks)> cancelClusterTasks;
  std::function<ExportSurvey(const std::filesystem::path& run, const Control&)> surveyExports;
  Exporter exportRun;
  SensitivitySurveyor surveySensitivity;
  std::function<ClipRanges(const std::filesystem::path& run, const std::string& module, const std::stop_token&)> clipRanges;
  std::function<TextComparison(const Recipe&, const std::vector<std::filesystem::path>& others, const std::stop_token&)> compareTexts;
  std::function<std::vector<StoredSensitivity>(const std::filesystem::path& workspace, const std::string& modelHash)> storedSensitivities;
  std::function<std::vector<DeviceInfo>(int threads)> initialise;  // prepares computing; called once, before all runs
};

Services coreServices();

}  // namespace qb::views
