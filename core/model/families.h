#pragma once
#include <string>
#include <vector>

#include "core/model/architecture.h"
#include "core/model/config_fields.h"
#include "core/model/known_keys.h"

namespace qb {

class GgufTranslator;
class GgufDescriber;

// How GGUF files hold a family. Empty names: they do not.
struct GgufForm {
  std::vector<std::string> names = {};           // general.architecture
  bool permuted = false;                         // queries and keys lie as llama.cpp's NORM rotation wants them
  bool tiled_heads = false;                      // value heads of linear attention lie in turns of the key heads
  bool equal_heads = false;                      // heads are hidden_size / heads wide, whatever else the file may say
  bool partial_rotation = false;                 // rope.dimension_count may be less than a head
  std::string theta = "rope_theta", fraction = "partial_rotary_factor";  // config.json's keys
  bool own_heads = false;                        // translate says all about the heads' widths and numbers
  std::string kv_heads = "num_key_value_heads";  // config.json's key; empty: as many as heads
  std::string (*translate)(GgufTranslator& t) = nullptr;  // the keys that not all families have; returns another model_type or ""
  void (*describe)(GgufDescriber& d) = nullptr;  // the same keys, written
  bool split_qkv = false;                        // llama.cpp wants queries, keys and values apart that Hugging Face fuses
  bool rms_epsilon = false;                      // a layer norm's epsilon stands where an RMS norm's would
};

// One row of the architecture table: a family's names and how its configuration fills an Architecture.
struct Family {
  std::string name;
  std::string title;                     // as people call its models
  std::vector<std::string> model_types;  // config.json's model_type
  GgufForm gguf;
  NameTable names;
  void (*configure)(const ConfigFields& fields, Architecture& architecture);  // every key that it reads counts as understood
  std::vector<HarmlessKey> harmless = {};  // keys of this family that change nothing, beside known_keys.h's
};

const std::vector<Family>& families();
const Family* family_of_model_type(const std::string& model_type);
const Family* family_of_gguf(const std::string& architecture);
std::string known_model_types();  // for messages: "bloom, falcon, …"

// The whole description from a config.json object (or one made from GGUF metadata).
// Throws InputError: unknown model_type, missing, mistyped or absurd fields, and keys that the family does not understand.
Architecture architecture_from_config(ConfigFields fields);

// Rotary parameters, transformers 5's rope_parameters or the older rope_theta, rope_scaling (in families_rope.cpp).
// rotary_fraction: partial_rotary_factor when the configuration does not say.
struct RopeDefaults {
  double theta = 10000;
  double fraction = 1;
  std::vector<std::string> theta_keys = {"rope_theta"};
  std::vector<std::string> fraction_keys = {"partial_rotary_factor"};
  bool all_longrope = false;  // Phi-3 calls its long rope "su", "yarn" or "longrope"
  bool alpha = false;         // HunYuan's dynamic scaling by a fixed alpha
  bool mrope = false;         // positions in time, height and width: for text all three are the same
};
void read_rope(const ConfigFields& fields, Architecture& architecture, const RopeDefaults& defaults);
// ropes[0] of full attention, ropes[1] of sliding layers. local_key: where the latter's base stands in older configurations.
void read_rope_per_layer_type(const ConfigFields& fields, Architecture& architecture, double global_theta, double local_theta,
                              const std::string& local_key = "rope_local_base_freq");
// The object that holds rotary parameters beside the base; empty when there is none.
ConfigFields rope_fields(const ConfigFields& fields);

}  // namespace qb
