"""A small Llama and calibration text whose every number is an integer's, the same on every machine and with every version of
torch: what peers were run on (tests/tools/make_peer_results.py) and what our program is run on beside their results."""
import json

import torch
from safetensors.torch import save_file

HIDDEN, INNER, BLOCKS, HEADS, KV_HEADS, VOCABULARY = 128, 256, 2, 4, 2, 256
SAMPLES, SEQ_LEN = 32, 64
LINEARS = {"self_attn.q_proj": (HIDDEN, HIDDEN), "self_attn.k_proj": (HIDDEN // 2, HIDDEN), "self_attn.v_proj": (HIDDEN // 2, HIDDEN),
           "self_attn.o_proj": (HIDDEN, HIDDEN), "mlp.gate_proj": (INNER, HIDDEN), "mlp.up_proj": (INNER, HIDDEN), "mlp.down_proj": (HIDDEN, INNER)}
NORMS = ("input_layernorm", "post_attention_layernorm")
ALPHABET = "".join(chr(c) for c in range(33, 127))


def peer_tensors():
    g = torch.Generator().manual_seed(2405)

    def bell(*shape):
        """Sums of uniform integers, exact in float32: deviation 1."""
        return (torch.randint(-256, 256, (4, *shape), generator=g).sum(0).float() + 2) / 296

    def uneven(n):
        """A few large channels, as models have them."""
        return torch.randint(4, 12, (n,), generator=g).float() / 8 * torch.where(torch.randint(0, 16, (n,), generator=g) == 0, 4.0, 1.0)

    tensors = {"model.embed_tokens.weight": bell(VOCABULARY, HIDDEN) / 2, "lm_head.weight": bell(VOCABULARY, HIDDEN) / 8, "model.norm.weight": uneven(HIDDEN)}
    for i in range(BLOCKS):
        for name, (rows, columns) in LINEARS.items():
            tensors[f"model.layers.{i}.{name}.weight"] = bell(rows, columns) / 16
        for name in NORMS:
            tensors[f"model.layers.{i}.{name}.weight"] = uneven(HIDDEN)
    return tensors


def peer_text():
    g = torch.Generator().manual_seed(6001)
    return "".join(ALPHABET[i] for i in torch.randint(0, len(ALPHABET), (SAMPLES * SEQ_LEN,), generator=g))


def peer_ids():
    """Every character is its own token."""
    return torch.tensor([ALPHABET.index(c) for c in peer_text()]).view(SAMPLES, SEQ_LEN)


def save_peer_model(folder):
    folder.mkdir(parents=True, exist_ok=True)
    save_file(peer_tensors(), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(dict(
        architectures=["LlamaForCausalLM"], model_type="llama", hidden_size=HIDDEN, intermediate_size=INNER, num_hidden_layers=BLOCKS,
        num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, vocab_size=VOCABULARY, max_position_embeddings=256, rms_norm_eps=1e-5,
        rope_theta=10000.0, hidden_act="silu", tie_word_embeddings=False, torch_dtype="float32")))
    (folder / "tokenizer.json").write_text(json.dumps(dict(
        version="1.0", truncation=None, padding=None, added_tokens=[], normalizer=None, post_processor=None,
        pre_tokenizer=dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=True),
        decoder=dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=True),
        model=dict(type="BPE", dropout=None, unk_token=None, continuing_subword_prefix=None, end_of_word_suffix=None, fuse_unk=False,
                   byte_fallback=False, ignore_merges=False, vocab={c: i for i, c in enumerate(ALPHABET)}, merges=[]))))
    (folder / "calibration.txt").write_text(peer_text())
