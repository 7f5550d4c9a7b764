#pragma once
#include <filesystem>
#include <string>

#include "core/measure/report.h"

namespace qb {

// JSON text of reports and back; parsing throws InputError naming `origin` and the field.
std::string to_json(const RunReport& report);
std::string to_json(const BlockReport& report);
std::string to_json(const EvaluationResult& result);
RunReport run_report_from_json(const std::string& json, const std::string& origin);
BlockReport block_report_from_json(const std::string& json, const std::string& origin);
EvaluationResult evaluation_from_json(const std::string& json, const std::string& origin);

}  // namespace qb
