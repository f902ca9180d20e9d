"""Made-up but plausible files of the vision benchmark, for tests of what is drawn from them."""

from typing import Any

import numpy as np

from tests.bench.vision.ablation_points import GROUPS, points
from tests.bench.vision.ablations import Measured
from tests.bench.vision.ablations import contender as ablation_contender
from tests.bench.vision.ablations import document as ablations_document
from tests.bench.vision.catalogue import TASKS
from tests.bench.vision.contenders import BASE, INDIVIDUAL, Contender, contenders, left_out
from tests.bench.vision.merging import Cost, Merged
from tests.bench.vision.results import Row
from tests.bench.vision.results import document as results_document
from tests.bench.vision.subspace_tables import findings
from tests.bench.vision.subspaces import STEPS
from tests.bench.vision.uncertainty import Runs
from tests.unit.bench.vision_rows import IMAGES, runs, suite

ALL = tuple(TASKS)
HARD = {task: 0.12 * np.sin(2.3 * number) for number, task in enumerate(ALL)}


def results() -> dict[str, Any]:
    """Return results.json of every contender, better ones later in the list."""
    everyone = contenders(len(ALL))
    levels = np.linspace(0.44, 0.78, len(everyone))
    rows = [
        _row(contender, float(level), ALL, seed=number)
        for number, (contender, level) in enumerate(zip(everyone, levels, strict=True))
    ]
    tasks = suite(ALL).tasks
    training: dict[str, dict[str, Any]] = {task: {} for task in ALL}
    return results_document(
        rows, tasks, part="test", training=training, left_out=left_out(len(ALL))
    )


def ablations() -> dict[str, Any]:
    """Return ablations.json of all points there are."""
    numbers = np.random.default_rng(0)
    measured = []
    for number, point in enumerate(p for group in GROUPS for p in points(group)):
        level = 0.6 + 0.08 * numbers.random() - 0.01 * len(point.tasks)
        row = _row(ablation_contender(point), level, point.tasks, seed=number)
        measured.append(Measured(point=point, row=row))
    return ablations_document(measured, suite(ALL), runs(360, ALL))


def subspaces() -> dict[str, Any]:
    """Return subspaces.json of two starts, three tasks and three layers."""
    cells = [
        _cell(task, layer, init, number)
        for number, (task, layer, init) in enumerate(
            (task, layer, init)
            for task in ("mnist", "animals", "kanji")
            for layer in (1, 5, 9)
            for init in ("gaussian", "spectral")
        )
    ]
    real = {"effective_rank": 12.2, "head_energy": 0.973, "spectrum": _tail(0.7, 384)}
    features = [{"task": cell["task"], "layer": cell["layer"], **real} for cell in cells[::2]]
    return {
        "format": 1,
        "made": "2026-11-22T00:00:00+00:00",
        "images": 256,
        "layers": [1, 5, 9],
        "steps": list(STEPS),
        "features": features,
        "anchors": cells,
        "findings": findings(cells),
    }


def levers() -> list[dict[str, Any]]:
    """Return levers.json of one lever that was kept and one of which little is known."""
    return [
        {"lever": "bf16 products", "what": "Products in bfloat16.", "kept": False},
        {
            "lever": "spectral start",
            "what": "Anchors begin in the head subspace of the update.",
            "kept": True,
            "before": {"alignment": 0.61, "accuracy": 0.66, "cpu_seconds": 400},
            "after": {"alignment": 0.74, "accuracy": 0.67, "cpu_seconds": 250},
            "note": "The default of the benchmark.",
        },
    ]


def proxies() -> list[dict[str, Any]]:
    """Return proxy.json of methods whose proxy falls as accuracy rises."""
    names = ("linear", "ties", "tsvm", "iwudi", "fda from base", "fda from tsvm")
    return [
        {"method": name, "proxy": 1.0 / (number + 1), "accuracy": 0.5 + 0.04 * number}
        for number, name in enumerate(names)
    ]


def _row(contender: Contender, level: float, tasks: tuple[str, ...], *, seed: int) -> Row:
    numbers = np.random.default_rng(seed)
    outcomes: Runs = {
        task: numbers.random((len(contender.seeds), IMAGES)) < level + HARD[task] for task in tasks
    }
    merges = [] if contender in (BASE, INDIVIDUAL) else [_merged(contender, level, seed)]
    return Row(contender=contender, runs=outcomes, merges=merges)


def _merged(contender: Contender, level: float, seed: int) -> Merged:
    is_fda = contender.group == "fda"
    cost = Cost(
        cpu_seconds=3.0 * 1.2**seed,
        wall_seconds=4.0,
        peak_memory_bytes=6 * 10**8,
        flops=10**10 * (seed + 1),
    )
    return Merged(
        folder=suite(ALL).cache,
        weights="w",
        seed=0,
        cost=cost,
        construction=cost if is_fda else None,
        alignment=level if is_fda else None,
    )


def _cell(task: str, layer: int, init: str, number: int) -> dict[str, Any]:
    stages = []
    for place, steps in enumerate(STEPS):
        begin, gain = (0.08, 0.05) if init == "gaussian" else (0.40, 0.01)
        power = 0.05 + (0.12 * place if init == "gaussian" else 0.8 - 0.05 * place)
        stages.append(
            {
                "steps": steps,
                "alignment": None if steps == 0 else 0.3 + 0.07 * place,
                "effective_rank": 130.0 / (1 + place),
                "head_energy": 0.4 + 0.08 * place,
                "similarity": begin + gain * place + 0.005 * (number % 5),
                "spectrum": _tail(power, 160),
            }
        )
    about = {"init": init, "optimiser": "adamw", "cpu_seconds": 12.0, "size": 32}
    return {"task": task, "layer": layer, "stages": stages, "chance": 32 / 384, **about}


def _tail(power: float, count: int) -> list[float]:
    return [float(rank) ** -power for rank in range(1, count + 1)]
