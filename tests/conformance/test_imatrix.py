"""`qbench imatrix`: sums of squares of what each linear reads, as transformers' modules see it, in the file that llama.cpp's quantizer takes."""
import subprocess

import gguf
import numpy as np
import torch
import transformers as hf

from conftest import DEMO

STEMS = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
         "mlp.down_proj": "ffn_down"}


def test_sums_are_those_of_transformers(tool, tmp_path):
    out = tmp_path / "imatrix.gguf"
    subprocess.run([tool("qbench"), "imatrix", DEMO, "-t", DEMO / "calibration.txt", "-o", out, "--samples", "6", "--seq-len", "96", "--dtype", "float32"], check=True, capture_output=True)
    reader = gguf.GGUFReader(out)
    found = {t.name: np.array(t.data, dtype=np.float64) for t in reader.tensors}
    assert reader.fields["general.type"].contents() == "imatrix"
    assert reader.fields["imatrix.chunk_count"].contents() == 6 and reader.fields["imatrix.chunk_size"].contents() == 96

    model = hf.AutoModelForCausalLM.from_pretrained(DEMO, dtype=torch.float32)
    ids = hf.AutoTokenizer.from_pretrained(DEMO)((DEMO / "calibration.txt").read_text(), add_special_tokens=False).input_ids[:6 * 96]
    sums = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            module.register_forward_pre_hook(lambda m, inputs, name=name: sums.__setitem__(name, inputs[0].double().pow(2).sum((0, 1)).numpy()))
    with torch.no_grad():
        model(torch.tensor(ids).reshape(6, 96))
    assert len(sums) == 28 and len(found) == 56
    for name, expected in sums.items():
        block, stem = name.split(".", 3)[2:]
        entry = f"blk.{block}.{STEMS[stem]}.weight"
        np.testing.assert_allclose(found[entry + ".in_sum2"].ravel(), expected, rtol=2e-4)
        assert found[entry + ".counts"].ravel().tolist() == [6 * 96]
