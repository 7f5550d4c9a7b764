#include "views/jobs/Services.h"

#include "core/run/supervisor.h"

namespace qb::views {

Services coreServices() {
  Services services;
  services.inspectModel = [](const std::filesystem::path& path) {
    ModelInfo info = inspect_model(path);
    info.hash = model_hash(path);
    return info;
  };
  services.lookAtTensor = [](const std::filesystem::path& model, const std::string& tensor, const std::stop_token& stop) {
    constexpr int64_t kDrawn = 2048;  // channels: more than a plot has pixels
    TensorSummary summary = summarise_tensor(model, tensor, stop);
    summary.columns = thinned(summary.columns, kDrawn);
    summary.rows = thinned(summary.rows, kDrawn);
    return summary;
  };
  services.lookAtFiles = [](const Recipe& recipe) { return look_at_files(recipe); };
  services.openWorkspace = [](const std::filesystem::path& folder, const Workspace::Reading& reading) { return Workspace::open(folder, Workspace::Absent::create, reading); };
  services.preflight = [](const Recipe& recipe, const RunOptions& options, const std::filesystem::path& workspace) { preflight(recipe, options, workspace); };
  services.surveySweep = [](const std::filesystem::path& file, const RunOptions& options, const WorkspacePtr& workspace, const std::stop_token& stop, const std::function<void(size_t, size_t)>& told) {
    SweepSurvey survey{load_sweep(file), {}};
    RunPlanner planner(options, workspace ? workspace->folder() : std::filesystem::current_path());
    survey.rows = plan_sweep(survey.sweep, planner, {}, [&](size_t done, size_t all) {
      if (stop.stop_requested()) throw Cancelled();
      told(done, all);
    });
    if (workspace) find_runs(survey.rows, *workspace);
    estimate_costs(survey.rows, workspace.get(), options.device);
    return survey;
  };
  services.carryOut = [](Workspace& workspace, const std::string& id, const RunOptions& options, const Control& control,
                         const RunObserver& observer) { return carry_out_in_worker(workspace, id, options, control, observer, detached_worker(qbench_program())); };
  services.follow = [](Workspace& workspace, const std::string& id, const RunOptions& options, const Control& control, const RunObserver& observer) { return follow_run(workspace, id, options, control, observer); };
  services.startQueue = [](const std::filesystem::path& workspace, const RunOptions& options) { start_queue(workspace, options, qbench_program()); };
  services.clusterTasks = [] { return slurm_tasks(); };
  services.cancelClusterTasks = [](const std::vector<std::string>& tasks) { cancel_slurm_tasks(tasks); };
  services.surveyExports = [](const std::filesystem::path& run, const Control& control) { return survey_exports(run, control); };
  services.exportRun = [](const std::filesystem::path& run, const ExportOptions& options, const Control& control) { return export_run(run, options, control); };
  services.surveySensitivity = [](const std::filesystem::path& workspace, const SensitivityWish& wish, const Control& control) { return run_sensitivity(workspace, wish, control, qbench_program()); };
  services.storedSensitivities = [](const std::filesystem::path& workspace, const std::string& hash) { return stored_sensitivities(workspace, hash); };
  services.clipRanges = [](const std::filesystem::path& run, const std::string& module, const std::stop_token& stop) { return clip_ranges(run, module, Control{stop, nullptr, {}, {}}); };
  services.compareTexts = [](const Recipe& recipe, const std::vector<std::filesystem::path>& others, const std::stop_token& stop) { return compare_texts(recipe, others, Control{stop, nullptr, {}, {}}); };
  services.initialise = [](int threads) {
    initialise_compute(threads);
    return devices();
  };
  return services;
}

}  // namespace qb::views
