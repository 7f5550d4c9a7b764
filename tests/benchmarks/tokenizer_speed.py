#!/usr/bin/env python3
"""Speed of our tokenizer beside Hugging Face's, one thread each, rounds interleaved in one run.

    python tests/benchmarks/tokenizer_speed.py TOKENIZER.json TEXT [--rounds 7]

Hugging Face is timed through encode_batch_fast with one text (no offsets: its fastest way), in this process without
parallelism. "first" rounds start from freshly loaded tokenizers, "again" rounds find their word caches filled.
QBENCH_BUILD names the build folder (default build/dev). Absolute figures depend on what else the machine does; the
ratio of neighbouring rounds is what counts.
"""
import argparse
import os
import statistics
import subprocess
import time
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"
from tokenizers import Tokenizer  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer")
    parser.add_argument("text")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    root = Path(__file__).resolve().parents[2]
    tool = Path(os.environ.get("QBENCH_BUILD", root / "build" / "dev")) / "tests" / "tokenize_speed"
    text = Path(args.text).read_bytes().decode("utf-8", "replace")
    megabytes = len(text.encode()) / 1e6
    ours = subprocess.Popen([tool, args.tokenizer, args.text], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    def round_of(kind, theirs):
        ours.stdin.write(kind + "\n")
        seconds, count = ours.stdout.readline().split()
        start = time.perf_counter()
        ids = theirs.encode_batch_fast([text], add_special_tokens=False)[0].ids
        elapsed = time.perf_counter() - start
        assert int(count) == len(ids), f"{count} tokens here, {len(ids)} there"
        return float(seconds), elapsed

    print(f"{args.text}: {megabytes:.2f} MB, tokenizer {args.tokenizer}")
    for kind, label in (("fresh", "first"), ("", "again")):
        theirs = Tokenizer.from_file(args.tokenizer)
        if kind == "":
            round_of(kind, theirs)
        pairs = []
        for _ in range(args.rounds):
            if kind == "fresh":
                theirs = Tokenizer.from_file(args.tokenizer)
            pairs.append(round_of(kind, theirs))
        best = [min(p[i] for p in pairs) for i in (0, 1)]
        ratio = statistics.median(b / a for a, b in pairs)
        print(f"{label:>6}: ours {megabytes / best[0]:8.1f} MB/s   tokenizers {megabytes / best[1]:8.1f} MB/s   median ratio {ratio:.1f}x")
    ours.stdin.close()
    ours.wait()


if __name__ == "__main__":
    main()
