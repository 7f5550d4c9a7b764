"""Quantized checkpoints written here from the formats' layouts, by code that shares nothing with the project's exporters.

Every writer rounds a float Llama folder to nearest and gives back the float weights that its codes stand for.
"""
import json
import shutil

import gguf
import numpy as np
import torch
from safetensors.torch import load_file, save_file

AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]  # nibble i of a word holds column 8c + AWQ_ORDER[i]


def is_linear(name):
    return name.endswith("_proj.weight")


def rounded(weight, bits, group, symmetric, scale_dtype):
    """[out, in] → codes from 0 [out, in], scales and zero points [out, in / group]."""
    grouped = weight.float().unflatten(1, (-1, group))
    top = 2 ** bits - 1
    low, high = grouped.amin(2).clamp_max(0), grouped.amax(2).clamp_min(0)
    if symmetric:
        scale = (torch.maximum(-low, high) / (top / 2)).to(scale_dtype)
        zero = torch.full_like(low, 2 ** (bits - 1)).int()
    else:
        scale = ((high - low) / top).to(scale_dtype)
        zero = (-low / scale.float()).round().clamp(0, top).int()
    codes = (grouped / scale.float()[..., None] + zero[..., None]).round().clamp(0, top).int().flatten(1)
    return codes, scale, zero


def dequantized(codes, scale, zero):
    group = codes.shape[1] // scale.shape[1]
    return (codes - zero.repeat_interleave(group, 1)).float() * scale.float().repeat_interleave(group, 1)


def packed(values, bits, axis):
    """Unsigned values along an axis as one stream of bits, lowest first, in int32 words."""
    rows = np.moveaxis(values.numpy().astype(np.uint8), axis, -1)
    stream = np.unpackbits(rows[..., None], axis=-1, count=bits, bitorder="little").reshape(*rows.shape[:-1], -1)
    stream = np.pad(stream, [(0, 0)] * (stream.ndim - 1) + [(0, -stream.shape[-1] % 32)])
    words = np.ascontiguousarray(np.packbits(stream, axis=-1, bitorder="little")).view(np.int32)
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(words, -1, axis)))


def write_folder(source, folder, tensors, quantization=None):
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.safetensors", "*.txt", "recipes", "*.py"))
    config = json.loads((source / "config.json").read_text())
    if quantization:
        config["quantization_config"] = quantization
        if quantization["quant_method"] == "gptq":
            (folder / "quantize_config.json").write_text(json.dumps(quantization))
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "model.safetensors", metadata={"format": "pt"})


def write_float(source, folder, weights):
    """The folder in float32, its linears replaced."""
    write_folder(source, folder, {k: weights.get(k, v).float() for k, v in load_file(source / "model.safetensors").items()})


def quantize(source, layer_tensors, bits, group, symmetric, scale_dtype):
    tensors, weights = {}, {}
    for name, value in load_file(source / "model.safetensors").items():
        if not is_linear(name):
            tensors[name] = value
            continue
        codes, scale, zero = rounded(value, bits, group or value.shape[1], symmetric, scale_dtype)
        weights[name] = dequantized(codes, scale, zero)
        tensors.update({name.removesuffix("weight") + k: v for k, v in layer_tensors(codes, scale, zero).items()})
    return tensors, weights


def compressed_tensors(source, folder, bits=4, group=64, symmetric=True):
    """pack-quantized; group 0: one scale a channel."""
    def layer(codes, scale, zero):
        tensors = {"weight_packed": packed(codes, bits, 1), "weight_scale": scale, "weight_shape": torch.tensor(codes.shape)}
        if not symmetric:
            tensors["weight_zero_point"] = packed(zero, bits, 0)
        return tensors
    tensors, weights = quantize(source, layer, bits, group, symmetric, torch.bfloat16)
    spec = {"num_bits": bits, "type": "int", "symmetric": symmetric, "strategy": "group" if group else "channel", "group_size": group or None}
    write_folder(source, folder, tensors, {
        "quant_method": "compressed-tensors", "format": "pack-quantized", "quantization_status": "compressed", "ignore": ["lm_head"],
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": spec}}})
    return weights


def gptq(source, folder, bits=4, group=64, symmetric=True, version=1):
    def layer(codes, scale, zero):
        return {"qweight": packed(codes.T, bits, 0), "qzeros": packed(zero.T - int(version == 1), bits, 1), "scales": scale.T,
                "g_idx": torch.arange(codes.shape[1], dtype=torch.int32) // group}
    tensors, weights = quantize(source, layer, bits, group, symmetric, torch.float16)
    write_folder(source, folder, tensors, {
        "quant_method": "gptq", "bits": bits, "group_size": group, "desc_act": False, "sym": symmetric, "lm_head": False, "true_sequential": True,
        "checkpoint_format": "gptq" if version == 1 else "gptq_v2", "pack_dtype": "int32"})
    return weights


def awq(source, folder, group=64):
    def interleaved(values):
        return packed(values.unflatten(1, (-1, 8))[..., AWQ_ORDER].flatten(1), 4, 1)

    def layer(codes, scale, zero):
        return {"qweight": interleaved(codes.T), "qzeros": interleaved(zero.T), "scales": scale.T}
    tensors, weights = quantize(source, layer, 4, group, False, torch.float16)
    write_folder(source, folder, tensors, {"quant_method": "awq", "bits": 4, "group_size": group, "zero_point": True, "version": "gemm",
                                           "modules_to_not_convert": None})
    return weights


def mlx(source, folder, bits=4, group=64, apart=0.0):
    """Affine: scale · code + bias, the bias rounded to float16 as the scale is; apart: of the zero points from integers."""
    tensors, weights = {}, {}
    for name, value in load_file(source / "model.safetensors").items():
        if not is_linear(name):
            tensors[name] = value
            continue
        codes, scale, zero = rounded(value, bits, group, False, torch.float16)
        bias = (-(zero + apart) * scale.float()).half()
        module = name.removesuffix("weight")
        tensors |= {name: packed(codes, bits, 1).view(torch.uint32), module + "scales": scale, module + "biases": bias}
        weights[name] = codes * scale.float().repeat_interleave(group, 1) + bias.float().repeat_interleave(group, 1)
    write_folder(source, folder, tensors)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization": {"group_size": group, "bits": bits}}))
    return weights


def permuted(weight, heads):
    """Rotary pairs of a head side by side, as llama.cpp rotates a Llama."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def gguf_file(source, path, kind=None):
    """A Llama folder as GGUF with its tokenizer; kind: gguf-py's type of every matrix, embeddings too, None: F32."""
    config = json.loads((source / "config.json").read_text())
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    writer = gguf.GGUFWriter(path, "llama")
    heads, kv = config["num_attention_heads"], config["num_key_value_heads"]
    for add, value in ((writer.add_block_count, config["num_hidden_layers"]), (writer.add_context_length, config["max_position_embeddings"]),
                       (writer.add_embedding_length, config["hidden_size"]), (writer.add_feed_forward_length, config["intermediate_size"]),
                       (writer.add_head_count, heads), (writer.add_head_count_kv, kv), (writer.add_vocab_size, config["vocab_size"]),
                       (writer.add_layer_norm_rms_eps, config["rms_norm_eps"]), (writer.add_rope_freq_base, config["rope_theta"]),
                       (writer.add_rope_dimension_count, config["hidden_size"] // heads),
                       (writer.add_file_type, {None: 0, gguf.GGMLQuantizationType.Q4_0: 2, gguf.GGMLQuantizationType.Q8_0: 7}[kind]),
                       (writer.add_quantization_version, 2)):
        add(value)
    special = {t["id"] for t in tokenizer["added_tokens"] if t["special"]}
    tokens = {i: t for t, i in tokenizer["model"]["vocab"].items()} | {t["id"]: t["content"] for t in tokenizer["added_tokens"]}
    merges = [m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    # Names of llama.cpp for how text is cut before merges: GPT-2's pattern, or digits one by one before it.
    writer.add_tokenizer_pre("smollm" if tokenizer["pre_tokenizer"]["type"] == "Sequence" else "gpt-2")
    writer.add_token_list([tokens[i] for i in range(config["vocab_size"])])
    writer.add_token_types([gguf.TokenType.CONTROL if i in special else gguf.TokenType.NORMAL for i in range(config["vocab_size"])])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_add_bos_token(False)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    weights = {}
    for name, value in load_file(source / "model.safetensors").items():
        data = value.float()
        if "q_proj" in name or "k_proj" in name:
            data = permuted(data, heads if "q_proj" in name else kv)
        data, stored = data.contiguous().numpy(), names.get_name(name, try_suffixes=(".weight",))
        if kind is None or value.dim() == 1:
            writer.add_tensor(stored, data)
            weights[name] = value.float()
            continue
        quantized = gguf.quantize(data, kind)
        writer.add_tensor(stored, quantized, raw_dtype=kind)
        weights[name] = torch.from_numpy(gguf.dequantize(quantized, kind))
        if "q_proj" in name or "k_proj" in name:  # back to the folder's order of rows
            n = heads if "q_proj" in name else kv
            weights[name] = weights[name].reshape(n, -1, 2, value.shape[1]).swapaxes(1, 2).reshape(value.shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return weights
