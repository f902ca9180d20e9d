"""Predicted against measured time, and predictions for the sizes that FDA's paper merges.

    python -m tests.bench.cost [--rounds 7] [--skip-measuring]

First the model of `fda_core.engine.costs` is held to what this processor does, one thread, in
CPU seconds, calibrated before each case: a construction step and an adaptation epoch of four
layers, and whole merges of a BERT of two layers by the methods compared with. Then it predicts
the paper's merges on the GPUs of `devices.toml`, none of which is needed or measured.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch

from fda_core.anchors.adapt import Coefficients, Elements, Variables, adapt
from fda_core.anchors.config import AdaptConfig, ConstructConfig
from fda_core.anchors.construct import Descent, pose
from fda_core.cli.console import flops, size
from fda_core.cli.show_costs import duration
from fda_core.contract.cost import StageCost
from fda_core.contract.plan import Plan
from fda_core.engine.costs.calibrate import this_processor
from fda_core.engine.costs.devices import Device, gpus
from fda_core.engine.costs.layers import Rows, adapt_epoch, construct_step, evaluation
from fda_core.engine.costs.stages import other_costs, stage_costs
from fda_core.engine.costs.work import Work
from fda_core.engine.device import describe_device, fast_float32, float32_kernel
from fda_core.engine.plan import make_plan
from fda_core.engine.recipes import recipe_of
from fda_core.engine.units import UnitRunner
from fda_core.storage.resolve import storages
from tests.bench.published_models import MODELS, Published
from tests.support.sized_layers import SizedLayer, sized_layer

LAYERS = {
    "BERT 256, 64 x 5": ("bert", 256, 4, 512, 5),
    "BERT 384, 64 x 5": ("bert", 384, 12, 1536, 5),
    "BERT 768, 64 x 5": ("bert", 768, 12, 3072, 5),
    "ViT 384, 64 x 17": ("vit", 384, 6, 1536, 17),
}
ANCHORS, EXPERTS, EPOCHS = 64, 2, 4
METHODS: dict[str, Any] = {
    "task_arithmetic": "task_arithmetic",
    "tsvm": "tsvm",
    "wudi": "wudi",
    "iwudi": "iwudi",
    "fda, 40 steps, 40 epochs": {
        "name": "fda",
        "construct": {"anchors": ANCHORS, "steps": 40},
        "adapt": {"epochs": 40},
    },
}
SMALL = {"hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536}


def main() -> None:
    """Print three tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--skip-measuring", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if not options.skip_measuring:
        here = describe_device(torch.device("cpu"))
        print(f"{date.today()}, {here}, torch {torch.__version__}, one thread, CPU seconds\n")
        print(f"{'':<44}{'operations':>14}{'predicted':>12}{'measured':>12}{'ratio':>8}")
        _layers(options.rounds)
        _merges()
    for model in MODELS:
        _predictions(model)


def _row(name: str, work_flops: int, predicted: float, measured: float) -> None:
    print(
        f"{name:<44}{flops(work_flops):>14}{_time(predicted):>12}{_time(measured):>12}"
        f"{measured / predicted:>8.2f}",
        flush=True,
    )


def _time(value: float) -> str:
    return f"{value * 1e3:.1f} ms" if value < 1 else f"{value:.1f} s"


def _layers(rounds: int) -> None:
    """Hold both stages' steps to their predictions, layer by layer."""
    for name, (kind, width, heads, inner, tokens) in LAYERS.items():
        layer = sized_layer(kind, width=width, heads=heads, inner=inner)
        rows = Rows(anchors=ANCHORS, tokens=tokens, item=4)
        pool = Rows(anchors=ANCHORS * EXPERTS, tokens=tokens, item=4)
        cases: dict[str, tuple[Work, Callable[[], object]]] = {
            "construction step": (construct_step(layer.size, rows), _stepper(layer, rows))
        }
        for deltas, what in ((0, "elements"), (1, "coefficients")):
            epoch = adapt_epoch(layer.size, pool, batch=128, deltas=deltas)
            work = epoch * EPOCHS + evaluation(layer.size, pool, batch=128)
            cases[f"{EPOCHS} epochs, {what}"] = (work, _adapter(layer, pool, deltas))
        for what, (work, run) in cases.items():
            device = this_processor()
            with fast_float32(float32_kernel()):
                measured = _measured(run, rounds)
            _row(f"{name}: {what}", work.all_flops, device.seconds(work).likely, measured)


def _measured(run: Callable[[], object], rounds: int) -> float:
    times = []
    for _ in range(rounds + 1):
        began = time.process_time()
        run()
        times.append(time.process_time() - began)
    return statistics.median(times[1:])


def _stepper(layer: SizedLayer, rows: Rows) -> Callable[[], object]:
    config = ConstructConfig(anchors=rows.anchors, optimiser="adamw")
    problem = pose(layer.task, config=config)
    assert problem is not None
    start = 0.5 * torch.randn(rows.anchors, rows.tokens, layer.size.width)
    descent = Descent(problem, start)
    return lambda: descent.advance(descent.steps + 1, on_step=lambda *_: None)


def _adapter(layer: SizedLayer, pool: Rows, deltas: int) -> Callable[[], object]:
    """Return some epochs of adaptation and the evaluation that ends them."""
    anchors = 0.5 * torch.randn(pool.anchors, pool.tokens, layer.size.width)
    with torch.no_grad():
        targets = layer.block(layer.expert, anchors)
    variables: Variables = Elements(layer.base)
    if deltas:
        delta = {part: layer.expert[part] - layer.base[part] for part in layer.base}
        variables = Coefficients(layer.base, [(delta, 1.0)])
    return lambda: adapt(
        layer.block,
        variables,
        anchors,
        targets,
        config=AdaptConfig(epochs=EPOCHS, learning_rate=1e-5),
        generator=torch.Generator().manual_seed(0),
        on_epoch=lambda *_: None,
    )


def _merges() -> None:
    """Hold whole merges of a small BERT to their predictions, stage by stage."""
    with tempfile.TemporaryDirectory() as folder:
        _save_small(Path(folder))
        for name, method in METHODS.items():
            document = {
                "base": f"{folder}/base",
                "experts": [{"name": n, "model": f"{folder}/{n}"} for n in "abc"],
                "method": method,
                "output": f"{folder}/merged/{list(METHODS).index(name)}",
            }
            plan = make_plan(recipe_of(document), storages(), cwd="/")
            device = this_processor()
            took = _run(plan)
            stages = {row.name: row for row in stage_costs(plan, [device])}
            predicted = {key: row.seconds[device.name].likely for key, row in stages.items()}
            if "construct" in took:
                made = stages["construct"].flops
                _row(f"{name}: construct", made, predicted["construct"], took["construct"])
            merge = predicted["merge"] + predicted.get("adapt", 0.0)
            both = stages["merge"].flops
            both += stages["adapt"].flops if "adapt" in stages else 0
            _row(
                f"{name}: merge" + (", adapt" if "adapt" in stages else ""),
                both,
                merge,
                took["merge"],
            )


def _save_small(folder: Path) -> None:
    from transformers import BertConfig, BertModel
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    torch.manual_seed(0)
    model = BertModel(BertConfig(vocab_size=8000, num_hidden_layers=2, **SMALL))
    model.save_pretrained(folder / "base")
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for name in "abc":
        with torch.no_grad():
            for key, tensor in model.state_dict().items():
                if tensor.is_floating_point():
                    tensor.copy_(start[key] + 0.002 * torch.randn(tensor.shape))
        model.save_pretrained(folder / name)


def _run(plan: Plan) -> dict[str, float]:
    """Run a plan's units here, one by one; return CPU seconds by kind."""
    runner = UnitRunner(
        plan,
        storages(),
        device=torch.device("cpu"),
        worker=0,
        emit=lambda _: None,
        is_cancelled=lambda: False,
    )
    took: dict[str, float] = {}
    for unit in plan.units:
        began = time.process_time()
        runner.run(unit)
        took[unit.kind] = took.get(unit.kind, 0.0) + time.process_time() - began
    return took


def _predictions(model: Published) -> None:
    """Print what both stages and the methods compared with would take on each GPU."""
    with tempfile.TemporaryDirectory() as folder:
        plan = make_plan(recipe_of(model.make(Path(folder))), storages(), cwd="/")
        devices = gpus()
        fast = {name: gpus("tf32")[name] for name in ("h100", "a100")}
        print(f"\n{model.title} (predicted, float32)")
        names = "".join(f"{name:>9}" for name in devices)
        print(f"{'':<18}{'operations':>14}{'moved':>11}{'memory':>10}{names}")
        rows = [*stage_costs(plan, devices.values()), *other_costs(plan, devices.values())]
        for row in rows:
            _prediction(row, list(devices.values()))
        quick = stage_costs(plan, fast.values())[-1].seconds
        said = ", ".join(f"{name} {duration(quick[name].likely)}" for name in fast)
        print(f"all, were TF32 products allowed: {said}")


def _prediction(row: StageCost, devices: list[Device]) -> None:
    found = []
    for device in devices:
        fits = device.memory_bytes is None or row.memory_bytes <= device.memory_bytes
        found.append(duration(row.seconds[device.name].likely) if fits else "too big")
    print(
        f"{row.name:<18}{flops(row.flops):>14}{size(row.moved_bytes):>11}"
        f"{size(row.memory_bytes):>10}" + "".join(f"{each:>9}" for each in found)
    )


if __name__ == "__main__":
    main()
