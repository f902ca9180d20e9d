"""What the anchors become as construction goes on: their spectra, and how near real features.

    python -m tests.bench.vision.subspaces [--cache bench-output/vision] [--layers 1 5 9]
                                           [--inits gaussian spectral] [--optimisers adamw]

Constructs the anchors of three tasks and some layers by the ablations' reference, with the
engine's own code and random numbers, and stops on the way at several steps. Real features are
the inputs of the layer in the task's expert, for images of its *train* part; they are used for
measuring only, no anchor ever sees them. Results are cached, and subspaces.json and
subspaces.md written under the cache:

    {"format": 1, "made", "machine", "images", "layers", "steps", "reference",
     "features": [{"task", "layer", "rows", "effective_rank", "head_energy", "spectrum"}],
     "anchors": [{"task", "layer", "init", "optimiser", "cpu_seconds",
                  "stages": [{"steps", "alignment" | null, "effective_rank", "head_energy",
                              "similarity", "spectrum"}],
                  "size", "chance"}],
     "findings": [{"claim", "of", "init", "optimiser", "difference": {"value", "error"}, "cells",
                   "verdict"}]}

`head_energy` is the share of the strongest fifth of the directions, `similarity` tr(P P̂)/k of
the strongest k = `size` (a fifth of the anchors' directions) with those of the features,
`chance` k/d. Singular values are over the largest.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fda_core.anchors.cache import layer_digest
from fda_core.anchors.config import ConstructConfig
from fda_core.anchors.construct import Descent, pose
from fda_core.anchors.initialise import initial_anchors
from fda_core.anchors.layer_task import LayerTask
from fda_core.engine import seeds
from fda_core.engine.device import fast_float32, float32_kernel
from tests.bench.vision import report
from tests.bench.vision.ablation_points import SUB_SUITE, reference
from tests.bench.vision.appearing import write_text
from tests.bench.vision.catalogue import DEFAULT_CACHE
from tests.bench.vision.content_keys import key_of, task_key
from tests.bench.vision.encoder import BATCH, pixels_of
from tests.bench.vision.evaluate import Judged
from tests.bench.vision.layers import block_of, layers_of
from tests.bench.vision.model_folder import load_model, read_config
from tests.bench.vision.results import FORMAT, machine
from tests.bench.vision.run import Suite, prepare
from tests.bench.vision.spectra import (
    Singular,
    effective_rank,
    head_energy,
    head_size,
    relative,
    similarity,
    singular,
)
from tests.bench.vision.subspace_tables import findings, markdown

LAYERS = (1, 5, 9)
INITS = ("gaussian", "spectral")
STEPS = (0, 10, 20, 40, 60, 120, 240)
IMAGES = 256
"""Of the train part, evenly from its list; all their tokens are rows."""
SEED = 0


def measure(
    suite: Suite, layers: Sequence[int], inits: Sequence[str], optimisers: Sequence[str]
) -> dict[str, Any]:
    """Return the whole as plain data, computing what the cache lacks."""
    chosen = [judged for judged in suite.tasks if judged.name in SUB_SUITE]
    features, anchors = [], []
    for judged in chosen:
        for layer, real in zip(layers, real_features(suite, judged, layers), strict=True):
            features.append({"task": judged.name, "layer": layer, **about(real, digits=4)})
            for init, optimiser in product(inits, optimisers):
                config = config_of(init, optimiser)
                found = _cached(suite, judged, layer, config, real)
                anchors.append({"task": judged.name, "layer": layer, **found})
    return {
        "format": FORMAT,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "images": IMAGES,
        "layers": list(layers),
        "steps": list(STEPS),
        "reference": reference()["construct"],
        "features": features,
        "anchors": anchors,
        "findings": findings(anchors),
    }


def config_of(init: str, optimiser: str) -> ConstructConfig:
    """Return the reference's settings with another start, and optimiser where there is one."""
    changed = {"init": init, "steps": max(STEPS)}
    if "optimiser" in ConstructConfig.model_fields:
        changed["optimiser"] = optimiser
    return ConstructConfig(**{**reference()["construct"], **changed})


def real_features(suite: Suite, judged: Judged, layers: Sequence[int]) -> list[Singular]:
    """Return the decomposed inputs of layers in a task's expert, for images it trained on."""
    images = judged.task.parts["train"].images
    images = images[evenly(len(images), IMAGES)]
    module = load_model(suite.models.experts[judged.name])
    with torch.inference_mode(), fast_float32(float32_kernel()):
        batches = [
            module(
                pixel_values=pixels_of(images[first : first + BATCH]), output_hidden_states=True
            ).hidden_states
            for first in range(0, len(images), BATCH)
        ]
        return [singular(torch.cat([states[layer] for states in batches])) for layer in layers]


def evenly(count: int, wanted: int) -> NDArray[np.int64]:
    """Return places spread over all of a list, as many as wanted or there are."""
    taken = min(count, wanted)
    return np.arange(taken) * count // taken


def _cached(
    suite: Suite, judged: Judged, layer: int, config: ConstructConfig, real: Singular
) -> dict[str, Any]:
    key = key_of(
        base=suite.models.digests[""],
        expert=suite.models.digests[judged.name],
        task=task_key(judged.task),
        config=config.model_dump(),
        facts=[layer, IMAGES, "over the whole list", SEED, *STEPS],
    )
    place = suite.cache / "subspaces" / f"{judged.name}-{layer}-{config.init}-{key}.json"
    if not place.exists():
        models = suite.models
        base, expert = (
            layers_of(folder)[layer] for folder in (models.base, models.experts[judged.name])
        )
        found = watch(base, expert, read_config(models.base), layer, config=config, real=real)
        write_text(place, json.dumps(found) + "\n")
        print(f"{judged.name}, layer {layer}, {config.init}: {found['cpu_seconds']} CPU s")
    said: dict[str, Any] = json.loads(place.read_text())
    return said


def watch(
    base: Mapping[str, Tensor],
    expert: Mapping[str, Tensor],
    model: Mapping[str, Any],
    layer: int,
    *,
    config: ConstructConfig,
    real: Singular,
) -> dict[str, Any]:
    """Construct the anchors of one (layer, expert) and describe them at every one of `STEPS`."""
    began, width = time.process_time(), real.vectors.shape[1]
    task = LayerTask(
        block=block_of(base, model, layer=layer), base=base, expert=expert, width=width
    )
    problem = pose(task, config=config)
    if problem is None:
        raise ValueError(f"layer {layer} of the expert is the base's")
    start = initial_anchors(
        base,
        expert,
        config=config,
        tokens=config.tokens or 0,
        width=width,
        generator=seeds.generator(SEED, "construct", layer, layer_digest(expert)),
    )
    descent = Descent(problem, start)
    stages = [_stage(start, real, steps=0, alignment=None)]
    with fast_float32(float32_kernel()):
        for steps in STEPS[1:]:
            descent.advance(steps, on_step=lambda *_: None)
            anchors, reached = descent.result().anchors, descent.alignment
            stages.append(_stage(anchors, real, steps=steps, alignment=reached))
    size = head_size(min(start.flatten(0, -2).shape))
    return {
        "init": config.init,
        "optimiser": getattr(config, "optimiser", "adamw"),
        "cpu_seconds": round(time.process_time() - began, 1),
        "stages": stages,
        "size": size,
        "chance": size / width,
    }


def _stage(
    anchors: Tensor, real: Singular, *, steps: int, alignment: float | None
) -> dict[str, Any]:
    found = singular(anchors)
    near = similarity(found, real, size=head_size(len(found.values)))
    return {"steps": steps, "alignment": alignment, **about(found), "similarity": near}


def about(found: Singular, *, digits: int = 5) -> dict[str, Any]:
    """Return what a spectrum looks like."""
    return {
        "directions": len(found.values),
        "effective_rank": effective_rank(found),
        "head_energy": head_energy(found),
        "spectrum": relative(found, digits=digits),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE)
    parser.add_argument("--layers", type=int, nargs="+", default=list(LAYERS))
    parser.add_argument("--inits", nargs="+", default=list(INITS))
    parser.add_argument("--optimisers", nargs="+", default=["adamw"])
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    suite = prepare(chosen.cache.absolute())
    found = measure(suite, chosen.layers, chosen.inits, chosen.optimisers)
    text = markdown(found)
    write_text(suite.cache / "subspaces.json", json.dumps(found) + "\n")
    write_text(suite.cache / "subspaces.md", text)
    print(text)
    print(f"figures: {report.write(suite.cache)}")


if __name__ == "__main__":
    main()
