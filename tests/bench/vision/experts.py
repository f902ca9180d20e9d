"""One expert per task: the whole encoder fine-tuned under the task's frozen head.

    python -m tests.bench.vision.experts [--cache bench-output/vision] [--only NAME ...] [--jobs 2]

AdamW, three epochs, batches of 32, a rate that rises to 2e-5 over 20 steps and falls to 0 along
a line, bfloat16 autocast over float32 weights, no augmentation; the order of images comes from
the seed and the task's name. The protocol is one for all tasks; no test part was asked.
"""

import argparse
import json
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from math import ceil
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fda_core.engine.seeds import generator
from tests.bench.vision.appearing import appearing
from tests.bench.vision.backbone import base_of
from tests.bench.vision.catalogue import DEFAULT_CACHE, TASKS, load_task
from tests.bench.vision.content_keys import key_of
from tests.bench.vision.encoder import class_token, pixels_of
from tests.bench.vision.evaluate import Judged, evaluate
from tests.bench.vision.heads import Head, head_key, head_of
from tests.bench.vision.model_folder import (
    digest_of,
    load_model,
    names_of,
    read_config,
    tensors_of,
    write_model,
)
from tests.bench.vision.task import Task

SEED = 0
PROTOCOL: Mapping[str, Any] = {
    "rate": 2e-5,
    "warm_up_steps": 20,
    "schedule": "linear to 0",
    "batch": 32,
    "seed": SEED,
    "epochs": 3,
    "autocast": "bf16",
}
TRAINING = "training.json"


def expert_folder(task: Task, base: Path, cache: Path) -> Path:
    """Return where a task's expert is, or will be once it is trained."""
    key = key_of(head=head_key(task, base), base=digest_of(base), **PROTOCOL)
    return cache / "experts" / f"{task.name}-{key}"


def expert_of(judged: Judged, base: Path, cache: Path) -> Path:
    """Return the folder of a task's expert, trained unless it is in the cache."""
    folder = expert_folder(judged.task, base, cache)
    if not folder.exists():
        began, used = time.perf_counter(), time.process_time()
        tensors, losses = train(judged.task, judged.head, base)
        about = {
            "task": judged.name,
            "protocol": dict(PROTOCOL),
            "loss_by_epoch": losses,
            "wall_seconds": round(time.perf_counter() - began, 1),
            "cpu_seconds": round(time.process_time() - used, 1),
        }
        with appearing(folder) as aside:
            write_model(aside, tensors, read_config(base))
            (aside / TRAINING).write_text(json.dumps(about, indent=1) + "\n")
    return folder


def training_of(folder: Path) -> dict[str, Any]:
    """Return what is written down of an expert's training."""
    found: dict[str, Any] = json.loads((folder / TRAINING).read_text())
    return found


def train(task: Task, head: Head, base: Path) -> tuple[dict[str, Tensor], list[float]]:
    """Return the fine-tuned tensors by their names on disk, and the mean loss of each epoch."""
    module = load_model(base).train()
    labels = torch.from_numpy(task.parts["train"].labels)
    images = task.parts["train"].images
    epochs, batch = PROTOCOL["epochs"], PROTOCOL["batch"]
    optimiser = torch.optim.AdamW(module.parameters(), lr=PROTOCOL["rate"])
    rates = _rates(optimiser, steps=epochs * ceil(len(labels) / batch))
    order = generator(SEED, "expert", task.name)
    losses = []
    for _ in range(epochs):
        total = 0.0
        for rows in torch.randperm(len(labels), generator=order).split(batch):
            with torch.autocast("cpu", torch.bfloat16):
                found = class_token(module, pixels_of(images[rows.numpy()]))
            loss = cross_entropy(head.logits(found.float()), labels[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            rates.step()
            total += float(loss.detach()) * len(rows)
        losses.append(round(total / len(labels), 4))
    return tensors_of(module, names_of(base)), losses


def _rates(optimiser: torch.optim.Optimizer, *, steps: int) -> torch.optim.lr_scheduler.LambdaLR:
    """Return the schedule of rates: a short rise, then a fall to 0."""
    rise = PROTOCOL["warm_up_steps"]
    return torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1.0, (step + 1) / rise) * (1.0 - step / steps)
    )


def make_expert(name: str, cache: Path) -> str:
    """Load a task, make its head and expert, and return a line that says how good they are."""
    torch.set_num_threads(1)
    base = base_of(cache)
    task = load_task(name, cache)
    judged = Judged(task=task, head=head_of(task, base, cache))
    expert = expert_of(judged, base, cache)
    shown = []
    for part in ("validation", "test"):
        before, after = (
            evaluate(folder, [judged], part=part, cache=cache)[name].mean()
            for folder in (base, expert)
        )
        shown.append(f"{part} {before:.3f} -> {after:.3f}")
    about = training_of(expert)
    return (
        f"{name}: {shown[0]}, {shown[1]}, scale {judged.head.scale:g}, "
        f"loss {about['loss_by_epoch']}, {about['cpu_seconds']} CPU s, {expert}"
    )


def make_experts(names: Sequence[str], cache: Path, *, jobs: int) -> None:
    """Make experts, `jobs` at a time as processes of one thread, and tell each when it is there."""
    os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE", KMP_BLOCKTIME="0")
    base_of(cache)
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for done in as_completed(pool.submit(make_expert, name, cache) for name in names):
            print(done.result(), flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the experts of some tasks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE)
    parser.add_argument("--only", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--jobs", type=int, default=2)
    chosen = parser.parse_args(arguments)
    make_experts(chosen.only, chosen.cache.absolute(), jobs=chosen.jobs)


if __name__ == "__main__":
    main()
