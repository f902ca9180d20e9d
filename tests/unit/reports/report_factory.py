"""Made-up plans, metrics and manifests that look like real ones, in any size."""

import math
import random
from dataclasses import dataclass, field

from fda_core.contract.artifacts import (
    AdaptMetrics,
    ArtifactFile,
    ConstructMetrics,
    Curve,
    Drift,
    InputDigest,
    Manifest,
    Metrics,
    TaskVectorMetrics,
    UnitCost,
    UnitSummary,
)
from fda_core.contract.plan import (
    PinnedCheckpoint,
    PinnedFile,
    Plan,
    PlannedExpert,
    PlannedShard,
    PlannedTensor,
    TensorRule,
    Unit,
)
from fda_core.contract.recipe import Expert, MethodSpec, Recipe

PARTS = (
    "attention.query.weight",
    "attention.key.weight",
    "attention.value.weight",
    "attention.output.weight",
    "mlp.up.weight",
    "mlp.down.weight",
    "norm1.weight",
    "norm2.weight",
)
NAMES = ("kanji", "terrain", "mnist", "fashion", "satellite", "units", "optdigits", "icons")


@dataclass(frozen=True, kw_only=True)
class MergeShape:
    """What to make up."""

    layers: int = 12
    experts: tuple[str, ...] = NAMES[:3]
    method: str = "fda"
    start: str | None = "tsvm"
    steps: int = 240
    points: int = 241
    outside: bool = True
    missing: frozenset[tuple[int, str]] = frozenset()
    """(layer, expert) whose values are all None."""
    base: str = "/home/ada/models/dinov2-small"
    output: str = "/home/ada/merged/dinov2-three"
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    parts: tuple[str, ...] = PARTS
    heads: dict[str, tuple[str, ...]] = field(default_factory=dict)
    seed: int = 0


def make_merge(shape: MergeShape) -> tuple[Plan, Metrics, Manifest]:
    """Return the three documents of one merge that fit together."""
    metrics = make_metrics(shape)
    return make_plan(shape), metrics, make_manifest(shape, metrics)


def make_metrics(shape: MergeShape) -> Metrics:
    chance = random.Random(shape.seed)
    fda = shape.method == "fda"
    pairs = [(layer, expert) for layer in range(shape.layers) for expert in shape.experts]
    construction = [_constructed(shape, chance, *pair) for pair in pairs] if fda else []
    adaptation = [_adapted(shape, chance, layer) for layer in range(shape.layers)] if fda else []
    places: list[int | None] = list(range(shape.layers))
    vectors = [_vectors(shape, chance, layer) for layer in places + [None] * shape.outside]
    units = tuple(_summary(unit, chance) for unit in make_units(shape))
    return Metrics(
        job_id="job-20261122-0001",
        method=shape.method,
        start=shape.start if fda else None,
        family="dinov2",
        layers=shape.layers,
        experts=shape.experts,
        construction=tuple(construction),
        adaptation=tuple(adaptation),
        task_vectors=tuple(vectors),
        units=units,
        totals=_sum(units),
    )


def make_plan(shape: MergeShape) -> Plan:
    units = make_units(shape)
    recipe = make_recipe(shape)
    return Plan(
        job_id="job-20261122-0001",
        digest="0123456789abcdef",
        version="0.1.0",
        recipe=recipe,
        output=shape.output,
        workspace="/home/ada/.fda-workspace/job-20261122-0001",
        family="dinov2",
        layers=shape.layers,
        width=384,
        base=_checkpoint(shape.base),
        experts=tuple(
            PlannedExpert(
                name=expert.name,
                weight=expert.weight,
                checkpoint=_checkpoint(expert.model),
                names={},
                heads=shape.heads.get(expert.name, ()),
            )
            for expert in recipe.experts
        ),
        tensors=tuple(
            PlannedTensor(
                name=f"encoder.layer.{layer}.{part}",
                layer=layer,
                part=part,
                rule=TensorRule.MERGE,
                reason="layer",
                experts=shape.experts,
                dtype="F32",
                shape=(384, 384),
            )
            for layer in range(shape.layers)
            for part in shape.parts[:2]
        ),
        shards=tuple(
            PlannedShard(
                number=layer,
                file=f"model-{layer:05d}.safetensors",
                layers=(layer,),
                tensors=(),
                size_bytes=7_100_000,
            )
            for layer in range(shape.layers)
        ),
        single_file=False,
        units=units,
        notes=shape.notes,
        warnings=shape.warnings,
    )


def make_recipe(shape: MergeShape) -> Recipe:
    return Recipe(
        base=shape.base,
        experts=tuple(
            Expert(name=name, model=f"/home/ada/models/{name}-tuned") for name in shape.experts
        ),
        method=MethodSpec(name=shape.method, parameters={}),
        output=shape.output,
    )


def make_manifest(shape: MergeShape, metrics: Metrics) -> Manifest:
    fda = {
        "start": {"name": shape.start, "scale": 1.0},
        "scope": "layer",
        "construct": {"anchors": 64, "tokens": 17, "init": "weight", "steps": shape.steps},
        "adapt": {"learning_rate": 0.01, "epochs": 100, "batch": 128, "distance": "l2"},
    }
    return Manifest(
        job_id=metrics.job_id,
        created="2026-11-22T09:14:03Z",
        versions={"fda": "0.1.0", "python": "3.11.7", "torch": "2.13.0", "transformers": "5.21"},
        seed=0,
        device="cpu",
        threads=2,
        method=shape.method,
        parameters=fda if shape.method == "fda" else {"density": 0.2, "scale": 1.0},
        inputs=(_input("base", shape.base), *(
            _input(name, f"/home/ada/models/{name}-tuned") for name in shape.experts
        )),
        outputs={
            f"model-{layer:05d}.safetensors": ArtifactFile(
                path=f"shards/{layer}", size_bytes=7_100_000, sha256="ab" * 32
            )
            for layer in range(shape.layers)
        },
        notes=shape.notes,
        warnings=shape.warnings,
    )  # fmt: skip


def make_units(shape: MergeShape) -> tuple[Unit, ...]:
    construct = [
        Unit(
            id=f"construct-{layer}-{expert}",
            kind="construct",
            layer=layer,
            expert=expert,
            steps=shape.steps,
            read_bytes=14_000_000,
            write_bytes=3_300_000,
            memory_bytes=10**9,
            flops=10**13,
        )
        for layer in range(shape.layers)
        for expert in shape.experts
        if shape.method == "fda"
    ]
    merge = [
        Unit(
            id=f"merge-{layer}",
            kind="merge",
            shard=layer,
            read_bytes=28_000_000,
            write_bytes=7_100_000,
            memory_bytes=10**9,
            flops=10**12,
        )
        for layer in range(shape.layers)
    ]
    publish = Unit(
        id="publish",
        kind="publish",
        read_bytes=10**8,
        write_bytes=10**5,
        memory_bytes=10**8,
        flops=0,
    )
    return (*construct, *merge, publish)


def _constructed(
    shape: MergeShape, chance: random.Random, layer: int, expert: str
) -> ConstructMetrics:
    gone = (layer, expert) in shape.missing
    begin = 0.42 + 0.1 * math.sin(layer / 3) + chance.uniform(-0.03, 0.03)
    best = min(0.97, begin + 0.33 + chance.uniform(-0.05, 0.05) - 0.012 * layer * 12 / shape.layers)
    steps = [round(k * shape.steps / max(1, shape.points - 1)) for k in range(shape.points)]
    rate = chance.uniform(4, 9) / shape.steps
    decay = chance.uniform(0.7, 0.95)
    values = [
        best - (best - begin) * math.exp(-rate * step) + chance.gauss(0, 0.002) for step in steps
    ]
    return ConstructMetrics(
        layer=layer,
        expert=expert,
        anchors=64,
        tokens=17,
        init="weight",
        steps_run=shape.steps,
        best_step=shape.steps - chance.randrange(1, 9),
        alignment_start=None if gone else values[0],
        alignment_best=None if gone else max(values),
        alignment=Curve(steps=(), values=()) if gone else Curve(steps=steps, values=values),
        loss=Curve(steps=steps, values=[8 * (1 - value) for value in values]),
        tensor_cosines={} if gone else {
            part: min(0.99, best + 0.12 * math.cos(number * 1.7) + chance.uniform(-0.04, 0.04))
            for number, part in enumerate(shape.parts)
        },
        zero_tensors=(),
        spectrum_start=[1 / (1 + 0.012 * k) for k in range(384)],
        spectrum_end=[(1 + k) ** -decay for k in range(384)],
    )  # fmt: skip


def _adapted(shape: MergeShape, chance: random.Random, layer: int) -> AdaptMetrics:
    floor = chance.uniform(0.12, 0.45)
    steps = [k * 2 for k in range(shape.points)]
    scale = 10 ** chance.uniform(2, 4)
    rate = chance.uniform(4, 10) / (2 * shape.points)
    noise = [chance.gauss(1, 0.03) for _ in steps]
    loss = [
        scale * (floor + (1 - floor) * math.exp(-rate * k)) * n
        for k, n in zip(steps, noise, strict=True)
    ]
    drift = {}
    for number, expert in enumerate(shape.experts):
        start = (
            0.66 + 0.05 * number % 0.2 + 0.15 * math.sin(layer / 2) + chance.uniform(-0.04, 0.04)
        )
        result = start * chance.uniform(0.55, 0.8) + (0.28 if layer == 1 and number == 1 else 0)
        gone = (layer, expert) in shape.missing
        drift[expert] = Drift(start=None if gone else start, result=None if gone else result)
    return AdaptMetrics(
        layer=layer,
        epochs=100,
        variables="coefficients",
        loss=Curve(steps=steps, values=loss),
        drift=drift,
        seconds=chance.uniform(20, 28),
    )


def _vectors(shape: MergeShape, chance: random.Random, layer: int | None) -> TaskVectorMetrics:
    depth = (layer or 0) / shape.layers
    count = len(shape.experts)
    cosines: list[list[float | None]] = [[1.0] * count for _ in range(count)]
    for row in range(count):
        for column in range(row):
            value = 0.16 * depth + 0.08 * math.sin(row * 3 + column) + chance.uniform(-0.03, 0.03)
            cosines[row][column] = cosines[column][row] = value
    return TaskVectorMetrics(
        layer=layer,
        base_norm=60 + 30 * depth,
        norms={
            expert: (0.9 + 0.35 * number % 2.1) * (1 + depth) * chance.uniform(0.85, 1.15)
            for number, expert in enumerate(shape.experts)
        },
        cosines=cosines,
        sign_conflict_ratio=0.0 if count == 1 else 0.42 + 0.1 * depth + chance.uniform(-0.02, 0.02),
        rounded_away_ratio=chance.uniform(0, 0.004),
    )


def _summary(unit: Unit, chance: random.Random) -> UnitSummary:
    seconds = {"construct": 24.0, "merge": 31.0, "publish": 1.4}[unit.kind]
    cached = unit.kind == "construct" and chance.random() < 0.1
    return UnitSummary(
        id=unit.id,
        kind=unit.kind,
        layer=unit.layer,
        expert=unit.expert,
        source="cache" if cached else "run",
        device="cpu",
        cost=UnitCost(
            seconds=0.2 if cached else seconds * chance.uniform(0.9, 1.2),
            peak_memory_bytes=int(chance.uniform(0.9, 1.1) * 10**9),
            flops=unit.flops,
            read_bytes=unit.read_bytes,
            write_bytes=unit.write_bytes,
        ),
    )


def _sum(units: tuple[UnitSummary, ...]) -> UnitCost:
    costs = [unit.cost for unit in units]
    return UnitCost(
        seconds=sum(cost.seconds for cost in costs),
        peak_memory_bytes=max((cost.peak_memory_bytes for cost in costs), default=0),
        flops=sum(cost.flops for cost in costs),
        read_bytes=sum(cost.read_bytes for cost in costs),
        write_bytes=sum(cost.write_bytes for cost in costs),
    )


def _checkpoint(uri: str) -> PinnedCheckpoint:
    return PinnedCheckpoint(
        uri=uri,
        family="dinov2",
        config={"architectures": ["Dinov2Model"], "hidden_size": 384},
        prefix="",
        files={"model.safetensors": PinnedFile(size_bytes=88_000_000, etag="x")},
        tensors={},
        sidecars={},
    )


def _input(role: str, uri: str) -> InputDigest:
    return InputDigest(
        role=role, uri=f"{uri}/model.safetensors", size_bytes=88_000_000, sha256="cd" * 32
    )
