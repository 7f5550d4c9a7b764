#pragma once
#include <filesystem>

#include "core/engine/engine.h"
#include "core/method/reconstruction/e2e_tuning.h"

namespace qb {

// Where a run's learned scales and norms lie: beside its blocks, which stay as they are.
std::filesystem::path tuned_path(const std::filesystem::path& folder);

// Learns scales and norms of a run whose blocks are all done, and writes tuned_path. Returns at once when that is there.
// Stopped or killed it goes on from its last checkpoint, and ends at the same bits. Fractions of progress are its own.
// Throws Cancelled, InputError (a damaged block), ResourceError.
void tune_model(const EngineJob& job, const TuningOptions& options, const Control& control);

// Forgets what was learned, because blocks are made anew.
void forget_tuning(const std::filesystem::path& folder);

}  // namespace qb
