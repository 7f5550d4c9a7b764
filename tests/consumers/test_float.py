"""Float models: every engine gives the perplexity that `qbench eval` gives, so that a difference on an export is the export's."""
import gguf
import pytest

import checkpoints
from conftest import DEMO

WINDOWS, SEQ_LEN = 16, 128
TEXT = DEMO / "evaluation.txt"
EXACT = 1e-3  # of the perplexity
BFLOAT16 = 3e-3


def agree(theirs, ours, tolerance):
    assert theirs.corpus_tokens == ours["corpus_tokens"]
    assert theirs.value == pytest.approx(ours["perplexity"], rel=tolerance)


@pytest.fixture(scope="module")
def demo_perplexity(ours):
    return ours(DEMO, TEXT, WINDOWS, SEQ_LEN)


@pytest.mark.parametrize("engine, dtype, tolerance", [
    ("transformers", "float32", EXACT), ("transformers", "bfloat16", BFLOAT16), ("vllm", "float32", EXACT), ("vllm", "float16", EXACT),
    ("vllm", "bfloat16", BFLOAT16), ("gptqmodel", "float32", EXACT)])
def test_demo_folder(consumer, demo_perplexity, engine, dtype, tolerance):
    agree(consumer(engine).perplexity(DEMO, TEXT, WINDOWS, SEQ_LEN, dtype), demo_perplexity, tolerance)


def test_demo_gguf(consumer, demo_perplexity, tmp_path):
    checkpoints.gguf_file(DEMO, tmp_path / "demo.gguf")
    agree(consumer("llama.cpp").perplexity(tmp_path / "demo.gguf", TEXT, WINDOWS, SEQ_LEN), demo_perplexity, EXACT)


@pytest.mark.parametrize("engine, dtype, tolerance", [("transformers", "float32", EXACT), ("vllm", "bfloat16", BFLOAT16), ("gptqmodel", "bfloat16", BFLOAT16)])
def test_real_folder(consumer, ours, shared, smollm2_folder, engine, dtype, tolerance):
    text = shared / "data/wikitext2-test.raw"
    agree(consumer(engine).perplexity(smollm2_folder, text, 2, 512, dtype), ours(smollm2_folder, text, 2, 512), tolerance)


def test_real_gguf(consumer, ours, shared, smollm2_folder, tmp_path):
    text = shared / "data/wikitext2-test.raw"
    checkpoints.gguf_file(smollm2_folder, tmp_path / "model.gguf")
    agree(consumer("llama.cpp").perplexity(tmp_path / "model.gguf", text, 2, 512), ours(smollm2_folder, text, 2, 512), EXACT)


def test_openvino_reads_a_gguf(consumer, ours, tmp_path):
    """It takes no float GGUF; of Q8_0 it computes what the codes stand for."""
    weights = checkpoints.gguf_file(DEMO, tmp_path / "demo.gguf", gguf.GGMLQuantizationType.Q8_0)
    checkpoints.write_float(DEMO, tmp_path / "float", weights)
    theirs = consumer("openvino").perplexity(tmp_path / "demo.gguf", TEXT, WINDOWS, SEQ_LEN, tokenizer=str(DEMO / "tokenizer.json"))
    agree(theirs, ours(tmp_path / "float", TEXT, WINDOWS, SEQ_LEN), EXACT)
