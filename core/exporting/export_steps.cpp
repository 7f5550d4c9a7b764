#include "core/exporting/export_steps.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "core/base/atomic_writer.h"
#include "core/base/error.h"
#include "core/model/canonical_source.h"

namespace qb {

void ExportSteps::report(double fraction, const char* stage) const {
  Progress p;
  p.phase = "export";
  p.stage = stage;
  p.fraction = fraction;
  p.elapsed_s = seconds();
  p.eta_s = fraction > 0.02 ? p.elapsed_s / fraction * (1 - fraction) : -1;
  p.rss_bytes = resident_bytes();
  p.peak_rss_bytes = peak_resident_bytes();
  control_.report(p);
}

void refuse(const std::vector<std::string>& obstacles) {
  if (!obstacles.empty()) throw InputError(fmt::format("{}", fmt::join(obstacles, "\n")));
}

ExportResult begin_result(const QuantizedModel& model, const ExportOptions& options) {
  ExportResult result;
  result.path = options.output;
  if (!model.caches.empty()) result.cache = model.caches.front().spec;
  for (const TensorInfo& tensor : model.model->files->stored()->tensors()) result.source_bytes += tensor.bytes;
  return result;
}

void add_engine(ExportResult& result, const ExportOptions& options) {
  const EngineInfo* engine = find_engine(options.engine);
  if (!engine) return;
  result.serve = serve_command(*engine, options.output, result.cache ? &*result.cache : nullptr);
  for (const EngineInfo::Takes& takes : engine->takes)
    if (takes.format == options.format && !takes.note.empty()) result.notes.push_back(takes.note);
}

std::filesystem::path partial_output(const std::filesystem::path& whole) {
  remove_leftovers(whole.parent_path(), ".partial.");
  return temporary_name(whole.parent_path() / fmt::format(".{}.partial", whole.filename().string()));
}

void require_space(const std::filesystem::path& folder, uint64_t bytes) {
  std::error_code error;
  const auto space = std::filesystem::space(folder, error);
  if (!error && space.available < bytes + (uint64_t{64} << 20))
    throw ResourceError(fmt::format("{}: {:.2f} GB are free, the checkpoint takes {:.2f} GB", folder.string(), static_cast<double>(space.available) / 1e9, static_cast<double>(bytes) / 1e9));
}

}  // namespace qb
