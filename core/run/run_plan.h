#pragma once
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "core/measure/evaluation.h"
#include "core/model/model_info.h"
#include "core/recipe/recipe.h"
#include "core/run/run.h"

namespace qb {

// What a run computes, in multiply-adds and weights: what its seconds are made of, and what those of another run are compared by.
struct RunWork {
  std::string kind;        // runs of one kind take the same time for the same work: stages with their knobs, what is rounded to what sort of grid
  std::string methods;     // of the kind's stages: "awq → gptq"
  int cost = 0;            // PresetCost: runs of one cost are a poor likeness of each other, and better than none
  std::string statistics;  // runs with the same one leave each other statistics and float states; empty: there is nothing to leave
  double load = 0;         // tokens that are read and cut
  double passes = 0;       // of calibration text through the blocks
  double passes_known = 0; // the same where another run has left its statistics
  double measure = 0;      // of block reports
  double other = 0;        // embedding, head, and what learns on the finished model
  struct Shape {
    int64_t out_features = 0, in_features = 0;
    double count = 0, seconds = 0;  // seconds in the stages of the pipeline, of all together; 0 in a plan
  };
  std::vector<Shape> shapes;  // of quantized linears
  struct Evaluation {
    std::string conditions;  // of the model and text: a float model is measured once under the same ones
    std::string sort;        // figures of one sort take the same time for the same work: dtype, whether inputs are rounded
    double work = 0, seconds = 0;
    bool of_float = false;
  };
  std::vector<Evaluation> evaluations;
};

// How long texts are. evaluation: tokens in windows, one for each of the recipe's.
struct TextLengths {
  double read = 0, calibration = 0, sample_length = 0;
  std::vector<double> evaluation;
  std::vector<std::string> conditions;
};
// What stands for a figure of the float model among others: model, data, evaluator, settings.
std::string conditions_of(const std::string& model_hash, const std::string& device, const EvaluationResult& conditions);
// RunWork::statistics of a run on this text; empty without one.
std::string statistics_of(const Recipe& recipe, const std::string& model_hash, const std::string& calibration_hash, const std::string& device);
RunWork work_of(const Recipe& recipe, const ModelInfo& model, const TextLengths& texts);

// A recipe that fits its model and data, before it is carried out.
struct RunPlan {
  std::vector<std::string> notes;        // as preflight() returns them
  std::string recipe_hash;               // that its report will have
  std::string model_hash, calibration_hash;
  RunWork work;
  double memory_bytes = 0, device_bytes = 0, disk_bytes = 0;  // at most, roughly; device: of a GPU
};

// Checks recipes as preflight() does and tells what each will take. Models and texts that recipes have in common are read once, as
// long as they stand behind one another.
class RunPlanner {
 public:
  RunPlanner(RunOptions options, std::filesystem::path workspace);
  ~RunPlanner();
  // Throws as preflight().
  RunPlan plan(const Recipe& recipe);

 private:
  struct Opened;
  RunOptions options_;
  std::filesystem::path workspace_;
  std::unique_ptr<Opened> opened_;
};

}  // namespace qb
