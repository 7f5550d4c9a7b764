"""Mistakes that a writer of checkpoints can make, each made in a folder: one thing of one linear, or one key, is changed."""
import json

import gguf
import torch
from safetensors.torch import load_file, save_file

LAYER = "model.layers.1.mlp.down_proj."


def tensor(name, change):
    def mutate(folder):
        path = folder / "model.safetensors"
        tensors = load_file(path)
        tensors[LAYER + name] = change(tensors[LAYER + name]).contiguous()
        save_file(tensors, path, metadata={"format": "pt"})
    return mutate


def key(path, value):
    def mutate(folder):
        config = json.loads((folder / "config.json").read_text())
        *parents, last = path.split("/")
        section = config["quantization_config"]
        for parent in parents:
            section = section[parent]
        section[last] = value
        (folder / "config.json").write_text(json.dumps(config))
        if (folder / "quantize_config.json").exists():
            (folder / "quantize_config.json").write_text(json.dumps(config["quantization_config"]))
    return mutate


def one_nibble(words):
    words[5, 3] ^= 0xF << 8
    return words


def row_of_nibbles(words):
    """What half precision can see."""
    words[5] ^= 0xF << 8
    return words


def nibbles_swapped(words):
    return ((words & 0x0F0F0F0F) << 4) | ((words >> 4) & 0x0F0F0F0F)


def zeros_off_by_one(words):
    return words + 0x11111111


def other_half(scale):
    """The same bits under the name of the other 16-bit type."""
    return scale.view(torch.float16 if scale.dtype == torch.bfloat16 else torch.bfloat16)


WEIGHTS = "config_groups/group_0/weights/"
MISTAKES = [  # checkpoint of test_engines.WRITERS, engine that must see it, what it is
    ("ct-w4", "transformers", "one nibble", tensor("weight_packed", one_nibble)),
    ("ct-w4", "transformers", "nibbles swapped", tensor("weight_packed", nibbles_swapped)),
    ("ct-w4", "transformers", "scale type", tensor("weight_scale", other_half)),
    ("ct-w4", "transformers", "group size", key(WEIGHTS + "group_size", 32)),
    ("ct-w4", "transformers", "bits", key(WEIGHTS + "num_bits", 8)),
    ("ct-w4-asym", "transformers", "zero point", tensor("weight_zero_point", zeros_off_by_one)),
    ("ct-w4-asym", "transformers", "symmetry", key(WEIGHTS + "symmetric", True)),
    ("ct-w4", "vllm", "nibbles swapped", tensor("weight_packed", nibbles_swapped)),
    ("ct-w4", "vllm", "scale type", tensor("weight_scale", other_half)),
    ("ct-w4", "vllm", "group size", key(WEIGHTS + "group_size", 32)),
    ("ct-w4-asym", "vllm", "zero point", tensor("weight_zero_point", zeros_off_by_one)),
    ("ct-w4-asym", "vllm", "symmetry", key(WEIGHTS + "symmetric", True)),
    ("gptq-w4", "gptqmodel", "row of nibbles", tensor("qweight", row_of_nibbles)),
    ("gptq-w4", "gptqmodel", "nibbles swapped", tensor("qweight", nibbles_swapped)),
    ("gptq-w4", "gptqmodel", "zero point", tensor("qzeros", zeros_off_by_one)),
    ("gptq-w4", "gptqmodel", "scale type", tensor("scales", other_half)),
    ("gptq-w4", "gptqmodel", "order of columns", tensor("g_idx", lambda g: g.flip(0))),
    ("gptq-w4", "gptqmodel", "version", key("checkpoint_format", "gptq_v2")),
    ("gptq-w4", "gptqmodel", "bits", key("bits", 8)),
    ("gptq-w4", "vllm", "nibbles swapped", tensor("qweight", nibbles_swapped)),
    ("gptq-w4", "vllm", "scale type", tensor("scales", other_half)),
    ("gptq-w4", "vllm", "group size", key("group_size", 32)),
    ("awq", "vllm", "zero point", tensor("qzeros", zeros_off_by_one)),
    ("awq", "gptqmodel", "nibbles swapped", tensor("qweight", nibbles_swapped)),
    ("mlx", "mlx-lm", "row of nibbles", tensor("weight", lambda words: row_of_nibbles(words.view(torch.int32)).view(torch.uint32))),
    ("mlx", "mlx-lm", "nibbles swapped", tensor("weight", lambda words: nibbles_swapped(words.view(torch.int32)).view(torch.uint32))),
    ("mlx", "mlx-lm", "scale type", tensor("scales", other_half)),
    ("mlx", "mlx-lm", "zero point", tensor("biases", lambda biases: biases * 9 / 8)),
]


INPUT_MISTAKES = {  # of the static range of a linear's input
    "scale": tensor("input_scale", lambda s: s / 16),
}


def blocks(name, change):
    """change(blocks) edits Q4_0's blocks [rows, blocks a row, 18 bytes]: a float16 scale, 16 bytes of two values."""
    def mutate(path):
        file = gguf.GGUFReader(path, "r+")
        data = next(t.data for t in file.tensors if t.name == name)
        change(data.reshape(data.shape[0], -1, 18))
        file.data.flush()
    return mutate


def halves_swapped(data):
    data[..., 2:] = (data[..., 2:] << 4) | (data[..., 2:] >> 4)


def scale_as_bfloat16(data):
    data[..., :2] = (data[..., :2].copy().view("<u2").astype("<u4") << 16).view("<f4").astype("<f2").view("u1")


def rows_unpermuted(data):
    """The folder's order, of 4 heads, where llama.cpp wants rotary pairs side by side."""
    data[:] = data.reshape(4, -1, 2, *data.shape[1:]).swapaxes(1, 2).reshape(data.shape).copy()


GGUF_MISTAKES = {
    "halves swapped": blocks("blk.1.ffn_down.weight", halves_swapped),
    "scale type": blocks("blk.1.ffn_down.weight", scale_as_bfloat16),
    "permutation": blocks("blk.1.attn_q.weight", rows_unpermuted),
}
