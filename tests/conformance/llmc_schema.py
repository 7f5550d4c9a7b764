"""LLMC's configuration schema as its code reads it, written from the facts of its repository (ModelTC/llmc): what a file
must have so that LLMC runs it. Independent of our exporter; loads files as LLMC does, with yaml.safe_load."""
import yaml

METHODS = {"RTN", "Awq", "GPTQ", "SmoothQuant", "OsPlus", "OmniQuant", "AdaDim", "DGQ", "HQQ", "LlmInt8", "NormTweaking", "QUIK", "SpQR", "Quarot", "TesseraQ"}
MODELS = {"Bloom", "ChatGLM", "DeepseekV2", "DeepseekV3", "Falcon", "Gemma2", "InternLM2", "Llama", "Mistral", "Mixtral", "Opt", "Phi", "Phi3", "Qwen", "Qwen2",
          "Qwen2Moe", "SmolLM", "StableLm", "Starcoder"}
DTYPES = {"auto", "torch.float16", "torch.bfloat16", "torch.float32", "torch.float8_e4m3fn"}
CALIBRATIONS = {"pileval", "c4", "wikitext2", "ptb", "ultrachat", "custom_txt"}
PREPROCESSINGS = {"wikitext2_gptq", "ptb_gptq", "c4_gptq", "pileval_awq", "pileval_smooth", "pileval_omni", "txt_general_preproc", "random_truncate_txt",
                  "ultrachat_general"}
EVALUATIONS = {"wikitext2", "c4", "ptb", "custom_ppl"}
PLACES = {"pretrain", "transformed", "fake_quant", "fake_quant_wo_kv"}
GRANULARITIES = {"per_tensor", "per_channel", "per_token", "per_group", "per_head", "per_block"}


def need(section, key, kind, where):
    assert key in section, f"{where}.{key} is missing"
    assert type(section[key]) is kind, f"{where}.{key}: expected {kind.__name__}, found {section[key]!r}"
    return section[key]


def check_quantizer(q, where, act):
    bit = q.get("bit")
    floating = q.get("quant_type", "int-quant") == "float-quant"
    assert q.get("quant_type", "int-quant") in ("int-quant", "float-quant")
    if floating:
        assert isinstance(bit, str) and bit[0] == "e" and "m" in bit, f"{where}.bit: {bit!r}"
    else:
        assert type(bit) is int and 1 <= bit <= 8, f"{where}.bit: {bit!r}"
    symmetric = need(q, "symmetric", bool, where)
    assert symmetric or not floating
    granularity = need(q, "granularity", str, where)
    assert granularity in GRANULARITIES
    assert not (granularity == "per_token" and not act) and not (granularity == "per_channel" and act)
    if granularity == "per_group":
        assert need(q, "group_size", int, where) > 0
    elif "group_size" in q:
        assert q["group_size"] == -1
    if granularity == "per_head":
        assert need(q, "head_num", int, where) > 0
    if granularity == "per_block":
        assert need(q, "block_size", int, where) > 0 and symmetric and q.get("calib_algo", "minmax") == "minmax"
    static = q.get("static", False)
    assert type(static) is bool and not (static and (not act or granularity != "per_tensor"))
    assert q.get("calib_algo", "minmax") in (("static_minmax", "static_moving_minmax", "static_hist") if static else ("minmax", "mse", "learnable", "hqq"))
    for key, kind in (("mse_grid", int), ("maxshrink", float), ("round_zp", bool), ("use_qtorch", bool)):
        if key in q:
            assert type(q[key]) is kind, f"{where}.{key}: {q[key]!r}"


def check(text):
    """Raises AssertionError naming the key; returns the loaded configuration."""
    config = yaml.safe_load(text)
    assert isinstance(config, dict)
    assert set(config) <= {"base", "model", "calib", "eval", "quant", "save", "ignored_layers"}, set(config)
    need(need(config, "base", dict, ""), "seed", int, "base")
    model = need(config, "model", dict, "")
    assert need(model, "type", str, "model") in MODELS
    need(model, "path", str, "model")
    assert model.get("torch_dtype", "auto") in DTYPES
    assert model.get("tokenizer_mode", "slow") in ("slow", "fast")
    if "calib" in config:
        calib = config["calib"]
        assert need(calib, "name", str, "calib") in CALIBRATIONS
        assert need(calib, "preproc", str, "calib") in PREPROCESSINGS
        need(calib, "download", bool, "calib")
        need(calib, "path", str, "calib")
        for key in ("n_samples", "bs", "seq_len", "seed"):
            need(calib, key, int, "calib")
    for entry in config["eval"] if isinstance(config.get("eval"), list) else [config["eval"]] if "eval" in config else []:
        assert set(need(entry, "eval_pos", list, "eval")) <= PLACES
        names = entry["name"] if isinstance(entry["name"], list) else [entry["name"]]
        assert set(names) <= EVALUATIONS
        assert entry.get("type", "ppl") == "ppl"
        need(entry, "download", bool, "eval")
        need(entry, "path", str, "eval")
        for key in ("bs", "seq_len"):
            assert need(entry, key, int, "eval") > 0
        need(entry, "inference_per_block", bool, "eval")
    quant = need(config, "quant", dict, "")
    method = need(quant, "method", str, "quant")
    assert method in METHODS
    weight = need(quant, "weight", dict, "quant")
    if method == "DGQ":  # groups inside channels
        for part in ("w_1", "w_2"):
            check_quantizer(need(weight, part, dict, "quant.weight"), f"quant.weight.{part}", act=False)
    else:
        check_quantizer(weight, "quant.weight", act=False)
    if method == "QUIK":
        special = need(quant, "special", dict, "quant")
        for key, kind in (("fp_relative", bool), ("fp_features", int), ("fp_threshold", float), ("last_fc_bit", int)):
            need(special, key, kind, "quant.special")
    if "act" in quant:
        check_quantizer(quant["act"], "quant.act", act=True)
    if "kvcache" in quant:
        cache = dict(quant["kvcache"])
        assert cache.pop("method", None) == "Naive"
        assert cache["granularity"] in ("per_token", "per_tensor", "per_group")
        check_quantizer(cache, "quant.kvcache", act=True)
    if method == "HQQ":
        special = need(quant, "special", dict, "quant")
        assert need(special, "axis", int, "special") in (0, 1)
        need(special, "iters", int, "special")
        for key in ("lp_norm", "beta", "kappa"):
            assert type(special[key]) in (int, float), f"special.{key}: {special[key]!r}"
        assert not quant["weight"]["symmetric"]
    if "ignored_layers" in config:
        ignored = config["ignored_layers"]
        assert set(ignored) <= {"block_ids", "layer_names", "speical_names"}
        for block in ignored["block_ids"]:
            assert type(block) is int or (isinstance(block, str) and all(part.isdigit() for part in block.split("-", 1)))
        assert all(isinstance(name, str) for name in ignored["layer_names"] + ignored["speical_names"])
    save = need(config, "save", dict, "")
    need(save, "save_path", str, "save")
    assert all(type(value) is bool for key, value in save.items() if key != "save_path")
    return config
