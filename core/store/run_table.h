#pragma once
#include <string>
#include <variant>
#include <vector>

#include "core/measure/report.h"

namespace qb {

// The table of runs: one description of its columns, which the command line, the window and exported files share.
// Torch-free. Unknown names are InputErrors that tell what there is.

// Nothing known, a figure in the column's unit, or a text.
using RunValue = std::variant<std::monostate, double, std::string>;

enum class RunColumnKind { text, figure, time };  // time: ISO 8601 in UTC, or a day of it; ordered as text is

struct RunColumn {
  std::string key;    // "ppl": in filters, in CSV and JSON
  std::string title;  // "Perplexity"
  std::string unit;   // "s", "MB"; empty: none
  std::string help;
  RunColumnKind kind = RunColumnKind::text;
  int decimals = 0;
  bool standard = false;  // shown unless others are chosen
  RunValue (*value)(const RunReport& run, const RunReport* baseline) = nullptr;  // baseline of Δ; nullptr: none
  bool higher_is_better = false;
};

const std::vector<RunColumn>& run_columns();
const RunColumn& run_column(const std::string& key);
std::string column_heading(const RunColumn& column);  // "Quantization (s)"
// "12.34"; "–" for nothing, a figure that is no number included.
std::string cell_text(const RunColumn& column, const RunValue& value);

// Which runs: every word somewhere in a run's texts, every condition on one column.
class RunQuery {
 public:
  // Words and conditions, "awq ppl<30 status=finished model~smol 'two words'". A condition is KEY OP VALUE without spaces (or
  // in quotes): = and != compare texts whatever their case and figures as numbers, ~ and !~ look for a text inside, < <= > >=
  // compare figures and times. KEY= and KEY!= without a value: nothing known, something known.
  static RunQuery parse(const std::string& text);
  void add_words(const std::string& text);
  void add_condition(const std::string& text);
  bool accepts(const RunReport& run, const RunReport* baseline = nullptr) const;
  bool empty() const { return words_.empty() && conditions_.empty(); }

 private:
  enum class Comparison { equal, differs, less, at_most, more, at_least, contains, lacks };
  struct Condition {
    const RunColumn* column;
    Comparison comparison;
    std::string text;  // in small letters
    double figure = 0;
  };
  static bool read_condition(const std::string& text, Condition& condition);
  static bool holds(const Condition& condition, const RunValue& value);
  std::vector<std::string> words_;
  std::vector<Condition> conditions_;
};

struct RunOrder {
  const RunColumn* column = nullptr;
  bool descending = false;
};
std::vector<RunOrder> parse_run_order(const std::string& text);  // "ppl,-date": minus for descending
// Runs of whom nothing is known come last in either direction; equal ones keep their order.
void sort_runs(std::vector<const RunReport*>& runs, const std::vector<RunOrder>& order, const RunReport* baseline = nullptr);

using RunColumns = std::vector<const RunColumn*>;
RunColumns standard_columns();
RunColumns parse_run_columns(const std::string& text);  // "name,ppl,bits"; "all"

// Keys as header and all digits in CSV (RFC 4180) and JSON (a list of objects, null for nothing), headings and rounded figures
// in Markdown.
std::string runs_as_csv(const std::vector<const RunReport*>& runs, const RunColumns& columns, const RunReport* baseline = nullptr);
std::string runs_as_json(const std::vector<const RunReport*>& runs, const RunColumns& columns, const RunReport* baseline = nullptr);
std::string runs_as_markdown(const std::vector<const RunReport*>& runs, const RunColumns& columns, const RunReport* baseline = nullptr);

}  // namespace qb
