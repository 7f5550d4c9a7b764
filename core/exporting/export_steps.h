#pragma once
#include <chrono>

#include "core/exporting/checkpoint.h"
#include "core/exporting/formats.h"
#include "core/quant/quantized_model.h"

namespace qb {

// What the export of a folder and of a file have in common.
class ExportSteps {
 public:
  // reading: the part of the time that reading back takes, as measured on a run of 4 bits.
  ExportSteps(const Control& control, double reading) : control_(control), reading_(reading) {}
  void wrote(uint64_t bytes, uint64_t of) const { report((1 - reading_) * static_cast<double>(bytes) / static_cast<double>(std::max<uint64_t>(of, 1)), "write"); }
  void read_back(double fraction) const { report(1 - reading_ + reading_ * fraction, "read back"); }
  void done() const { report(1, "done"); }
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

 private:
  void report(double fraction, const char* stage) const;
  const Control& control_;
  double reading_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// Throws InputError with the sentences that stand against an export, if any.
void refuse(const std::vector<std::string>& obstacles);
// A result with what does not depend on the format: output, size of the float model.
ExportResult begin_result(const QuantizedModel& model, const ExportOptions& options);
// Command line and notes of the engine that was named, if any.
void add_engine(ExportResult& result, const ExportOptions& options);
// What an export is called until it is whole: a hidden name beside it. Removes what killed exports left there.
std::filesystem::path partial_output(const std::filesystem::path& whole);
// Throws ResourceError where the disk of `folder` has not that much room and some more.
void require_space(const std::filesystem::path& folder, uint64_t bytes);

}  // namespace qb
