#pragma once
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "core/recipe/hardware.h"
#include "core/recipe/roofline.h"
#include "core/run/best_practice.h"
#include "core/store/workspace.h"

namespace qb {

// A report of chosen runs, to be handed to somebody who has neither the runs nor this program: what it says and which pictures stand where.
// A value; views lay it out as HTML and PDF and draw the pictures. Torch-free.

struct ReportHeading {
  std::string text;
  int level = 2;  // 1: a model's, 2: a section's, 3: a run's
};
struct ReportParagraph {
  std::string text;
  bool verdict = false;  // what to take home: stands out
};
struct ReportTable {
  std::string caption;  // conditions included
  std::vector<std::string> header;
  std::vector<std::vector<std::string>> rows;
  std::vector<bool> texts;  // a column each: left rather than right
  int marked = -1;          // the row of the run to take
};
struct ReportCode {
  std::string title, text;
  bool folds = false;  // long: may be folded away where the medium can
};
struct ReportPicture {
  enum class Kind { metric, pareto, differences, tokens, errors, runs_heat, heat_map, cost } kind = Kind::metric;
  int run = -1, evaluation = -1;  // of the part's runs: under whose conditions, or (heat_map) of which run
};
using ReportItem = std::variant<ReportHeading, ReportParagraph, ReportTable, ReportCode, ReportPicture>;

// All about the runs of one model.
struct ReportPart {
  std::string model;
  std::vector<RunReport> runs;  // whole, in the order of the tables; names are told apart
  int chosen = -1;              // the run to take; −1: none can be recommended
  std::vector<ReportItem> items;
};
struct WrittenReport {
  std::string title, subtitle;
  std::vector<ReportPart> parts;
};

struct ReportWanted {
  std::string title;          // empty: made of models and number of runs
  std::string program, date;  // who made it, when: for the subtitle
  BestWanted best;            // by which measures and filters one is recommended; hardware: speed is predicted for it
};

// runs: ids of finished runs; empty: all that are finished. Throws InputError where there is none, or one of them is not finished.
WrittenReport written_report(const Workspace& workspace, const std::vector<std::string>& runs, const ReportWanted& wanted);

}  // namespace qb
