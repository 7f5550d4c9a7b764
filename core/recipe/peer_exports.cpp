#include "core/recipe/peer_exports.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/recipe/llmc.h"

namespace qb {
namespace {

std::string commented(const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines) text += "# " + line + "\n";
  return text;
}

}  // namespace

const std::vector<ExportTarget>& export_targets() {
  static const std::vector<ExportTarget> list = {
      {"llmc", "LLMC (July 2025)", ".yml"},
      {"llm-compressor", "llm-compressor 0.14", ".py"},
      {"auto-round", "AutoRound 0.15", ".sh"},
      {"gptqmodel", "GPTQModel 7.7", ".py"},
  };
  return list;
}

RecipeExport export_recipe(const Recipe& recipe, const std::string& target, const std::vector<std::string>& comments) {
  validate(recipe);
  RecipeExport result;
  if (target == "llmc") {
    for (LlmcExport& step : to_llmc_steps(recipe)) {
      result.files.push_back({"", commented(comments) + step.yaml});
      for (std::string& note : step.notes)
        if (std::find(result.notes.begin(), result.notes.end(), note) == result.notes.end()) result.notes.push_back(std::move(note));
    }
    if (result.files.size() > 1)
      for (size_t i = 0; i < result.files.size(); ++i) result.files[i].name = fmt::format("step_{}", i + 1);
    return result;
  }
  const auto write = target == "llm-compressor" ? llm_compressor_script : target == "auto-round" ? auto_round_script : target == "gptqmodel" ? gptqmodel_script : nullptr;
  if (!write) throw InputError(fmt::format("there is no export to \"{}\", expected llmc, llm-compressor, auto-round or gptqmodel", target));
  const std::string body = write(recipe, result.notes);
  // What the file cannot say stands in it, too: it may travel without our messages.
  std::vector<std::string> head = comments;
  for (const std::string& note : result.notes) head.push_back("not said here: " + note);
  for (std::string& line : head) std::replace(line.begin(), line.end(), '\n', ' ');
  const size_t first = body.find('\n') + 1;  // behind the interpreter's line
  result.files.push_back({"", body.substr(0, first) + commented(head) + body.substr(first)});
  return result;
}

std::filesystem::path path_of(const ExportedFile& file, const std::filesystem::path& path) {
  if (file.name.empty()) return path;
  return path.parent_path() / (path.stem().string() + "_" + file.name + path.extension().string());
}

std::string python_text(const std::string& text) { return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace); }  // JSON's escapes are Python's
std::string python_bool(bool value) { return value ? "True" : "False"; }

std::string shell_text(const std::string& text) {
  std::string out = "'";
  for (const char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

std::string number_text(double value) {
  std::string text = fmt::format("{:.12f}", value);
  while (text.back() == '0' && text[text.size() - 2] != '.') text.pop_back();
  return text;
}

std::string pattern_regex(const std::string& pattern) {
  if (pattern.rfind("re:", 0) == 0) return "(?:" + pattern.substr(3) + ")$";
  std::string out;
  for (const char c : pattern) {
    if (c == '*') out += ".*";
    else if (c == '?') out += '.';
    else if (std::string(".^$+()[]{}|\\").find(c) != std::string::npos) out += std::string("\\") + c;
    else out += c;
  }
  return out + "$";
}

void refuse(const std::string& key, const std::string& why) { throw RecipeError("", 0, 0, key, why); }

void note_other_knobs(const StageSpec& stage, std::initializer_list<const char*> said, const std::string& program, std::vector<std::string>& notes) {
  for (const KnobInfo& knob_info : find_method(stage.method)->knobs) {
    if (std::find(said.begin(), said.end(), knob_info.name) != said.end()) continue;
    const KnobValue value = knob(stage, knob_info.name);
    if (to_text(value) != to_text(knob_info.default_value)) notes.push_back(fmt::format("{}.{}: {} has no such setting; {} is not written", stage.method, knob_info.name, program, to_text(value)));
  }
}

void note_common(const Recipe& recipe, const std::string& program, std::vector<std::string>& notes) {
  if (!recipe.checkpoint.empty()) refuse("checkpoint", program + " has no counterpart of a recipe that measures a checkpoint");
  if (!recipe.scheme.weights) refuse("scheme.weights", program + " quantizes no activations alone; give weights too");
  if (!recipe.evaluation.empty()) notes.push_back(fmt::format("evaluation: {} measures nothing here; export its result and import it (qbench import) to compare", program));
  if (!recipe.importance.empty()) notes.push_back(fmt::format("calibration.importance: {} reads no importance matrices; not written", program));
  if (recipe.dequantize) notes.push_back(fmt::format("model.dequantize: {} takes a float model; give one", program));
  if (recipe.scheme.embedding) notes.push_back(fmt::format("scheme.embedding: {} leaves the embedding float; not written", program));
}

std::string python_windows(const CalibrationSpec& calibration, const std::string& program, std::vector<std::string>& notes) {
  const SamplingSpec& s = calibration.sampling;
  const std::string ending = calibration.corpus.path.extension().string();
  std::string text;
  const bool objects = ending == ".jsonl";
  if (objects)
    text += fmt::format("with open(TEXT, encoding=\"utf-8\") as file:\n    documents = [json.loads(line)[{}] for line in file if line.strip()]\n", python_text(calibration.corpus.field));
  else
    text += "with open(TEXT, encoding=\"utf-8\") as file:\n    documents = [file.read()]\n";
  if (objects && calibration.corpus.field == "messages") text += "documents = [tokenizer.apply_chat_template(messages, tokenize=False) for messages in documents]\n";
  if (!objects && (ending == ".json" || ending.empty())) notes.push_back(fmt::format("calibration.corpus: {}'s script reads a text file or a .jsonl file; make one of {}", program, calibration.corpus.path.string()));
  const std::string special = s.bos == Bos::every_window || s.bos == Bos::none ? ", add_special_tokens=False" : "";
  const int64_t room = s.seq_len - (s.bos == Bos::every_window ? 1 : 0);
  const std::string lead = s.bos == Bos::every_window ? "[tokenizer.bos_token_id] + " : "";
  if (s.sampling == "documents" || s.sampling == "txt_general_preproc" || s.sampling == "pileval_awq" || s.sampling == "c4_gptq") {
    if (!objects) text += "documents = [line.strip() for line in documents[0].splitlines() if line.strip()]\n";
    text += fmt::format("random.Random({}).shuffle(documents)\nwindows = [{}tokenizer(text{}).input_ids[:{}] for text in documents[:{}]]\n", s.seed, lead, special, room, s.samples);
    if (s.sampling != "documents") notes.push_back(fmt::format("calibration.sampling: {} is not written; documents in random order are", s.sampling));
    notes.push_back("calibration.seed: documents are shuffled by Python's generator, into another order than here");
    return text;
  }
  text += fmt::format("ids = tokenizer(\"\\n\\n\".join(documents){}).input_ids\n", special);
  if (s.sampling == "sequential") {
    text += fmt::format("windows = [{}ids[i:i + {}] for i in range(0, len(ids) - {} + 1, {})][:{}]\n", lead, room, room, room, s.samples);
    if (objects) notes.push_back("calibration.corpus: documents are joined by blank lines");
    return text;
  }
  text += fmt::format("generator = random.Random({})\nwindows = [{}ids[i:i + {}] for i in (generator.randrange(len(ids) - {} + 1) for _ in range({}))]\n", s.seed, lead, room, room, s.samples);
  if (s.sampling != "random_windows") notes.push_back(fmt::format("calibration.sampling: {} is not written; windows at random places are", s.sampling));
  notes.push_back("calibration.seed: windows are drawn by Python's generator, at other places than here");
  return text;
}

std::string python_imports(const std::string& windows) {
  std::string text;
  for (const char* module : {"json", "random"})
    if (windows.find(std::string(module) + ".") != std::string::npos) text += fmt::format("import {}\n", module);
  return text.empty() ? text : text + "\n";
}

std::vector<StageSpec> stages_of(const Recipe& recipe) {
  std::vector<StageSpec> stages = recipe.pipeline;
  if (stages.size() > 1 && stages.back().method == "rtn" && stages.back().knobs.empty()) stages.pop_back();
  return stages;
}

std::string output_name(const Recipe& recipe, const std::string& program) {
  std::string name;
  for (const char c : recipe.name.empty() ? recipe.model.filename().string() : recipe.name) name += std::isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '-' ? c : '-';
  return name + "-" + program;
}

}  // namespace qb
