#include "core/model/architecture.h"

namespace qb {

NameTable gguf_names() {
  NameTable n;
  n.embedding = "token_embd", n.final_norm = "output_norm", n.head = "output", n.block = "blk.", n.embedding_norm = "token_embd_norm";
  n.input_norm = "attn_norm", n.mlp_norm = "ffn_norm";
  n.post_attention_norm = "post_attention_norm", n.post_mlp_norm = "post_ffw_norm";
  n.positions = "position_embd", n.sinks = "attn_sinks.weight", n.choice_bias = "exp_probs_b.bias", n.shared_gate_up = "ffn_gate_up_shexp";
  n.q_a = "attn_q_a", n.q_a_norm = "attn_q_a_norm", n.q_b = "attn_q_b", n.kv_a = "attn_kv_a_mqa", n.kv_a_norm = "attn_kv_a_norm", n.kv_b = "attn_kv_b";
  n.q = "attn_q", n.k = "attn_k", n.v = "attn_v", n.qkv = "attn_qkv", n.o = "attn_output";
  n.q_norm = "attn_q_norm", n.k_norm = "attn_k_norm";
  n.gate = "ffn_gate", n.up = n.gate_up = "ffn_up", n.down = "ffn_down";
  n.router = "ffn_gate_inp", n.expert_gate = "ffn_gate_exps", n.expert_up = "ffn_up_exps", n.expert_down = "ffn_down_exps";
  n.delta_qkv = "attn_qkv", n.delta_qkvz = "ssm_in", n.delta_z = "attn_gate", n.delta_ba = "ssm_ba", n.delta_b = "ssm_beta", n.delta_a = "ssm_alpha";
  n.convolution = "ssm_conv1d", n.decay = "ssm_a", n.step = "ssm_dt.bias", n.delta_norm = "ssm_norm", n.delta_out = "ssm_out";
  n.convolution_in = "shortconv.in_proj", n.convolution_out = "shortconv.out_proj";
  n.token_inputs = "per_layer_token_embd", n.token_projection = "per_layer_model_proj", n.token_norm = "per_layer_proj_norm";
  n.streams_in = "altup_proj", n.streams_out = "altup_unembd_proj";
  n.shared_router = "ffn_gate_inp_shexp", n.shared_gate = "ffn_gate_shexp", n.shared_up = "ffn_up_shexp", n.shared_down = "ffn_down_shexp";
  return n;
}

std::string_view name_of(Activation activation) {
  switch (activation) {
    case Activation::silu: return "silu";
    case Activation::gelu: return "gelu";
    case Activation::gelu_tanh: return "gelu_tanh";
    case Activation::quick_gelu: return "quick_gelu";
    case Activation::relu: return "relu";
    case Activation::relu_squared: return "relu²";
    case Activation::clamped_swiglu: return "clamped swiglu";
  }
  return "?";
}

std::string_view name_of(RopeSpec::Kind kind) {
  switch (kind) {
    case RopeSpec::Kind::plain: return "plain";
    case RopeSpec::Kind::linear: return "linear";
    case RopeSpec::Kind::dynamic: return "dynamic";
    case RopeSpec::Kind::llama3: return "llama3";
    case RopeSpec::Kind::yarn: return "yarn";
    case RopeSpec::Kind::longrope: return "longrope";
    case RopeSpec::Kind::divisors: return "divisors";
  }
  return "?";
}

}  // namespace qb
