"""One key of a configuration changed at a time: what transformers then computes we compute as well, or we refuse.

Every model of the zoos, text models inside multimodal ones too; a sample with a fixed seed, or all changes (tens of thousands) with QBENCH_FULL=1; any other number samples as many
of each model. The weights are made anew where a change gives a tensor another shape."""
import copy
import json
import os
import random
import zlib

import pytest
import torch
import transformers
from safetensors.torch import save_file

import model_zoo
import zoo_dense
import zoos
from answers import Answers

SAMPLE = 8  # changes of a model in the usual run
TOLERANCE = 1e-4  # of the largest logit, float32
SECONDS = 60

ACTIVATIONS = ["silu", "gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "quick_gelu", "relu", "relu2", "gelu_python", "tanh", "gelu_10", "mish"]
ROPE_TYPES = ["default", "linear", "dynamic", "yarn", "longrope", "llama3", "proportional", "su", "mrope"]
STRINGS = {"hidden_act": ACTIVATIONS, "hidden_activation": ACTIVATIONS, "activation_function": ACTIVATIONS, "activation": ACTIVATIONS,
           "rope_type": ROPE_TYPES, "type": ROPE_TYPES, "model_type": ["llama", "mistral", "qwen2", "gemma2", "mamba", "smollm3", "olmo2", "cohere2", "glm4_moe", "deepseek_v3", "lfm2"],
           "topk_method": ["greedy", "group_limited_greedy", "noaux_tc"], "scoring_func": ["softmax", "sigmoid"]}

# What another family, another program or a later version may write. Each is added to every configuration that has no such key.
ADDED = {
    "a_key_of_tomorrow": [1, True, "on", None], "is_causal": [True, False], "is_decoder": [True, False], "is_encoder_decoder": [True], "add_cross_attention": [True],
    "chunk_size_feed_forward": [8], "use_bidirectional_attention": [True, False], "use_cache": [False], "output_attentions": [True], "torch_dtype": ["float16"],
    "attention_bias": [True, False], "mlp_bias": [True, False], "qkv_bias": [True, False], "use_bias": [True, False], "bias": [True, False], "lm_head_bias": [False],
    "attention_dropout": [0.5], "hidden_dropout": [0.5], "pretraining_tp": [1, 2], "slow_but_exact": [True], "per_layer_config": [{"0": {"intermediate_size": 24}}],
    "layer_types": ["sliding", "full", "mixed"], "sliding_window": [24, None], "use_sliding_window": [True, False], "max_window_layers": [1], "sliding_window_pattern": [2],
    "rope_theta": [20000.0], "rope_scaling": [{"rope_type": "linear", "factor": 4.0}, {"type": "dynamic", "factor": 2.0}, {}], "rope_local_base_freq": [500.0],
    "partial_rotary_factor": [0.5, 1.0], "rotary_pct": [0.5], "rotary_emb_base": [500], "rope_pct": [0.5], "original_max_position_embeddings": [32],
    "rope_interleaved": [True], "no_rope_layers": [[1, 0, 1]], "head_dim": [8, 12], "num_key_value_heads": [1, 4], "num_kv_heads": [1, 2], "n_head_kv": [2],
    "n_embed": [32], "n_head": [2], "n_layer": [1], "n_inner": [24], "ffn_dim": [24], "intermediate_size": [24], "ffn_hidden_size": [24], "max_position_embeddings": [16],
    "hidden_act": ["relu"], "hidden_activation": ["relu"], "activation_function": ["relu"], "activation": ["relu"],
    "rms_norm_eps": [0.5], "layer_norm_eps": [0.5], "layer_norm_epsilon": [0.5], "norm_epsilon": [0.5], "norm_eps": [0.5],
    "attn_logit_softcapping": [5.0], "final_logit_softcapping": [3.0], "query_pre_attn_scalar": [3], "logit_scale": [0.5], "logits_scaling": [2.0],
    "embedding_multiplier": [3.0], "residual_multiplier": [0.5], "attention_multiplier": [0.5], "scale_embedding": [True], "clip_qkv": [0.5],
    "num_experts": [4], "num_local_experts": [4], "num_experts_per_tok": [1], "norm_topk_prob": [True, False], "moe_intermediate_size": [16], "mlp_only_layers": [[0]],
    "alibi": [True], "parallel_attn": [False], "use_parallel_residual": [True, False], "multi_query": [False], "qk_layernorm": [True], "use_qk_norm": [True],
    "do_layer_norm_before": [False], "apply_residual_connection_post_layernorm": [True], "normalize_attention_scores": [True], "vision_config": [{}],
    "rotary_dim": [8], "rope_ratio": [2.0], "rope_interleave": [True, False], "no_rope_layer_interval": [2], "attention_out_bias": [True], "clip_attention": [1.0],
    "n_group": [2], "topk_group": [1], "topk_method": ["greedy", "noaux_tc"], "scoring_func": ["softmax", "sigmoid"], "routed_scaling_factor": [2.0], "n_shared_experts": [1],
    "first_k_dense_replace": [1], "moe_layer_freq": [2], "decoder_sparse_step": [2], "mlp_layer_types": [["dense"]], "moe_layers": [[0]], "n_routed_experts": [2],
    "num_shared_experts": [1], "shared_expert_intermediate_size": [32], "interleave_moe_layer_step": [2], "q_lora_rank": [16], "kv_lora_rank": [16], "v_head_dim": [8],
    "attention_chunk_size": [24], "attn_temperature_tuning": [False], "attn_scale": [0.4], "floor_scale": [16], "swiglu_limit": [1.0], "attn_output_gate": [False],
    "full_attention_interval": [2], "full_attn_idxs": [[0]], "conv_bias": [True], "tie_embedding": [True, False], "block_auto_adjust_ff_dim": [False],
    "scale_attn_weights": [False], "scale_attn_by_inverse_layer_idx": [True], "reorder_and_upcast_attn": [True], "moe_k": [1], "moe_topk": [1], "use_expert_bias": [False],
}
ADDED_TO_ROPE = {"factor": [2.0], "attention_factor": [2.0], "beta_fast": [4], "mscale": [0.5], "mscale_all_dim": [0.5], "truncate": [False], "alpha": [1000.0],
                 "partial_rotary_factor": [0.5, 1.0], "original_max_position_embeddings": [32], "type": ["linear"], "low_freq_factor": [2.0], "mrope_section": [[1, 1, 2]],
                 "long_factor": [[2.0, 2.0, 2.0, 2.0]], "rope_theta": [500.0]}
# A configuration with all of these computes the same: bookkeeping must not keep anybody out.
HARMLESS = {"use_cache": False, "initializer_range": 0.5, "bos_token_id": 3, "unk_token_id": 0, "transformers_version": "4.30.0", "attention_dropout": 0.1, "is_causal": True,
            "_name_or_path": "somewhere", "torch_dtype": "float16", "output_hidden_states": False, "gradient_checkpointing": False, "max_length": 4096, "temperature": 0.6}


def other_values(key, value, layers):
    if key in STRINGS:
        return STRINGS[key]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [2 * value, value // 2, value + 1, float(value)]
    if isinstance(value, float):
        return [2 * value, value / 2, int(value)]
    if isinstance(value, list) and value and all(isinstance(item, (int, float)) for item in value):
        return [value[:-1], [2 * item for item in value], value[::-1], []]
    if key == "mlp_layer_types":
        return [["dense"] * layers, ["sparse"] * layers, value[::-1], value[:-1], []]
    if key == "layer_types":
        return [["full_attention"] * layers, ["sliding_attention"] * layers, value[::-1], value[:-1], [], ["full_attention", "chunked_attention", "full_attention", "linear_attention"][:layers]]
    return []


def places(config):
    """Paths of every key, in objects as well."""
    for key, value in config.items():
        yield (key,)
        if isinstance(value, dict):
            yield from ((key, *rest) for rest in places(value))


def changes(config):
    """(path, value) of every change; value `...` removes the key."""
    if "text_config" not in config:
        yield from changes_of_text(config)
        return
    for path, value in changes_of_text(config["text_config"]):
        # Of hidden_size the class's default makes billions of weights, of which the first is refused; and no class holds text models of any kind.
        if path[0] != "model_type" and (path != ("hidden_size",) or value not in (..., None)):
            yield ("text_config", *path), value
    # What the whole says beside its parts. Another model_type would take the small sizes for its own keys.
    whole = {key: value for key, value in config.items() if key != "model_type" and not isinstance(value, dict)}
    yield from ((path, value) for path, value in changes_of_text(whole | {"num_hidden_layers": 1}) if path[0] != "num_hidden_layers" and path[0] not in ("model_type", "vision_config"))
    if "tie_word_embeddings" not in whole:
        yield from ((("tie_word_embeddings",), value) for value in (True, False))


def changes_of_text(config):
    layers = config.get("num_hidden_layers", config.get("n_layer"))
    listed = {"sliding": ["sliding_attention"] * layers, "full": ["full_attention"] * layers,
              "mixed": [("sliding_attention", "full_attention")[i % 2] for i in range(layers)]}
    for path in list(places(config)):
        value = config
        for key in path:
            value = value[key]
        yield path, ...
        for other in [None, "seven", 3, {"a": 1}] + other_values(path[-1], value, layers):
            if other != value or type(other) is not type(value):
                yield path, other
    for key, values in ADDED.items():
        if key not in config:
            yield from (((key,), listed.get(value, value) if key == "layer_types" else value) for value in values)
    rope = config.get("rope_parameters")
    for place in ([("rope_parameters", key) for key, value in rope.items() if isinstance(value, dict)] or [("rope_parameters",)]) if rope else []:
        inner = rope[place[1]] if len(place) > 1 else rope
        yield from (((*place, key), value) for key, values in ADDED_TO_ROPE.items() if key not in inner for value in values)


def changed(config, path, value):
    config = copy.deepcopy(config)
    place = config
    for key in path[:-1]:
        place = place[key]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return config


def stored(state, model_type):
    """The tensors as a checkpoint holds them: tied ones once, and GPT-NeoX's head under another name than its module's."""
    tensors, seen = {}, set()
    for name, value in state.items():
        if value.data_ptr() not in seen:
            seen.add(value.data_ptr())
            tensors["embed_out.weight" if model_type == "gpt_neox" and name == "lm_head.weight" else name] = value.contiguous()
    return tensors


# Not all of them are in transformers' own table.
CLASS_OF = {zoo.MODELS[name][1]: zoo.MODELS[name][0] for name, zoo in zoos.ZOO_OF.items()} | {type(config): cls for cls, config in (make() for make in zoo_dense.wrappers().values())}


class Reference:
    """transformers' model of one configuration: its weights on disk, its logits."""

    def __init__(self, folder, config, base):
        """Raises whatever transformers raises. base: weights to keep where name and shape are the same."""
        (folder / "config.json").write_text(json.dumps(config))
        read = transformers.AutoConfig.from_pretrained(folder)
        attention = "sdpa" if read.model_type == "falcon" else "eager"
        make = CLASS_OF[type(read)]._from_config if type(read) in CLASS_OF else transformers.AutoModelForCausalLM.from_config
        model = make(read, attn_implementation=attention).float().eval()
        generator = torch.Generator().manual_seed(1)
        weights = stored(model.state_dict(), read.model_type)
        with torch.no_grad():
            for name, value in weights.items():
                if name in base and base[name].shape == value.shape:
                    value.copy_(base[name])
                elif value.dim() >= 2:
                    value.copy_(torch.randn(value.shape, generator=generator) * (0.7 / value.shape[-1] ** 0.5 if "embed" not in name else 0.5))
                else:
                    value.copy_(1 + 0.3 * torch.randn(value.shape, generator=generator))
        self.vocabulary = model.get_input_embeddings().weight.shape[0]
        self.ids = torch.randint(0, min(self.vocabulary, model_zoo.VOCABULARY), (2, 80), generator=torch.Generator().manual_seed(7))
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        self.logits, self.model = model_zoo.reference_logits(model, self.ids), model

    def rounding(self):
        """How far float32 moves its own logits, of the largest: much where a norm makes small states large."""
        try:
            exact = model_zoo.reference_logits(self.model.double(), self.ids)
        except RuntimeError:  # some experts know no float64
            return 0.0
        return ((self.logits - exact).abs().max() / exact.abs().max()).item()


@pytest.fixture(scope="module")
def our_logits(tool):
    program = Answers(tool("model_logits"), {"OMP_NUM_THREADS": "1"}, SECONDS)
    yield lambda folder, ids: program.logits_or_refusal(folder, folder, ids)
    program.close()


@pytest.fixture(scope="module", autouse=True)
def small_and_quiet():
    """Models of a few kilobytes: threads would cost more than they bring."""
    transformers.logging.set_verbosity_error()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


BOOKKEEPING = ("architectures", "dtype", "torch_dtype", "transformers_version", "use_cache", "initializer_range", "init_std", "pretraining_tp", "output_router_logits",
               "router_aux_loss_coef", "router_jitter_noise", "layerdrop", "is_decoder", "output_attentions")


# Where transformers computes nothing and the meaning is plain: (family, a key and what it holds or None, changed key): why.
PLAIN = {
    ("falcon", ("alibi", True), "rope_parameters"): "a rotation where nothing rotates",
    ("deepseek_v3", None, "num_key_value_heads"): "latent attention has as many key heads as query heads: the published model's own code does not read the key",
    ("hunyuan_v1_dense", None, "head_dim"): "an absent width is hidden_size / heads but in transformers' formula of alpha, which needs the key",
    ("hunyuan_v1_moe", None, "head_dim"): "the same",
}


def is_plain(config, path):
    return any(config["model_type"] == family and path[0] == key and (other is None or config.get(other[0]) == other[1]) for family, other, key in PLAIN)


def without_reference(error, config, path, value):
    """Changes that transformers refuses by its types while their meaning is plain: a null is a missing key, 4096.0 is 4096, 1
    is 1.0; and keys that cannot matter, whatever they hold."""
    if path[:1] == ("text_config",):
        config, path = config["text_config"], path[1:]
    if not path:
        return False
    if value is None or path[0] in BOOKKEEPING or path[0].endswith(("_token_id", "dropout", "_pdrop")) or is_plain(config, path):
        return True
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and float(value) == int(value) and (isinstance(value, float) or type(error).__name__ == "StrictDataclassFieldValidationError")


def fixed_ids():
    return torch.randint(0, 40, (2, 80), generator=torch.Generator().manual_seed(7))


def verdict(folder, config, path, value, base, our_logits):
    """What is wrong, or None; and whether logits were compared."""
    edited = changed(config, path, value) if path else value
    (folder / "config.json").write_text(json.dumps(edited))
    save_file(base, folder / "model.safetensors", metadata={"format": "pt"})
    with_base = our_logits(folder, fixed_ids())
    if isinstance(with_base, str) and 'config.json: key "' in with_base:
        return None, False  # refused whatever the weights are
    try:
        reference = Reference(folder, edited, base)
    except Exception as error:  # whatever it is: transformers does not compute this model
        if isinstance(with_base, str) or without_reference(error, config, path, value):
            return None, False
        if type(error).__name__ == "StrictDataclassFieldValidationError":
            # Of no type that transformers takes. Where it moves no logit nothing reads the key, and values of its own type are compared.
            (folder / "config.json").write_text(json.dumps(config))
            if torch.equal(with_base, our_logits(folder, fixed_ids())):
                return None, False
        return f"computed, but transformers fails: {type(error).__name__}: {str(error)[:200]}", False
    ours = our_logits(folder, reference.ids)
    if isinstance(ours, str) or not torch.isfinite(reference.logits).all():
        return None, False
    if ours.shape != reference.logits.shape:
        return f"logits {list(ours.shape)}, transformers {list(reference.logits.shape)}", True
    error = ((ours - reference.logits).abs().max() / reference.logits.abs().max()).item()
    return (None if error <= TOLERANCE or error <= min(10 * reference.rounding(), 10 * TOLERANCE) else f"logits differ by {error:.2e} of the largest"), True


@pytest.mark.parametrize("name, whole", [(name, False) for name in zoos.ZOO_OF] + [(name, True) for name in zoo_dense.wrappers()])
def test_one_changed_key(name, whole, tmp_path, our_logits):
    model = (zoo_dense.save_wrapper if whole else zoos.save_model)(name, tmp_path / "base")
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    base = stored(model.state_dict(), config["model_type"])
    folder = tmp_path / "changed"
    folder.mkdir()

    # Bookkeeping alone must be let through, with the same logits.
    with_all = config | HARMLESS | ({"text_config": config["text_config"] | HARMLESS} if whole else {})
    wrong, compared = verdict(folder, config, (), with_all, base, our_logits)
    assert compared and wrong is None, wrong or our_logits(folder, torch.zeros(1, 4, dtype=torch.long))

    cases = list(changes(config))
    wanted = int(os.environ.get("QBENCH_FULL", SAMPLE))
    if wanted != 1:
        cases = random.Random(zlib.crc32(name.encode())).sample(cases, min(wanted, len(cases)))
    faults = []
    for path, value in cases:
        what = f"{'.'.join(path)} {'removed' if value is ... else '= ' + json.dumps(value)}"
        try:
            wrong, _ = verdict(folder, config, path, value, base, our_logits)
        except AssertionError as error:
            wrong = str(error)
        if wrong:
            faults.append(f"{what}: {wrong}")
    assert not faults, "\n".join([f"{len(faults)} of {len(cases)} changes:", *faults])
