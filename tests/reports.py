"""Reading what runs and `qbench … --json` tell."""


def figures(evaluation):
    """An evaluation of a report, its metrics by name beside its conditions: perplexity, standard_error, window_nll … as numbers and lists."""
    by_name = {metric["name"]: metric for metric in evaluation["metrics"]}
    flat = {name: metric["value"] for name, metric in by_name.items()}
    if "nll" in by_name:
        flat |= {"standard_error": by_name["perplexity"]["standard_error"], "mean_nll": flat["nll"], "window_nll": by_name["nll"]["values"]}
    return {**{key: value for key, value in evaluation.items() if key != "metrics"}, **flat, "metrics": by_name}


def perplexities(report):
    """Those of a report, in order: of the float model where it was measured, then of the quantized one, text by text."""
    return [figures(evaluation) for evaluation in report["evaluations"] if evaluation["evaluator"] == "perplexity"]
