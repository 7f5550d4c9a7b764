#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/quant/scheme.h"

namespace qb {

// One combination that a format or an engine takes. Types as NumberType::text() spells them.
struct SchemeRule {
  std::vector<std::string> types;                  // of weights: "int4", "e4m3"
  bool symmetric = true, asymmetric = false;
  std::vector<Granularity> granularities;
  std::vector<int64_t> group_sizes = {};           // empty: any that divides in_features
  std::vector<std::string> activations = {""};     // "": float; "int8 token symmetric", as activation_text() has it
  int64_t in_multiple = 1, out_multiple = 1;       // of the linear's features
};

// One way of rounding keys and values that a format can say or an engine does.
struct CacheRule {
  std::vector<std::string> types;
  bool symmetric = true, asymmetric = false;
  std::vector<Granularity> granularities;
  bool dynamic = false;
};

// What a format can hold: the one table that its writer, preflight, the form, dialogs and README's table are made from.
struct FormatInfo {
  std::string name;                        // "compressed-tensors"
  std::string title;                       // "compressed-tensors (vLLM, llm-compressor)"
  std::string help;                        // one line
  bool codes = true;                       // false: weights are written as numbers, whatever the scheme
  std::vector<SchemeRule> schemes;
  std::vector<ScaleType> scale_types;      // that scales can be stored in
  bool float_zero_point = false;
  bool uniform = false;                    // all linears in codes have one scheme
  bool transforms = false;                 // says that inputs are rotated at run time, by Sylvester's Hadamard matrices
  std::vector<CacheRule> caches = {};      // empty: says nothing of keys and values
  bool head = false, embedding = false;    // holds their codes, by the rules of linears
};
const std::vector<FormatInfo>& export_formats();
const FormatInfo* find_format(const std::string& name);  // nullptr when there is none of that name

// What an engine takes of each format. Rules are of a version at a date: engines change.
struct EngineInfo {
  std::string name;                        // "vllm"
  std::string title, version, date;        // "vLLM", "0.32", "2026-10"
  std::string source;                      // "tried here" or "read in its source"
  std::string serve;                       // command line; {} stands for the checkpoint
  bool fuses = false;                      // linears that read the same value must have one scheme (q, k, v; gate, up)
  struct Takes {
    std::string format;
    std::vector<SchemeRule> schemes;       // empty: all that the format holds
    std::string note = {};                 // what to know
    bool transforms = false;               // rotates inputs at run time where the format says so, of linears without bias
    std::vector<CacheRule> caches = {};    // of those that the format can say; empty: none
    bool experts = true;                   // computes codes of experts
    bool head = true, embedding = true;    // of the head and the embedding, where the format holds them
  };
  struct Unread {
    std::vector<std::string> formats, families;  // Architecture::family
    std::string why;
  };
  std::vector<Takes> takes;
  // Ways of rounding keys and values that are asked for when it is started, whatever the checkpoint says.
  struct CacheFlag {
    QuantSpec spec;
    std::string flags;                     // behind `serve`
  };
  std::vector<CacheFlag> cache_flags = {};
  std::vector<Unread> unread = {};         // families of which it does not find everything in files that others read
};
const std::vector<EngineInfo>& export_engines();
// What to know of a format in an engine: its note, what it does not compute, whose models it does not read. Empty: nothing.
std::string note_of(const EngineInfo& engine, const EngineInfo::Takes& takes);
const EngineInfo* find_engine(const std::string& name);
// The command line that serves a checkpoint, for a shell whatever characters the path has. cache: how keys and values shall be rounded.
std::string serve_command(const EngineInfo& engine, const std::filesystem::path& checkpoint, const QuantSpec* cache = nullptr);
std::string known_format_names();          // for messages: "compressed-tensors, gptq, …"
std::string known_engine_names();

// A linear that shall be stored, as far as rules look at it.
struct StoredScheme {
  std::string module;                      // empty: sentences begin without it
  int64_t out_features = 0, in_features = 0;
  QuantSpec weights;
  std::optional<QuantSpec> activations;
  bool exceptions = false;                 // kept columns or outliers beside the codes
  bool input_hadamard = false;
  int input = 0;                           // linears of a block with the same one share their input
  int block = 0;
  std::string made_by = {};                // method that leaves something else than the scheme says
  bool expert = false, bias = false;       // it is an expert's, has a bias
  bool head = false, embedding = false;    // it is the head's matrix, the embedding's, or both
};

// Keys and values that shall be rounded, as far as rules look at them.
struct StoredCache {
  QuantSpec spec;
  std::string keys = {};                   // module that makes the keys; empty: not known yet
};

// One sentence for each kind of thing that stands against it, with the nearest that is taken; empty: none does. engine: nullptr for
// the format alone. floats: linears that stay float, for engines that fuse. family: of the model; empty: any.
std::vector<std::string> obstacles(const FormatInfo& format, const EngineInfo* engine, const std::vector<StoredScheme>& linears,
                                   const std::vector<StoredScheme>& floats = {}, const std::string& family = {}, const StoredCache* cache = nullptr);
// Whether any format says how keys and values are rounded: else it is an engine's flag.
bool files_hold(const QuantSpec& cache);

std::string activation_text(const QuantSpec& spec);  // "int8 token symmetric"
std::string describe(const CacheRule& rule);         // "e4m3, per tensor or head, static"
std::string describe(const SchemeRule& rule);        // "int4 or int8, symmetric, per channel or group of 32, 64 or 128"

}  // namespace qb
