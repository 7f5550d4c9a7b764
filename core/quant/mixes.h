#pragma once
#include <string>
#include <vector>

#include "core/model/architecture.h"
#include "core/quant/scheme.h"

namespace qb {

// Mixes of ggml's types by the rules that llama.cpp's quantizer has under these names: more bits for values, outputs and the ends of
// the stack of layers. Source: llama.cpp, src/llama-quant.cpp (2026-10), with an importance matrix.
const std::vector<std::string>& mix_names();  // "Q2_K", "Q3_K_M", "Q4_K_M" …
bool is_mix(const std::string& name);         // in any case
// The mix's own spelling and its first type. Throws InternalError for no mix.
std::string mix_name(const std::string& name);
Storage first_type(const std::string& mix);

// The scheme with an override for each linear whose type differs from the mix's first: behind those that the scheme has, which win.
// A row that super-blocks do not divide has the type that llama.cpp falls back to; one that no block divides stays float.
Scheme with_mix(Scheme scheme, const std::string& mix, const Architecture& architecture);
// What the mix makes of the embedding where it is the head too, and of the head; of another embedding.
Storage head_type(const std::string& mix, const Architecture& architecture);
Storage embedding_type(const std::string& mix, const Architecture& architecture);

}  // namespace qb
