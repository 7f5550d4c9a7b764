#pragma once
#include "core/model/families.h"
#include "core/model/gguf_describer.h"
#include "core/model/gguf_translator.h"

namespace qb {

// GGUF's side of the rows of the architecture table. name: general.architecture.
GgufForm llama_gguf(const std::string& name);  // Llama, Mistral, Mixtral, Granite
GgufForm qwen_gguf(const std::string& name);
GgufForm qwen_moe_gguf(const std::string& name);
GgufForm phi3_gguf();
GgufForm gemma_gguf(const std::string& name);
GgufForm bloom_gguf();
GgufForm falcon_gguf();
GgufForm neox_gguf();
GgufForm starcoder2_gguf();
GgufForm stablelm_gguf();
GgufForm internlm2_gguf();
// In gguf_experts.cpp.
GgufForm olmoe_gguf();
GgufForm granitemoe_gguf();
GgufForm glm4_moe_gguf();
GgufForm dots1_gguf();
GgufForm ernie_moe_gguf();
GgufForm hunyuan_moe_gguf();
GgufForm minimax_m2_gguf();
GgufForm phimoe_gguf();
GgufForm gpt_oss_gguf();
GgufForm llama4_gguf();
GgufForm deepseek_gguf(const std::string& name);  // deepseek2: all with latent attention but Mistral 4

}  // namespace qb
