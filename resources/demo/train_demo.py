#!/usr/bin/env python3
"""Trains the demo model that lies beside this script: a small Llama with its own BPE tokenizer, on public-domain text.

    python train_demo.py OUT TEXT [TEXT ...]        (about half an hour on two cores)

needs torch, transformers, tokenizers and safetensors. The shipped model was trained on Shakespeare (the 1.1 MB "tiny"
selection), Grimm's tales (Olcott's edition, without its front matter) and the King James Bible (`bible -f gen1:1-rev22:21`
of Debian's package bible-kjv, verse numbers cut). The last 5 % of every text is held out; calibration.txt and
evaluation.txt are cut from the trained part and from the held-out part. Seeded: the same texts and versions give the
same model.
"""
import json
import math
import os
import sys
import time

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

VOCABULARY, SEQ_LEN, BATCH, STEPS, WARMUP, LEARNING_RATE = 1024, 256, 16, 2400, 100, 4e-3
CONFIG = dict(hidden_size=256, intermediate_size=256, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
              head_dim=64, max_position_embeddings=SEQ_LEN, rms_norm_eps=1e-5, rope_theta=10000.0, tie_word_embeddings=True,
              vocab_size=VOCABULARY, bos_token_id=0, eos_token_id=0, initializer_range=0.03)


def train_tokenizer(texts):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<|endoftext|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    return tokenizer


def perplexity(model, ids):
    windows = len(ids) // SEQ_LEN
    total = 0.0
    with torch.no_grad():
        for i in range(windows):
            window = ids[i * SEQ_LEN:(i + 1) * SEQ_LEN][None]
            total += torch.nn.functional.cross_entropy(model(window).logits[0, :-1].float(), window[0, 1:]).item()
    return math.exp(total / windows)


def main():
    out, paths = sys.argv[1], sys.argv[2:]
    torch.manual_seed(0)
    texts = [open(p, encoding="utf-8").read() for p in paths]
    cuts = [int(len(t) * 0.95) for t in texts]
    tokenizer = train_tokenizer([t[:c] for t, c in zip(texts, cuts)])
    train = torch.tensor([i for t, c in zip(texts, cuts) for i in tokenizer.encode(t[:c]).ids])
    held_out = torch.tensor([i for t, c in zip(texts, cuts) for i in tokenizer.encode(t[c:]).ids])
    print(f"tokens: {len(train)} to train, {len(held_out)} held out", flush=True)

    model = LlamaForCausalLM(LlamaConfig(**CONFIG))
    print(f"parameters: {sum(p.numel() for p in model.parameters())}", flush=True)
    # No weight decay: the model shall use its weights' full range, as big models do.
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.0)
    start = time.time()
    for step in range(STEPS):
        rate = LEARNING_RATE * min(1.0, (step + 1) / WARMUP) * (0.5 + 0.5 * math.cos(math.pi * step / STEPS))
        for group in optimizer.param_groups:
            group["lr"] = rate
        at = torch.randint(0, len(train) - SEQ_LEN, (BATCH,))
        batch = torch.stack([train[a:a + SEQ_LEN] for a in at])
        loss = torch.nn.functional.cross_entropy(model(batch).logits[:, :-1].reshape(-1, VOCABULARY), batch[:, 1:].reshape(-1))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 100 == 0 or step == STEPS - 1:
            print(f"step {step} loss {loss.item():.3f} seconds {time.time() - start:.0f}", flush=True)
    model.eval()
    print(f"held-out perplexity {perplexity(model, held_out[:SEQ_LEN * 100]):.3f}", flush=True)

    os.makedirs(out, exist_ok=True)
    tensors = {k: v.to(torch.bfloat16).contiguous() for k, v in model.state_dict().items() if k != "lm_head.weight"}
    save_file(tensors, os.path.join(out, "model.safetensors"), metadata={"format": "pt"})
    config = dict(CONFIG, architectures=["LlamaForCausalLM"], model_type="llama", hidden_act="silu", torch_dtype="bfloat16",
                  attention_bias=False, mlp_bias=False)
    with open(os.path.join(out, "config.json"), "w") as f:
        json.dump(config, f, indent=2)
        f.write("\n")
    tokenizer.save(os.path.join(out, "tokenizer.json"))
    with open(os.path.join(out, "tokenizer_config.json"), "w") as f:
        json.dump(dict(tokenizer_class="PreTrainedTokenizerFast", bos_token="<|endoftext|>", eos_token="<|endoftext|>",
                       model_max_length=SEQ_LEN), f, indent=2)
        f.write("\n")
    with open(os.path.join(out, "calibration.txt"), "w", encoding="utf-8") as f:
        f.write("\n\n".join(t[c // 2:c // 2 + 90_000].partition("\n")[2] for t, c in zip(texts, cuts)))
    with open(os.path.join(out, "evaluation.txt"), "w", encoding="utf-8") as f:
        f.write("\n\n".join(t[c:c + 25_000].partition("\n")[2] for t, c in zip(texts, cuts)))


if __name__ == "__main__":
    main()
