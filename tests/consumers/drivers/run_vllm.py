"""vLLM on a CPU: prompt log-probabilities, one engine a checkpoint, in this process."""
import gc
import os

os.environ.update(HF_HUB_OFFLINE="1", VLLM_NO_USAGE_STATS="1", VLLM_LOGGING_LEVEL="WARNING", VLLM_CPU_KVCACHE_SPACE="1", VLLM_ENABLE_V1_MULTIPROCESSING="0",
                  VLLM_CPU_OMP_THREADS_BIND="nobind",  # cores are shared
                  VLLM_CPU_INT4_W4A8="0")  # else 4-bit layers round activations to int8, on AMX machines only

import protocol


class Model:
    def __init__(self, job):
        from vllm import LLM
        n, self.predictions = job["seq_len"], job.get("predictions")
        # A token more than the window: at least one is always generated.
        self.llm = LLM(model=job["model"], dtype=job["dtype"], max_model_len=n + 1, max_num_seqs=1, max_num_batched_tokens=n + 1, enforce_eager=True,
                       enable_prefix_caching=False, disable_log_stats=True, **({"max_logprobs": -1} if self.predictions else {}))
        self.kernel = self.llm.apply_model(kernel_of)[0]

    def tokenize(self, text):
        return self.llm.get_tokenizer()(text).input_ids

    def losses(self, windows):
        from vllm import SamplingParams
        if self.predictions:
            return [self.predict(window, i) for i, window in enumerate(windows)]
        greedy = SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0, detokenize=False)
        answers = self.llm.generate([{"prompt_token_ids": w} for w in windows], greedy, use_tqdm=False)
        return [-sum(p[t].logprob for t, p in zip(a.prompt_token_ids[1:], a.prompt_logprobs[1:])) / (len(a.prompt_token_ids) - 1) for a in answers]

    def predict(self, window, number):
        """Keeps log-probabilities of all tokens, [seq_len − 1, vocabulary] float32, as NUMBER.npy in the folder that the job names."""
        import numpy as np
        from vllm import SamplingParams
        everything = SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=-1, detokenize=False, flat_logprobs=True)
        [answer] = self.llm.generate([{"prompt_token_ids": window}], everything, use_tqdm=False)
        found = answer.prompt_logprobs
        tokens, values = np.asarray(found.token_ids), np.asarray(found.logprobs, dtype=np.float32)
        table = np.full((len(window) - 1, tokens.max() + 1), -np.inf, dtype=np.float32)
        for row, first, last in zip(table, found.start_indices[1:], found.end_indices[1:]):
            row[tokens[first:last]] = values[first:last]
        np.save(os.path.join(self.predictions, f"{number}.npy"), table)
        return float(-table[np.arange(len(table)), window[1:]].mean())

    def close(self):
        del self.llm
        clean_up()


def kernel_of(model):
    """What computes the first layer's attention output: the first linear that is fused with no other."""
    linear = next(module for module in model.modules() if type(module).__name__ == "RowParallelLinear")
    scheme = getattr(linear, "scheme", None) or linear.quant_method
    return type(getattr(scheme, "kernel", scheme)).__name__


def clean_up():
    from vllm.distributed.parallel_state import cleanup_dist_env_and_memory
    gc.collect()
    cleanup_dist_env_and_memory()


def open_model(job):
    try:
        return Model(job)
    except BaseException:
        clean_up()  # what a refused checkpoint leaves behind
        raise


if __name__ == "__main__":
    protocol.serve(open_model)
