#include "core/run/written_report.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>

#include "core/base/error.h"
#include "core/exporting/formats.h"
#include "core/measure/evaluators.h"
#include "core/measure/paired.h"

namespace qb {
namespace {

constexpr size_t kWorst = 10;  // linears in the table of the worst

std::string megabytes(double bytes) { return bytes > 0 ? fmt::format("{:.1f}", bytes / 1e6) : "–"; }
std::string seconds(double value) { return fmt::format("{:.{}f}", value, value < 10 ? 2 : 1); }
std::string number(double value, int digits = 4) { return std::isfinite(value) ? fmt::format("{:.{}g}", value, digits) : "–"; }

const EvaluationResult* same_of(const RunReport& run, const EvaluationResult& of, bool float_model) {
  const auto found = std::find_if(run.evaluations.begin(), run.evaluations.end(), [&](const EvaluationResult& e) { return e.float_model == float_model && same_conditions(e, of); });
  return found == run.evaluations.end() ? nullptr : &*found;
}

// Runs are named in tables and pictures: two of one name have their ids behind it.
void tell_apart(std::vector<RunReport>& runs) {
  std::map<std::string, int> count;
  for (const RunReport& run : runs) ++count[run.name];
  for (RunReport& run : runs)
    if (count[run.name] > 1 || run.name.empty()) run.name = run.name.empty() ? run.id : fmt::format("{} ({})", run.name, run.id);
}

// One part as it is written: each section adds its items.
class Writer {
 public:
  Writer(const Workspace& workspace, ReportPart& part, const ReportWanted& wanted) : workspace_(workspace), part_(part), wanted_(wanted) {
    best_ = best_practice(workspace, part.runs, wanted.best);
    for (BestCandidate& one : best_.runs) one.report.name = named(one.report.id).name;
    for (LeftOut& one : best_.left_out) one.name = named(one.run).name;
    if (best_.chosen >= 0)
      part.chosen = static_cast<int>(&named(best_.runs[static_cast<size_t>(best_.chosen)].report.id) - part.runs.data());
  }

  void write() {
    recommendation();
    model_and_data();
    table_of_runs();
    evaluations();
    linears();
    cost();
    predicted();
    for (size_t i = 0; i < part_.runs.size(); ++i) run(i);
  }

 private:
  const RunReport& named(const std::string& id) const {
    return *std::find_if(part_.runs.begin(), part_.runs.end(), [&](const RunReport& run) { return run.id == id; });
  }
  const RunReport* chosen() const { return part_.chosen < 0 ? nullptr : &part_.runs[static_cast<size_t>(part_.chosen)]; }
  void heading(std::string text, int level = 2) { part_.items.emplace_back(ReportHeading{std::move(text), level}); }
  void paragraph(std::string text, bool verdict = false) { part_.items.emplace_back(ReportParagraph{std::move(text), verdict}); }
  void picture(ReportPicture::Kind kind, int run = -1, int evaluation = -1) { part_.items.emplace_back(ReportPicture{kind, run, evaluation}); }
  void table(ReportTable table) {
    if (table.texts.empty()) {
      table.texts.assign(table.header.size(), false);
      table.texts.front() = true;
    }
    if (!table.rows.empty()) part_.items.emplace_back(std::move(table));
  }

  void recommendation() {
    heading("Which one to take");
    paragraph(verdict(best_), true);
    if (best_.runs.size() > 1) {
      ReportTable all{"A difference within twice its error, paired by window or item, counts as none.", {"Run"}, {}, {true}, -1};
      for (const RunColumn* measure : best_.measures) all.header.push_back(column_heading(*measure)), all.texts.push_back(false);
      const RunColumn& first = *best_.measures.front();
      if (chosen()) all.header.push_back(fmt::format("Δ {} to {}", first.title, chosen()->name)), all.texts.push_back(false);
      all.header.emplace_back("");
      all.texts.push_back(true);
      std::vector<int> order;
      for (size_t i = 0; i < best_.runs.size(); ++i) order.push_back(static_cast<int>(i));
      std::stable_sort(order.begin(), order.end(), [&](int x, int y) {
        const BestCandidate &a = candidate(x), &b = candidate(y);
        if ((x == best_.chosen) != (y == best_.chosen)) return x == best_.chosen;
        return a.front != b.front ? a.front : first.higher_is_better ? a.values[0] > b.values[0] : a.values[0] < b.values[0];
      });
      for (const int i : order) {
        const BestCandidate& one = candidate(i);
        std::vector<std::string> row = {one.report.name};
        for (size_t m = 0; m < best_.measures.size(); ++m) row.push_back(cell_text(*best_.measures[m], RunValue(one.values[m])));
        if (chosen()) row.push_back(i == best_.chosen ? "" : difference_text(one.report, *chosen(), first));
        row.push_back(i == best_.chosen ? "take this one" : one.front ? "not beaten" : "beaten by " + candidate(one.beaten_by).report.name);
        if (i == best_.chosen) all.marked = static_cast<int>(all.rows.size());
        all.rows.push_back(std::move(row));
      }
      table(std::move(all));
    }
    std::vector<std::pair<std::string, std::vector<std::string>>> reasons;  // each once, with the runs that it holds for
    for (const LeftOut& one : best_.left_out) {
      auto at = std::find_if(reasons.begin(), reasons.end(), [&](const auto& reason) { return reason.first == one.why; });
      if (at == reasons.end()) at = reasons.insert(at, {one.why, {}});
      at->second.push_back(one.name);
    }
    for (const auto& [why, names] : reasons) paragraph(fmt::format("Left out of this comparison: {} ({}).", fmt::join(names, "; "), why));
  }

  void model_and_data() {
    heading("Model and data");
    const RunReport& first = part_.runs.front();
    ReportTable facts{"", {"What", "Which", "Contents"}, {}, {true, true, true}, -1};
    std::string size;
    if (first.model_float_bytes > 0) size = fmt::format("{} MB, ", megabytes(static_cast<double>(first.model_float_bytes)));
    facts.rows.push_back({"Float model", first.model_name, fmt::format("{}hash {}", size, first.model_hash)});
    for (const RunReport& run : part_.runs) {
      const Recipe recipe = workspace_.recipe(run.id);
      if (!recipe.calibration) continue;
      const CalibrationSpec& c = *recipe.calibration;
      std::string name = c.corpus.name.empty() ? c.corpus.path.filename().string() : c.corpus.name;
      if (const auto parent = c.corpus.path.parent_path().filename().string(); name.empty()) name = parent;
      std::vector<std::string> row = {"Calibration text", name,
                                      fmt::format("{} × {} tokens ({}, seed {}){}", c.sampling.samples, c.sampling.seq_len, c.sampling.sampling, c.sampling.seed,
                                                  run.calibration_hash.empty() ? "" : ", hash " + run.calibration_hash)};
      if (std::find(facts.rows.begin(), facts.rows.end(), row) == facts.rows.end()) facts.rows.push_back(std::move(row));
    }
    for (const RunReport& run : part_.runs)
      for (const EvaluationResult& e : run.evaluations) {
        const EvaluatorInfo* evaluator = find_evaluator(e.evaluator);
        std::vector<std::string> row = {evaluator ? evaluator->title : e.evaluator, e.corpus, conditions_text(e) + (e.corpus_hash.empty() ? "" : ", hash " + e.corpus_hash)};
        if (!e.float_model && std::find(facts.rows.begin(), facts.rows.end(), row) == facts.rows.end()) facts.rows.push_back(std::move(row));
      }
    table(std::move(facts));
  }

  // The columns of the table of runs; what is the same of all stands in a sentence below.
  void table_of_runs() {
    heading("Runs");
    RunColumns columns = standard_columns();
    for (const char* key : {"acc", "acc_norm"})
      if (std::none_of(columns.begin(), columns.end(), [&](const RunColumn* c) { return c->key == key; })) columns.push_back(&run_column(key));
    ReportTable all{"Δ is perplexity above the float model's. Size is of the whole model, time that of calibration and quantization.", {}, {}, {}, part_.chosen};
    all.rows.resize(part_.runs.size());
    std::vector<std::string> common;
    for (const RunColumn* column : columns) {
      if (column->key == "status" || column->key == "model") continue;
      std::vector<std::string> cells;
      for (const RunReport& run : part_.runs) cells.push_back(cell_text(*column, column->value(run, nullptr)));
      const bool same = std::all_of(cells.begin(), cells.end(), [&](const std::string& cell) { return cell == cells.front(); });
      if (same && cells.front() == "–") continue;
      if (same && column->kind != RunColumnKind::figure && column->key != "name" && part_.runs.size() > 1) {
        common.push_back(fmt::format("{}: {}", column->title, cells.front()));
        continue;
      }
      all.header.push_back(column_heading(*column));
      all.texts.push_back(column->kind != RunColumnKind::figure);
      for (size_t i = 0; i < cells.size(); ++i) all.rows[i].push_back(std::move(cells[i]));
    }
    table(std::move(all));
    if (!common.empty()) paragraph(fmt::format("Of all runs: {}.", fmt::join(common, "; ")));
    const auto imported = std::count_if(part_.runs.begin(), part_.runs.end(), [](const RunReport& run) { return run.calibration_tokens == 0; });
    if (imported > 0) paragraph(imported == 1 ? "One run read no calibration text." : fmt::format("{} runs read no calibration text.", imported));
  }

  void evaluations() {
    struct Group {
      int run, evaluation;
      const EvaluationResult* of;
    };
    std::vector<Group> groups;
    for (size_t r = 0; r < part_.runs.size(); ++r)
      for (size_t i = 0; i < part_.runs[r].evaluations.size(); ++i) {
        const EvaluationResult& e = part_.runs[r].evaluations[i];
        if (!e.float_model && !e.metrics.empty() && find_evaluator(e.evaluator) && std::none_of(groups.begin(), groups.end(), [&](const Group& g) { return same_conditions(*g.of, e); }))
          groups.push_back({static_cast<int>(r), static_cast<int>(i), &e});
      }
    // Divergence tells more than perplexity: it comes first.
    std::stable_sort(groups.begin(), groups.end(), [](const Group& a, const Group& b) { return (a.of->evaluator == "divergence") > (b.of->evaluator == "divergence"); });
    for (const Group& group : groups) evaluation(group.run, group.evaluation, *group.of);
    if (groups.empty()) {
      heading("Accuracy");
      paragraph("None of these runs was evaluated: nothing is known of what the quantized models predict.");
    }
  }

  void evaluation(int run, int index, const EvaluationResult& of) {
    const EvaluatorInfo& evaluator = *find_evaluator(of.evaluator);
    heading(fmt::format("{}: {}", evaluator.title, of.corpus));
    const bool task = evaluator.data == EvaluationData::task;
    const EvaluationResult* to = chosen() ? same_of(*chosen(), of, false) : nullptr;
    ReportTable all{conditions_text(of) + "; ± one standard error", {"Run"}, {}, {true}, -1};
    for (const std::string& name : evaluator.headline) {
      if (!of.find(name)) continue;
      all.header.push_back(find_metric(evaluator.name, name)->title);
      all.texts.push_back(false);
    }
    const std::string& lead = of.metrics.front().name;
    const std::string paired = of.evaluator == "perplexity" ? "nll" : lead;
    if (to) all.header.push_back(fmt::format("Δ {} to {}", of.evaluator == "perplexity" ? "nats a token" : find_metric(evaluator.name, lead)->title, chosen()->name)), all.texts.push_back(false);
    if (to && task) all.header.emplace_back("Item by item (McNemar)"), all.texts.push_back(true);
    const auto figures = [&](const EvaluationResult& e, std::string name) {
      std::vector<std::string> row = {std::move(name)};
      for (const std::string& metric : evaluator.headline)
        if (of.find(metric)) row.push_back(e.find(metric) ? value_text(e, *e.find(metric)) : "–");
      if (to) {
        const bool comparable = &e != to && !to->values(paired).empty() && to->values(paired).size() == e.values(paired).size();
        std::string difference;
        if (comparable) {
          const PairedDifference d = paired_difference(to->values(paired), e.values(paired));
          difference = fmt::format("{:+.4g} ± {:.2g}", d.difference, d.standard_error);
        }
        row.push_back(difference);
        if (task) {
          row.emplace_back();
          if (comparable) {
            const McNemar test = mcnemar(to->values(paired), e.values(paired));
            row.back() = fmt::format("{} right only here, {} only there, p = {:.3g}", test.only_second, test.only_first, test.p_value);
          }
        }
      }
      return row;
    };
    for (const RunReport& one : part_.runs)
      if (const EvaluationResult* e = same_of(one, of, false)) {
        if (&one == chosen()) all.marked = static_cast<int>(all.rows.size());
        all.rows.push_back(figures(*e, one.name));
      }
    for (const RunReport& one : part_.runs)
      if (const EvaluationResult* beside = same_of(one, of, true)) {
        all.rows.push_back(figures(*beside, subject_text(*beside)));
        break;
      }
    const size_t measured = all.rows.size();
    table(std::move(all));
    picture(ReportPicture::Kind::metric, run, index);
    if (measured > 1) picture(ReportPicture::Kind::pareto, run, index);
    if (of.metrics.front().histogram.counts.empty()) {
      if (measured > 1) picture(ReportPicture::Kind::differences, run, index);
    } else {
      picture(ReportPicture::Kind::tokens, run, index);
    }
  }

  void linears() {
    const auto measured = [](const RunReport& run) {
      return std::any_of(run.blocks.begin(), run.blocks.end(), [](const BlockReport& block) {
        return std::any_of(block.linears.begin(), block.linears.end(), [](const LinearReport& linear) { return std::isfinite(linear.output_relative_error); });
      });
    };
    if (std::none_of(part_.runs.begin(), part_.runs.end(), measured)) return;
    heading("Where it hurts");
    picture(ReportPicture::Kind::errors);
    if (part_.runs.size() > 1) picture(ReportPicture::Kind::runs_heat);
    const int shown = part_.chosen >= 0 && measured(*chosen()) ? part_.chosen : static_cast<int>(std::find_if(part_.runs.begin(), part_.runs.end(), measured) - part_.runs.begin());
    const RunReport& run = part_.runs[static_cast<size_t>(shown)];
    picture(ReportPicture::Kind::heat_map, shown);
    std::vector<const LinearReport*> worst;
    int64_t tokens = 0;
    for (const BlockReport& block : run.blocks)
      for (const LinearReport& linear : block.linears)
        if (std::isfinite(linear.output_relative_error)) worst.push_back(&linear), tokens = std::max(tokens, linear.measured_tokens);
    const size_t count = std::min(kWorst, worst.size());
    std::partial_sort(worst.begin(), worst.begin() + static_cast<std::ptrdiff_t>(count), worst.end(), [](const auto* a, const auto* b) { return a->output_relative_error > b->output_relative_error; });
    ReportTable all{fmt::format("The {} linears of {} with the largest output error, on {} calibration tokens.", count, run.name, tokens),
                    {"Block", "Linear", "Scheme", "Bits", "Output relative error", "Output SQNR (dB)", "Weight SQNR (dB)", "Note"},
                    {},
                    {false, true, true, false, false, false, false, true},
                    -1};
    bool notes = false;
    for (size_t i = 0; i < count; ++i) {
      const LinearReport& l = *worst[i];
      all.rows.push_back({std::to_string(l.block), l.name, l.scheme, fmt::format("{:.3f}", l.bits_per_weight), number(l.output_relative_error), fmt::format("{:.2f}", l.output_sqnr_db),
                          fmt::format("{:.2f}", l.weight_sqnr_db), l.note});
      notes = notes || !l.note.empty();
    }
    if (!notes) {
      all.header.pop_back();
      all.texts.pop_back();
      for (auto& row : all.rows) row.pop_back();
    }
    table(std::move(all));
  }

  void cost() {
    heading("What it cost");
    std::vector<std::string> stages;
    bool device = false;
    for (const RunReport& run : part_.runs)
      for (const StageCost& stage : run.costs) {
        if (std::find(stages.begin(), stages.end(), stage.stage) == stages.end()) stages.push_back(stage.stage);
        device = device || stage.peak_device_bytes > 0;
      }
    // In the order of the work, whichever run has a stage first.
    const auto place = [](const std::string& stage) { return stage == "load" ? 0 : stage == "calibrate" ? 1 : stage == "measure" ? 3 : stage == "evaluate" ? 4 : 2; };
    std::stable_sort(stages.begin(), stages.end(), [&](const std::string& a, const std::string& b) { return place(a) < place(b); });
    ReportTable all{"Seconds on the clock by stage, processor seconds of all threads, most memory at once.", {"Run"}, {}, {}, part_.chosen};
    for (const std::string& stage : stages) all.header.push_back(stage + " (s)");
    for (const char* title : {"All (s)", "Processor (s)", "Peak memory (MB)"}) all.header.emplace_back(title);
    if (device) all.header.emplace_back("Peak GPU memory (MB)");
    for (const RunReport& run : part_.runs) {
      std::vector<std::string> row = {run.name};
      double cpu = 0;
      for (const std::string& stage : stages) {
        const auto found = std::find_if(run.costs.begin(), run.costs.end(), [&](const StageCost& c) { return c.stage == stage; });
        row.push_back(found == run.costs.end() ? "–" : seconds(found->seconds));
        if (found != run.costs.end()) cpu += found->cpu_seconds;
      }
      row.push_back(seconds(run.load_seconds + run.quantize_seconds + run.evaluate_seconds));
      row.push_back(cpu > 0 ? seconds(cpu) : "–");
      row.push_back(megabytes(static_cast<double>(run.peak_rss_bytes)));
      if (device) row.push_back(megabytes(static_cast<double>(run.peak_device_bytes)));
      all.rows.push_back(std::move(row));
    }
    table(std::move(all));
    picture(ReportPicture::Kind::cost);
  }

  void predicted() {
    if (!wanted_.best.hardware) return;
    const HardwareProfile& hardware = *wanted_.best.hardware;
    heading(fmt::format("Predicted speed on {}", hardware.title));
    ReportTable all{fmt::format("Predicted, not measured: a roofline of the maker's figures, batch {:g}, {:g} tokens of context. No engine is faster; good ones reach 60 to 85 %.", wanted_.best.conditions.batch,
                                wanted_.best.conditions.context),
                    {"Run", "Prefill (tokens/s)", "Decode (tokens/s)", "To the first token (s)", "Memory (MB)", "Decode bound by"},
                    {},
                    {true, false, false, false, false, true},
                    part_.chosen};
    for (const RunReport& run : part_.runs) {
      const SpeedPrediction p = predicted_speed(workspace_, run.id, hardware, wanted_.best.conditions);
      all.rows.push_back({run.name, p.fits ? fmt::format("{:.0f}", p.prefill) : "–", p.fits ? fmt::format("{:.1f}", p.decode) : "–", p.fits ? number(p.prefill_seconds, 3) : "–", megabytes(p.memory_bytes),
                          !p.fits ? "does not fit" : p.decode_by_compute ? "compute" : "memory"});
    }
    table(std::move(all));
    if (!hardware.source.empty()) paragraph("Figures of the hardware: " + hardware.source);
  }

  void run(size_t index) {
    const RunReport& run = part_.runs[index];
    if (index == 0) {
      heading("How to repeat it");
      paragraph("Save a recipe below as recipe.yaml, let its paths name the model and the texts above (their hashes tell whether they are the same), and run the command line. With equal recipe, seed and "
                "versions the codes are the same, bit for bit, on equal hardware.");
      part_.items.emplace_back(ReportCode{"", "qbench run recipe.yaml --workspace qbench-workspace\nqbench compare --workspace qbench-workspace", false});
    }
    heading(run.name, 3);
    const Environment& e = run.environment;
    ReportTable facts{"", {"", ""}, {}, {true, true}, -1};
    const auto fact = [&](const char* name, const std::string& value) {
      if (!value.empty()) facts.rows.push_back({name, value});
    };
    fact("Run", run.id);
    fact("Scheme", run.scheme);
    fact("Pipeline", run.pipeline);
    if (!run.tags.empty()) fact("Tags", fmt::format("{}", fmt::join(run.tags, ", ")));
    fact("Notes", run.notes);
    fact("Made", run.finished.empty() ? run.started : fmt::format("{} to {} (UTC)", run.started, run.finished));
    fact("Versions", fmt::format("qbench {}, torch {}", e.program_version, e.torch_version));
    fact("Hardware", fmt::format("{}{}, {} threads{}", e.cpu, e.device.empty() || e.device == "cpu" ? "" : ", " + e.device, e.threads, e.host.empty() ? "" : ", host " + e.host));
    fact("Seed", std::to_string(run.seed));
    fact("Hashes", fmt::format("model {}, calibration {}, recipe {}", run.model_hash, run.calibration_hash.empty() ? "none" : run.calibration_hash, run.recipe_hash));
    table(std::move(facts));
    part_.items.emplace_back(ReportCode{"recipe.yaml", to_yaml(workspace_.recipe(run.id)), true});
  }

  const BestCandidate& candidate(int i) const { return best_.runs[static_cast<size_t>(i)]; }

  const Workspace& workspace_;
  ReportPart& part_;
  const ReportWanted& wanted_;
  BestPractice best_;
};

}  // namespace

WrittenReport written_report(const Workspace& workspace, const std::vector<std::string>& ids, const ReportWanted& wanted) {
  std::vector<std::string> chosen = ids;
  if (chosen.empty()) {
    for (const RunReport& head : workspace.list())
      if (head.status == RunStatus::finished) chosen.push_back(head.id);
    std::reverse(chosen.begin(), chosen.end());  // oldest first
  }
  if (chosen.empty()) throw InputError(fmt::format("{}: no finished runs to report", workspace.folder().string()));
  WrittenReport report;
  std::map<std::string, size_t> part_of;
  for (const std::string& id : chosen) {
    RunReport run = workspace.load(id);
    if (run.status != RunStatus::finished) throw InputError(fmt::format("{}: run {} is {}, expected a finished one", workspace.folder().string(), run.name, to_text(run.status)));
    const auto [at, fresh] = part_of.try_emplace(run.model_hash, report.parts.size());
    if (fresh) report.parts.push_back({run.model_name, {}, -1, {}});
    auto& runs = report.parts[at->second].runs;
    if (std::none_of(runs.begin(), runs.end(), [&](const RunReport& other) { return other.id == id; })) runs.push_back(std::move(run));
  }
  size_t count = 0;
  std::vector<std::string> models;
  for (ReportPart& part : report.parts) {
    tell_apart(part.runs);
    count += part.runs.size();
    models.push_back(part.model);
    if (report.parts.size() > 1) part.items.emplace_back(ReportHeading{part.model, 1});
    Writer(workspace, part, wanted).write();
  }
  report.title = !wanted.title.empty() ? wanted.title : fmt::format("{} quantized: {} {}", fmt::join(models, ", "), count, count == 1 ? "run" : "runs compared");
  std::vector<std::string> facts;
  for (const std::string& fact : {wanted.date, wanted.program}) if (!fact.empty()) facts.push_back(fact);
  facts.push_back("workspace " + workspace.folder().filename().string());
  report.subtitle = fmt::format("{}", fmt::join(facts, " · "));
  return report;
}

}  // namespace qb
