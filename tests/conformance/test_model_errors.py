"""Damaged models: every field of the configuration and every tensor, one clear error each, at opening."""
import json
import os
import subprocess

import pytest
import torch
from safetensors.torch import load_file, save_file

import gguf_zoo
import model_zoo

# Fields that decide the result, by model; each must be refused when it has another type or an absurd value.
DIMENSIONS = ["vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings"]
LLAMA = DIMENSIONS + ["num_key_value_heads", "intermediate_size", "rms_norm_eps", "hidden_act", "tie_word_embeddings"]
USED = {
    "llama": LLAMA + ["head_dim", "attention_bias", "mlp_bias", "rope_parameters"],
    "llama-linear": ["rope_parameters.factor", "rope_parameters.rope_type", "rope_parameters.rope_theta"],
    "llama-dynamic": ["rope_parameters.factor"],
    "llama-llama3": ["rope_parameters." + key for key in ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")],
    "llama-yarn-mscale": ["rope_parameters." + key for key in ("factor", "original_max_position_embeddings", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate")],
    "granite": ["embedding_multiplier", "residual_multiplier", "attention_multiplier", "logits_scaling"],
    "mistral": LLAMA + ["sliding_window"],
    "mixtral": LLAMA + ["num_local_experts", "num_experts_per_tok"],
    "qwen2": LLAMA + ["use_sliding_window", "sliding_window", "layer_types"],
    "qwen2-moe": LLAMA + ["num_experts", "num_experts_per_tok", "moe_intermediate_size", "shared_expert_intermediate_size", "norm_topk_prob",
                          "decoder_sparse_step", "mlp_only_layers", "qkv_bias"],
    "qwen3": LLAMA + ["head_dim", "attention_bias"],
    "phi3-longrope": LLAMA + ["original_max_position_embeddings", "rope_parameters.short_factor", "rope_parameters.long_factor", "rope_parameters.partial_rotary_factor"],
    "gemma2": DIMENSIONS + ["num_key_value_heads", "head_dim", "hidden_activation", "query_pre_attn_scalar", "attn_logit_softcapping", "final_logit_softcapping", "sliding_window", "layer_types"],
    "gemma3": DIMENSIONS + ["num_key_value_heads", "head_dim", "hidden_activation", "query_pre_attn_scalar", "sliding_window", "layer_types", "rope_parameters.full_attention", "rope_parameters.sliding_attention"],
    "opt": DIMENSIONS + ["ffn_dim", "word_embed_proj_dim", "do_layer_norm_before", "_remove_final_layer_norm", "enable_bias", "layer_norm_elementwise_affine", "activation_function"],
    "bloom": ["vocab_size", "hidden_size", "n_layer", "n_head", "layer_norm_epsilon", "apply_residual_connection_post_layernorm"],
    "falcon-40b": ["vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_kv_heads", "new_decoder_architecture", "multi_query", "bias", "alibi",
                   "activation", "layer_norm_epsilon", "ffn_hidden_size", "num_ln_in_parallel_attn"],
    "falcon-7b": ["parallel_attn", "multi_query"],
    "gpt-neox": DIMENSIONS + ["intermediate_size", "layer_norm_eps", "hidden_act", "use_parallel_residual", "attention_bias", "rope_parameters.partial_rotary_factor"],
    "starcoder2": DIMENSIONS + ["norm_epsilon", "use_bias", "sliding_window"],
    "stablelm": DIMENSIONS + ["layer_norm_eps", "use_qkv_bias", "qk_layernorm", "use_parallel_residual", "rope_parameters.partial_rotary_factor"],
}
# Values that no field accepts: a text where a number belongs, a number where a text belongs, impossible sizes.
ABSURD = [{"a": 1}, "seven", -3]
OBJECTS = ["rope_parameters", "full_attention", "sliding_attention"]
ABSURD_NUMBERS = [0, -1, 1.5, 10**12, 2**64, "4", True, float("inf")]
REQUIRED = ["vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "model_type"]


def inspect(tool, paths):
    """One JSON object a model; the program must not fall over."""
    done = subprocess.run([tool("model_inspect"), *map(str, paths)], capture_output=True, text=True)
    assert done.returncode == 0, f"exit {done.returncode}: {done.stderr}"
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == len(paths)
    return lines


def variants(folder, scratch, configs):
    """Folders that share the weights of `folder` and differ in config.json."""
    paths = []
    for i, config in enumerate(configs):
        path = scratch / f"v{i}"
        path.mkdir(parents=True)
        os.symlink(folder / "model.safetensors", path / "model.safetensors")
        (path / "config.json").write_text(json.dumps(config))
        paths.append(path)
    return paths


def changed(config, key, value):
    config = json.loads(json.dumps(config))
    *parents, last = key.split(".")
    place = config
    for parent in parents:
        place = place[parent]
    place[last] = value
    return config


def assert_refused(line, *needles):
    assert line.get("kind") == "input", f"opened or failed otherwise: {line}"
    for needle in needles:
        assert needle in line["error"], line["error"]


@pytest.mark.parametrize("name", USED)
def test_every_used_field_is_checked(name, tmp_path, tool):
    model_zoo.save_model(name, tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    cases = [(key, value) for key in USED[name] for value in ABSURD if not (isinstance(value, dict) and key.split(".")[-1] in OBJECTS)]
    paths = variants(tmp_path / "model", tmp_path / "cases", [changed(config, key, value) for key, value in cases])
    for (key, value), line in zip(cases, inspect(tool, paths)):
        assert_refused(line, "config.json", key.split(".")[-1])


def test_sizes_that_make_no_sense(tmp_path, tool):
    model_zoo.save_model("mixtral", tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    keys = ["vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size", "num_local_experts",
            "num_experts_per_tok", "max_position_embeddings", "head_dim", "sliding_window"]
    # Two to the 64th is written as a float, which is a whole number too large.
    cases = [(key, value) for key in keys for value in ABSURD_NUMBERS]
    paths = variants(tmp_path / "model", tmp_path / "cases", [changed(config, key, value) for key, value in cases])
    for (key, value), line in zip(cases, inspect(tool, paths)):
        assert_refused(line, "config.json", key)


@pytest.mark.parametrize("key", REQUIRED)
def test_missing_fields(key, tmp_path, tool):
    model_zoo.save_model("llama", tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    del config[key]
    (line,) = inspect(tool, variants(tmp_path / "model", tmp_path / "cases", [config]))
    assert_refused(line, "config.json", key, "missing")


def test_sizes_that_do_not_fit_together(tmp_path, tool):
    model_zoo.save_model("llama", tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    cases = [({"num_key_value_heads": 3}, "num_key_value_heads"), ({"num_attention_heads": 5, "head_dim": None, "num_key_value_heads": 5}, "hidden_size"),
             ({"head_dim": 7}, "rotated dimensions"), ({"hidden_size": 64}, "shape"), ({"vocab_size": 97}, "shape [96, 32], expected [97, 32]"),
             ({"num_hidden_layers": 4}, "model.layers.3"), ({"intermediate_size": 47}, "expected [47, 32]"), ({"attention_bias": True}, "q_proj.bias")]
    paths = variants(tmp_path / "model", tmp_path / "cases", [config | change for change, _ in cases])
    for (change, needle), line in zip(cases, inspect(tool, paths)):
        assert_refused(line, needle)


def test_unknown_architecture_names_the_known_ones(tmp_path, tool):
    model_zoo.save_model("llama", tmp_path / "model")
    model_zoo.edit_config(tmp_path / "model", lambda c: c.update(model_type="unheard_of"))
    (line,) = inspect(tool, [tmp_path / "model"])
    assert_refused(line, "config.json", '"unheard_of"', "llama", "qwen3_moe", "internlm2")


def test_quantized_checkpoints_are_refused_by_name(tmp_path, tool):
    model_zoo.save_model("llama", tmp_path / "model")
    model_zoo.edit_config(tmp_path / "model", lambda c: c.update(quantization_config={"quant_method": "gptq", "bits": 4}))
    (line,) = inspect(tool, [tmp_path / "model"])
    assert_refused(line, "config.json", "gptq")


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '"text"', "null", '{"model_type": "llama"', "\x00\xff"])
def test_configuration_that_is_no_json_object(text, tmp_path, tool):
    model_zoo.save_model("llama", tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text(text)
    (line,) = inspect(tool, [tmp_path / "model"])
    assert_refused(line, "config.json")


def test_places_where_no_model_is(tmp_path, tool):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("hello")
    lines = inspect(tool, [tmp_path / "nowhere", tmp_path / "empty", tmp_path / "text.txt"])
    assert_refused(lines[0], "nowhere", "no such")
    assert_refused(lines[1], "empty", "config.json")
    assert_refused(lines[2], "text.txt", "GGUF")


@pytest.mark.parametrize("name", ["llama-tied-biased", "qwen2-moe", "gemma3", "opt-350m", "falcon-40b", "stablelm-2-12b"])
def test_every_tensor_must_be_there_with_its_shape(name, tmp_path, tool):
    folder = tmp_path / "model"
    model_zoo.save_model(name, folder)
    tensors = load_file(folder / "model.safetensors")
    cases = []
    for key, value in tensors.items():
        without = {k: v for k, v in tensors.items() if k != key}
        cases.append((key, "missing", without))
        cases.append((key, "expected", without | {key: torch.cat([value, value[:1]])}))
        cases.append((key, "expected", without | {key: value[None]}))
        cases.append((key, "stored as I32", without | {key: value.int()}))
    paths = []
    for i, (_, _, changed_tensors) in enumerate(cases):
        path = tmp_path / f"case{i}"
        path.mkdir()
        (path / "config.json").write_text((folder / "config.json").read_text())
        save_file(changed_tensors, path / "model.safetensors", metadata={"format": "pt"})
        paths.append(path)
    for (key, needle, _), line in zip(cases, inspect(tool, paths)):
        assert_refused(line, key, needle)


# What may lie in a block without being read: masks, rotary tables, scales of quantized caches.
HARMLESS_TENSORS = {"llama": ["self_attn.rotary_emb.inv_freq", "self_attn.k_scale", "self_attn.v_scale", "mlp.down_proj.input_scale"],
                    "gpt-neox": ["attention.bias", "attention.masked_bias", "attention.rotary_emb.inv_freq"]}
# What another version of the family would compute with.
FOREIGN_TENSORS = {"llama": ["self_attn.q_proj.bias", "self_attn.q_norm.weight", "self_attn.attn_sub_norm.weight", "mlp.ffn_sub_norm.weight", "mlp.up_proj.weight_scale", "input_layernorm.bias"],
                   "gpt-neox": ["attention.q_norm.weight"]}


@pytest.mark.parametrize("name, block", [("llama", "model.layers.1."), ("gpt-neox", "gpt_neox.layers.1.")])
def test_tensors_inside_a_block_that_nothing_reads(name, block, tmp_path, tool):
    folder = tmp_path / "model"
    model_zoo.save_model(name, folder)
    tensors = load_file(folder / "model.safetensors")
    embedding = next(key for key in tensors if "embed_" in key)
    outside = {"model.mtp.0.weight": torch.ones(4), "vision_tower.layers.1.q_proj.bias": torch.ones(4), block.replace("1.", "3.") + "eh_proj.weight": torch.ones(4)}
    cases = [({block + key: torch.ones(8) for key in HARMLESS_TENSORS[name]} | outside, None)]
    cases += [({block + key: torch.ones(8)}, block + key) for key in FOREIGN_TENSORS[name]]
    cases.append(({embedding.removesuffix("weight") + "bias": torch.ones(8)}, embedding.removesuffix("weight") + "bias"))
    paths = []
    for i, (extra, _) in enumerate(cases):
        path = tmp_path / f"case{i}"
        path.mkdir()
        (path / "config.json").write_text((folder / "config.json").read_text())
        save_file(tensors | extra, path / "model.safetensors", metadata={"format": "pt"})
        paths.append(path)
    for (_, refused), line in zip(cases, inspect(tool, paths)):
        if refused is None:
            assert "error" not in line, line
        else:
            assert_refused(line, f'"{refused}"', "model.safetensors", "[8]")


def test_keys_that_nothing_reads(tmp_path, tool):
    model_zoo.save_model("llama", tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    cases = [("is_causal", False, "true"), ("attention_multiplier", 0.5, "no such key"), ("rope_parameters.alpha", 1000.0, "no such key"), ("layer_types", ["sliding_attention"] * 3, "full_attention"),
             ("sliding_window", 24, "no such key"), ("quantization_of_tomorrow", {"bits": 4}, "no such key")]
    paths = variants(tmp_path / "model", tmp_path / "cases", [changed(config, key, value) for key, value, _ in cases])
    for (key, value, expected), line in zip(cases, inspect(tool, paths)):
        assert_refused(line, "config.json", f'"{key}" is {json.dumps(value, separators=(",", ":"))[:50]}', expected)


def test_gguf_keys_and_tensors_that_nothing_reads(tmp_path, tool):
    import gguf
    import numpy

    class Extended(gguf.GGUFWriter):
        extra = None

        def write_header_to_file(self, *args, **kwargs):
            for key, value in self.extra.items():
                if isinstance(value, numpy.ndarray):
                    self.add_tensor(key, value)
                else:
                    add = self.add_bool if isinstance(value, bool) else self.add_float32 if isinstance(value, float) else self.add_uint32 if isinstance(value, int) else self.add_string
                    add(key, value)
            super().write_header_to_file(*args, **kwargs)

    ones = numpy.ones(8, dtype=numpy.float32)
    cases = [({"llama.rope.scaling.finetuned": True, "llama.attention.causal": True, "llama.expert_count": 0, "llama.tensor_data_layout": "Meta AI original pth",
               "llama.rope.scaling.attn_factor": 1.0, "llama.attention.value_length": 8, "general.license": "mit", "blk.1.attn_rot_embd.weight": ones, "blk.7.attn_q_norm.weight": ones}, None),
             ({"llama.attention.causal": False}, ['"llama.attention.causal" is false', "expected true"]),
             ({"llama.rope.scaling.attn_factor": 1.5}, ['"llama.rope.scaling.attn_factor" is 1.5', "expected 1"]),
             ({"llama.rope.scaling.yarn_beta_fast": 16.0}, ['"llama.rope.scaling.yarn_beta_fast" is 16.0']),
             ({"llama.attention.sliding_window": 24}, ['"llama.attention.sliding_window" is 24', "expected 0"]),
             ({"llama.attention.value_length": 16}, ['"llama.attention.value_length" is 16', "expected 8"]),
             ({"llama.rope.dimension_count": 4}, ['"llama.rope.dimension_count" is 4', "expected 8"]),
             ({"llama.expert_used_count": 2}, ['"llama.expert_used_count" is 2', "expected 0"]),
             ({"llama.key_of_tomorrow": "on"}, ['"llama.key_of_tomorrow" is "on"']),
             ({"blk.1.attn_q_norm.weight": ones}, ['"blk.1.attn_q_norm.weight"', "[8]"]),
             ({"blk.1.attn_q.bias": ones}, ['"blk.1.attn_q.bias"']),
             ({"output_norm.bias": ones}, ['"output_norm.bias"'])]
    model, plain = model_zoo.make_model("llama"), gguf.GGUFWriter
    paths = []
    for i, (extra, _) in enumerate(cases):
        # A key that the file has already is written once, with the case's value.
        written = type("Written", (Extended,), {"extra": extra, "add_rope_dimension_count": (lambda self, n: None) if "llama.rope.dimension_count" in extra else plain.add_rope_dimension_count})
        gguf.GGUFWriter = written
        try:
            gguf_zoo.write("llama", model, tmp_path / f"{i}.gguf")
        finally:
            gguf.GGUFWriter = plain
        paths.append(tmp_path / f"{i}.gguf")
    for (_, needles), line in zip(cases, inspect(tool, paths)):
        if needles is None:
            assert "error" not in line, line
        else:
            assert_refused(line, ".gguf", *needles)


def test_gguf_tensors_and_metadata_are_checked(tmp_path, tool):
    import gguf
    import numpy
    model = model_zoo.make_model("llama")
    gguf_zoo.write("llama", model, tmp_path / "good.gguf")
    reader = gguf.GGUFReader(tmp_path / "good.gguf")

    def rewrite(path, keys=None, drop_key=None, tensor=None, drop=None, arch="llama"):
        writer = gguf.GGUFWriter(path, arch)
        for key, field in reader.fields.items():
            if not key.startswith("llama.") or key == drop_key:
                continue
            value = (keys or {}).get(key, field.contents())
            add = writer.add_string if isinstance(value, str) else writer.add_float32 if isinstance(value, float) else writer.add_int32
            add(key, value)
        for item in reader.tensors:
            if item.name == drop:
                continue
            data = numpy.array(item.data)
            writer.add_tensor(item.name, numpy.concatenate([data, data[:1]]) if item.name == tensor else data)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    cases = []
    for item in reader.tensors:
        cases.append(([item.name], rewrite(tmp_path / f"t{len(cases)}.gguf", drop=item.name)) if item.name != "output.weight" else
                     (None, rewrite(tmp_path / f"t{len(cases)}.gguf", drop=item.name)))
        cases.append(([item.name, "expected"], rewrite(tmp_path / f"t{len(cases)}.gguf", tensor=item.name)))
    for key in ("llama.block_count", "llama.embedding_length", "llama.feed_forward_length", "llama.attention.head_count", "llama.attention.head_count_kv",
                "llama.vocab_size", "llama.context_length"):
        for value in ("text", -4, 0):
            cases.append(([key], rewrite(tmp_path / f"t{len(cases)}.gguf", keys={key: value})))
    for key in ("llama.rope.freq_base", "llama.attention.layer_norm_rms_epsilon"):
        for value in ("text", -1.0):
            cases.append(([key], rewrite(tmp_path / f"t{len(cases)}.gguf", keys={key: value})))
    for key in ("llama.block_count", "llama.embedding_length", "llama.attention.head_count", "llama.feed_forward_length"):
        cases.append(([key, "missing"], rewrite(tmp_path / f"t{len(cases)}.gguf", drop_key=key)))
    cases.append((["unheard_of", "qwen2moe"], rewrite(tmp_path / "arch.gguf", arch="unheard_of")))
    cases.append((["mamba", "state-space"], rewrite(tmp_path / "ssm.gguf", arch="mamba")))
    for (needles, path), line in zip(cases, inspect(tool, [path for _, path in cases])):
        if needles is None:
            assert line["tied"], line  # without output.weight the embedding is the head
        else:
            assert_refused(line, *needles)


def test_opening_takes_milliseconds(tmp_path, tool, smollm2_gguf):
    model_zoo.save_model("llama", tmp_path / "model")
    lines = inspect(tool, [tmp_path / "model", tmp_path / "model", smollm2_gguf])
    assert lines[1]["milliseconds"] < 20, lines[1]
    assert lines[2]["milliseconds"] < 500, lines[2]  # 49,152 tokens and as many merges in its header
    assert lines[2]["parameters"] == 134515008 and lines[2]["dtype"] == "Q4_1" and lines[2]["tied"]


def test_what_a_model_is(tmp_path, tool):
    model = model_zoo.save_model("qwen2-moe", tmp_path / "model")
    (line,) = inspect(tool, [tmp_path / "model"])
    assert line["parameters"] == sum(p.numel() for p in model.parameters())
    assert (line["family"], line["format"], line["dtype"], line["blocks"], line["tied"]) == ("qwen2_moe", "safetensors", "F32", 3, False)
    assert line["bytes"] == 4 * line["parameters"]
    linears = {linear["name"]: linear for linear in line["linears"]}
    assert linears["self_attn.q_proj"]["subset"] == linears["self_attn.v_proj"]["subset"] == "qkv"
    assert linears["mlp.experts.3.gate_proj"] == {"name": "mlp.experts.3.gate_proj", "tensor": "model.layers.0.mlp.experts.3.gate_proj.weight",
                                                  "subset": "experts.3.gate_up", "shape": [16, 32], "dtype": "F32", "bytes": 2048}
    assert "mlp.gate" not in linears and "mlp.shared_expert_gate" not in linears  # routers are not quantized
    assert linears["mlp.shared_expert.up_proj"]["subset"] == "shared.gate_up"
