"""Can a merge be judged without data? A proxy from held-out anchors against the accuracy.

    python -m tests.bench.vision.proxy [--cache bench-output/vision]

The proxy of a merge θ is the mean over layers φ and experts e of the cosine between
φ(θ,X) − φ(θ0,X) and φ(θe,X) − φ(θ0,X), X being the expert's anchors of the layer, which FDA
constructs in our metric. Compared are the methods without data, none of which has seen an
anchor, as far as the cache has their merges and accuracy; what was merged once and dropped is
merged again. Writes proxy.json, documented in page_levers.py, under the cache.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from fda_core.engine.device import fast_float32, float32_kernel
from tests.bench.vision import report
from tests.bench.vision.appearing import write_text
from tests.bench.vision.catalogue import DEFAULT_CACHE
from tests.bench.vision.contenders import METRIC, Contender, contenders, fda_from
from tests.bench.vision.evaluate import evaluate, is_judged
from tests.bench.vision.layers import Tensors, block_of, layers_of
from tests.bench.vision.merging import Merged, anchors_of, drop_weights, merge
from tests.bench.vision.model_folder import WEIGHTS, read_config
from tests.bench.vision.page_levers import rank_correlation
from tests.bench.vision.run import Suite, is_there, prepare
from tests.bench.vision.table import line, percent
from tests.bench.vision.uncertainty import mean_accuracy

SEED = 0
"""Of the anchors, and of the one merge of each method that is compared."""

Function = Callable[[Tensors, Tensor], Tensor]
"""φ: tensors of a layer and x (n, t, d) to (n, t, d)."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One expert's anchors of a layer, and what the base and the expert make of them."""

    layer: int
    function: Function
    anchors: Tensor
    base: Tensor
    """φ(θ0,X), (n, t, d)."""
    update: Tensor
    """φ(θe,X) − φ(θ0,X), (n, t, d)."""

    def cosine(self, merged: Tensors) -> float:
        """Return the cosine of a merged layer's update and the expert's; 0 if either is zero."""
        moved = self.function(merged, self.anchors) - self.base
        return float(cosine_similarity(moved.flatten(), self.update.flatten(), dim=0))


def probe(
    function: Function, base: Tensors, expert: Tensors, *, anchors: Tensor, layer: int
) -> Probe:
    """Return the probe of a layer by an expert's anchors (n, t, d)."""
    before = function(base, anchors)
    update = function(expert, anchors) - before
    return Probe(layer=layer, function=function, anchors=anchors, base=before, update=update)


def proxy(probes: Sequence[Probe], merged: Mapping[int, Tensors]) -> float:
    """Return the mean cosine over the probes of a merge's layers, from -1 to 1."""
    return fmean(each.cosine(merged[each.layer]) for each in probes)


def measure(suite: Suite) -> list[dict[str, Any]]:
    """Return proxy.json of what the cache holds, the highest proxy first."""
    chosen = compared(suite)
    with torch.no_grad(), fast_float32(float32_kernel()):
        probes = probes_of(suite)
        found = [_measured(suite, contender, probes) for contender in chosen]
    return sorted(found, key=lambda each: -each["proxy"])


def compared(suite: Suite) -> list[Contender]:
    """Return the methods without data whose merges and accuracy are in the cache."""
    return [
        contender
        for contender in contenders(len(suite.tasks))
        if contender.group == "data-free"
        and is_there(suite, contender)
        and is_judged(_merged(suite, contender).weights, suite.tasks, **_where(suite))
    ]


def probes_of(suite: Suite) -> list[Probe]:
    """Return the probes of all layers and experts, their anchors constructed if need be."""
    models = suite.models
    method = fda_from("base", construct=METRIC).method or {}
    anchors = anchors_of(method, models, seed=SEED, cache=suite.cache)
    base, config = layers_of(models.base), read_config(models.base)
    experts = {name: layers_of(folder) for name, folder in models.experts.items()}
    functions = {layer: block_of(tensors, config, layer=layer) for layer, tensors in base.items()}
    return [
        probe(functions[layer], base[layer], experts[name][layer], anchors=found, layer=layer)
        for (layer, name), found in anchors.items()
    ]


def _measured(suite: Suite, contender: Contender, probes: Sequence[Probe]) -> dict[str, Any]:
    with _present(suite, contender) as merged:
        correct = evaluate(merged.folder, suite.tasks, weights=merged.weights, **_where(suite))
        return {
            "method": contender.name,
            "proxy": proxy(probes, layers_of(merged.folder)),
            "accuracy": mean_accuracy({task: each[None] for task, each in correct.items()}).value,
        }


@contextmanager
def _present(suite: Suite, contender: Contender) -> Iterator[Merged]:
    """Give a merge with its weights, made again for as long as it takes if they were dropped."""
    merged = _merged(suite, contender)
    if (merged.folder / WEIGHTS).exists():
        yield merged
        return
    merged = _merged(suite, contender, again=True)
    try:
        yield merged
    finally:
        drop_weights(merged)


def _merged(suite: Suite, contender: Contender, *, again: bool = False) -> Merged:
    method = contender.method or {}
    return merge(method, suite.models, seed=SEED, cache=suite.cache, again=again)


def _where(suite: Suite) -> dict[str, Any]:
    return {"part": suite.part, "cache": suite.cache}


def markdown(proxies: Sequence[Mapping[str, Any]]) -> str:
    """Return a row for each method in the order given, and how well the two ranks agree."""
    rows = [(each["method"], f"{each['proxy']:.4f}", percent(each["accuracy"])) for each in proxies]
    rho = rank_correlation(
        [each["proxy"] for each in proxies], [each["accuracy"] for each in proxies]
    )
    said = f"Spearman's rank correlation is {rho:+.2f} over {len(proxies)} methods."
    head = line(("method", "proxy", "accuracy (%)"))
    return "\n".join([head, "|---|---:|---:|", *map(line, rows), "", said]) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write the file and the report, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    suite = prepare(chosen.cache.absolute())
    found = measure(suite)
    write_text(suite.cache / "proxy.json", json.dumps(found, indent=1) + "\n")
    print(markdown(found))
    print(f"figures: {report.write(suite.cache)}")


if __name__ == "__main__":
    main()
