"""Dense families and text models inside multimodal ones against transformers, from Hugging Face folders and from GGUF files. One process serves all."""
import subprocess

import pytest
import torch
from safetensors.torch import load_file, save_file

import gguf_zoo
import gguf_zoo_dense
import model_zoo
import zoo_dense
import zoos
from answers import Answers
from test_models import assert_close, token_ids

WRAPPERS = [name for name, make in zoo_dense.wrappers().items() if make is not None]


@pytest.fixture(scope="module")
def server(tool, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    running = Answers(tool("model_logits"))
    yield lambda model: running.logits_or_refusal(model, folder, token_ids())
    running.close()


@pytest.mark.parametrize("name", zoo_dense.MODELS)
def test_logits_match_transformers(name, server, tmp_path):
    model = zoo_dense.save_model(name, tmp_path / "model")
    assert_close(server(tmp_path / "model"), zoo_dense.reference_logits(model, token_ids()))


@pytest.mark.parametrize("name", WRAPPERS)
def test_text_inside_a_multimodal_model(name, server, tmp_path):
    model = zoo_dense.save_wrapper(name, tmp_path / "model")
    reference = zoo_dense.reference_logits(model, token_ids())
    assert_close(server(tmp_path / "model"), reference)
    if name in ("qwen2-vl", "qwen2-5-vl"):
        zoo_dense.flatten_text_config(tmp_path / "model")
        assert_close(server(tmp_path / "model"), reference)


def under(text, head):
    """Names in memory → names where the text model's stand under `text` and the head is called `head`."""
    def rename(key):
        for inside in ("model.language_model.", "model.text_model.", "language_model.model."):
            if key.startswith(inside):
                return text + key.removeprefix(inside)
        return head if key.endswith("lm_head.weight") else key.removeprefix("model.")
    return rename


# transformers 5's modules; Idefics'; LLaVA's, under which most files of 2023 to 2025 are; one inside another; the text model alone.
FORMS = {"memory": lambda key: key, "transformers 5": under("model.language_model.", "lm_head.weight"), "idefics": under("model.text_model.", "lm_head.weight"),
         "llava": under("language_model.model.", "language_model.lm_head.weight"), "nested": under("language_model.model.model.", "language_model.model.lm_head.weight"),
         "alone": under("model.", "lm_head.weight")}


@pytest.mark.parametrize("name", WRAPPERS)
def test_names_of_text_inside_a_multimodal_model(name, server, tmp_path):
    model = zoo_dense.save_wrapper(name, tmp_path / "model")
    reference = zoo_dense.reference_logits(model, token_ids())
    model_zoo.fuse(model, tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    tensors = load_file(path)
    for form, rename in FORMS.items():
        save_file({rename(key): value for key, value in tensors.items()}, path, metadata={"format": "pt"})
        ours = server(tmp_path / "model")
        assert not isinstance(ours, str), (form, ours)
        assert_close(ours, reference)


@pytest.mark.parametrize("name, save", {
    "baichuan-7b": zoo_dense.save_baichuan,
    "baichuan-13b": lambda folder: zoo_dense.save_baichuan(folder, alibi=True),
    "baichuan-2": lambda folder: zoo_dense.save_baichuan(folder, normalised_head=True),
    "minicpm": zoo_dense.save_minicpm,
    "minicpm-untied": lambda folder: zoo_dense.save_minicpm(folder, tied=False),
    "chatglm": zoo_dense.save_chatglm,
    "chatglm-unbiased": lambda folder: zoo_dense.save_chatglm(folder, rope_ratio=50, bias=False),
}.items())
def test_families_outside_transformers_match_the_model_that_they_are(name, save, server, tmp_path):
    logits = save(tmp_path / "model")
    assert_close(server(tmp_path / "model"), logits(token_ids()).float())


@pytest.mark.parametrize("name", gguf_zoo_dense.CONVERTED)
def test_gguf_logits_match_transformers(name, server, tmp_path):
    model = zoo_dense.make_model(name, **gguf_zoo_dense.CHANGES.get(name, {}))
    gguf_zoo_dense.write(name, model, tmp_path / "model.gguf")
    assert_close(server(tmp_path / "model.gguf"), zoo_dense.reference_logits(model, token_ids()))


@pytest.mark.parametrize("name", ["olmo", "cohere", "exaone4"])
def test_gguf_with_queries_keys_and_values_in_one_tensor(name, server, tmp_path):
    model = zoo_dense.make_model(name)
    gguf_zoo_dense.write(name, model, tmp_path / "model.gguf", fuse=True)
    assert_close(server(tmp_path / "model.gguf"), zoo_dense.reference_logits(model, token_ids()))


# A period counts blocks, the last of which sees everything; 0: none does.
@pytest.mark.parametrize("pattern, kinds", [(3, [True, True, False, True]), (0, [True] * 4), ([True, False, False, True], [True, False, False, True])])
@pytest.mark.parametrize("name", ["cohere2", "exaone4", "olmo3-plain", "gemma2-plain", "gemma3-plain"])
def test_gguf_with_its_own_pattern_of_windows(name, pattern, kinds, server, tmp_path):
    zoo, written = (model_zoo, gguf_zoo) if name in model_zoo.MODELS else (zoo_dense, gguf_zoo_dense)
    model = zoo.make_model(name, num_hidden_layers=4, layer_types=["sliding_attention" if slides else "full_attention" for slides in kinds])
    written.write(name, model, tmp_path / "model.gguf", pattern=pattern)
    assert_close(server(tmp_path / "model.gguf"), zoo_dense.reference_logits(model, token_ids()))


def test_gemma3_in_gguf_without_windows(server, tmp_path):
    model = model_zoo.make_model("gemma3-plain", layer_types=["full_attention"] * 7)
    reference = zoo_dense.reference_logits(model, token_ids())
    model.config.sliding_window = None
    gguf_zoo.write("gemma3-plain", model, tmp_path / "model.gguf")
    assert_close(server(tmp_path / "model.gguf"), reference)


@pytest.mark.parametrize("pattern", [[True] * 3, -1])
def test_a_pattern_of_windows_that_is_none_is_refused(pattern, server, tmp_path, monkeypatch):
    model = model_zoo.make_model("gemma3-plain", num_hidden_layers=4)
    if pattern == -1:
        monkeypatch.setattr(gguf_zoo.gguf.GGUFWriter, "add_sliding_window_pattern", lambda self, value: self.add_int32(f"{self.arch}.attention.sliding_window_pattern", value))
    gguf_zoo.write("gemma3-plain", model, tmp_path / "model.gguf", pattern=pattern)
    answer = server(tmp_path / "model.gguf")
    assert isinstance(answer, str) and "gemma3.attention.sliding_window_pattern" in answer and "4 booleans" in answer, answer


@pytest.mark.parametrize("name, arch", [("qwen2-plain", "qwen2vl"), ("qwen3", "qwen3vl"), ("granite", "minicpm"), ("llama", "baichuan")])
def test_gguf_of_text_models_under_another_name(name, arch, server, tmp_path):
    # Qwen's vision models have the text models' tensors; MiniCPM's and Baichuan's are those of a Granite and a Llama, in GGUF too.
    changes = {"granite": {"attention_multiplier": 8 ** -0.5}, "llama": {"num_key_value_heads": 4}}
    model = model_zoo.make_model(name, **changes.get(name, {}))
    gguf_zoo_dense.write(name, model, tmp_path / "model.gguf", arch=arch)
    assert_close(server(tmp_path / "model.gguf"), model_zoo.reference_logits(model, token_ids()))


@pytest.mark.parametrize("name, key, value", [
    ("gemma", "hidden_activation", "relu"), ("olmo3", "rope_parameters", {"rope_type": "default", "rope_theta": 1e4}), ("smollm3", "layer_types", ["sliding_attention"] * 4),
    ("ministral3-sliding", "layer_types", ["full_attention"] * 3), ("cohere2", "head_dim", 8), ("cohere2", "use_parallel_block", False), ("nemotron", "rope_percent", 0.25),
    ("gptj", "rotary_dim", 7), ("gpt2", "add_cross_attention", True), ("hunyuan-dense", "use_cla", True), ("gemma", "use_bidirectional_attention", True),
    ("gemma3n", "model_type", "gemma3n_audio"), ("gemma3n", "model_type", "gemma3n_vision"), ("gemma3n", "activation_sparsity_pattern", [0.5] * 4),
    ("gemma3n", "activation_sparsity_pattern", 0.5), ("gemma3n", "intermediate_size", [96, 96, 96, 96, 64]), ("gemma3n", "num_kv_shared_layers", 4), ("gemma3n", "num_kv_shared_layers", 5),
    ("gemma3n", "altup_active_idx", 4), ("olmo", "layer_norm_eps", 1e-3),
])
def test_values_that_are_not_computed_are_refused(name, key, value, server, tmp_path):
    zoo_dense.save_model(name, tmp_path / "model")
    model_zoo.edit_config(tmp_path / "model", lambda c: c.update({key: value}))
    answer = server(tmp_path / "model")
    assert isinstance(answer, str) and f'"{key}"' in answer, answer


def test_gemma_3n_as_it_is_published(server, tmp_path):
    model = zoo_dense.save_gemma3n_wrapper(tmp_path / "model")
    assert_close(server(tmp_path / "model"), zoo_dense.reference_logits(model, token_ids()))


def test_the_whole_model_says_whether_embeddings_are_tied(server, tmp_path):
    model = zoo_dense.save_wrapper("smolvlm", tmp_path / "model")
    reference = zoo_dense.reference_logits(model, token_ids())
    model_zoo.edit_config(tmp_path / "model", lambda c: c["text_config"].update(tie_word_embeddings=False))
    assert_close(server(tmp_path / "model"), reference)
    model_zoo.edit_config(tmp_path / "model", lambda c: c.pop("tie_word_embeddings"))
    assert "lm_head.weight" in server(tmp_path / "model")  # untied is this class's default, and no head is stored


def test_tokens_that_see_each_other_are_refused(server, tmp_path):
    zoo_dense.save_model("gemma", tmp_path / "model")
    zoo_dense.wrap_text_model(tmp_path / "model", "paligemma", lambda key: f"language_model.{key}")
    assert "paligemma" in server(tmp_path / "model")


@pytest.mark.parametrize("name, whole, what", [("gemma2", "idefics3", "soft cap"), ("cohere", "aya_vision", "scale of"), ("granite", "llava_next", "scale of")])
def test_logits_that_a_whole_does_not_scale_are_refused(name, whole, what, server, tmp_path):
    zoos.save_model(name, tmp_path / "model")
    zoo_dense.wrap_text_model(tmp_path / "model", whole, lambda key: key.replace("model.", "model.text_model.", 1))
    answer = server(tmp_path / "model")
    assert isinstance(answer, str) and what in answer and whole in answer, answer


def test_a_text_part_may_leave_out_its_class_defaults(server, tmp_path):
    # The defaults make large models: what is checked is that they are taken, by the shape that is asked for.
    zoo_dense.save_wrapper("idefics2", tmp_path / "model")
    model_zoo.edit_config(tmp_path / "model", lambda c: [c["text_config"].pop(key) for key in ("model_type", "intermediate_size")])
    answer = server(tmp_path / "model")
    assert isinstance(answer, str) and "14336" in answer, answer


# What can be folded: norms into what reads them, values into the output projection, the up side of a gate and a squared ReLU into down.
@pytest.mark.parametrize("name, groups", [("glm4", 4), ("gemma", 4), ("cohere", 3), ("gemma3n", 3), ("gpt2", 3), ("nemotron", 4), ("arcee", 4), ("olmo", 2), ("olmo2", 2), ("exaone4", 2),
                                          ("phi", 2), ("gptj", 2)])
def test_scaled_channels_keep_the_function(name, groups, tool, tmp_path):
    zoo_dense.save_model(name, tmp_path / "model")
    done = subprocess.run([tool("rescale_blocks"), tmp_path / "model"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        block, found, difference, statistics = line.split()
        assert int(found) == groups and float(difference) < 1e-5 and float(statistics) < 1e-4, line
