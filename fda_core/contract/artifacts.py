"""What a finished merge leaves beside the weights: unit records, metrics, the manifest.

Numbers are plain JSON. `None` stands where a quantity has no value (a drift on anchors that
do not exist, a cosine with a zero task vector); NaN is never written.
"""

from typing import Literal

from fda_core.contract.plan import PlainData, UnitKind

METRICS_FORMAT: Literal[1] = 1
MANIFEST_FORMAT: Literal[1] = 1

METRICS_FILE = "merge_metrics.json"
MANIFEST_FILE = "merge_manifest.json"
"""Beside the weights; what has no manifest was not published by us."""
CACHE_METRICS_FILE = "metrics.json"
"""Of one entry of the anchor cache, written last: an entry without it is none."""


class Curve(PlainData):
    """A quantity over the steps of an optimiser: `values[k]` was measured at `steps[k]`."""

    steps: tuple[int, ...]
    values: tuple[float, ...]


class SigmaTrial(PlainData):
    """One σ that a search tried: the steps it had and the best alignment within them."""

    sigma: float
    steps: int
    alignment: float


class ConstructMetrics(PlainData):
    """What constructing the anchors of one (layer, expert) gave."""

    layer: int
    expert: str
    anchors: int
    tokens: int
    """0 where anchors are rows without a token axis."""
    init: str
    optimiser: str = "adamw"
    """Records that do not say are of before there was another."""
    sigma: float | None = None
    """Of the gaussian start; None for other starts, and where nothing was constructed."""
    trials: tuple[SigmaTrial, ...] = ()
    """In the order tried; empty unless σ was searched for."""
    steps_run: int
    """Of the anchors that were kept; steps of other trials are not in it."""
    settled: bool = False
    """Whether a plateau ended it before its steps ran out."""
    best_step: int
    alignment_start: float | None
    alignment_best: float | None
    alignment: Curve
    loss: Curve
    tensor_cosines: dict[str, float]
    """Cosine of induced gradient and task vector per tensor, at the best step."""
    zero_tensors: tuple[str, ...]
    """Tensors with a zero task vector: no direction, not counted."""
    spectrum_start: tuple[float, ...]
    """Singular values of the anchors as (n·t, d), largest first, divided by the largest."""
    spectrum_end: tuple[float, ...]


class Drift(PlainData):
    """‖φ(θ,x) − φ(θi,x)‖ / ‖φ(θi,x) − φ(θ0,x)‖ on an expert's anchors; base = 1."""

    start: float | None
    result: float | None


class AdaptMetrics(PlainData):
    """What fitting one layer to the anchors gave."""

    layer: int
    epochs: int
    variables: Literal["elements", "coefficients"]
    loss: Curve
    drift: dict[str, Drift]
    seconds: float


class TaskVectorMetrics(PlainData):
    """The task vectors of one layer, or of everything outside (layer None), read as one."""

    layer: int | None
    base_norm: float
    norms: dict[str, float]
    cosines: tuple[tuple[float | None, ...], ...]
    """Pairwise, experts in recipe order."""
    sign_conflict_ratio: float
    """Share of the changed elements on which two experts disagree in sign."""
    rounded_away_ratio: float
    """Share of elements the merge changed whose change the output dtype threw away."""


class UnitCost(PlainData):
    """What one unit took."""

    seconds: float
    cpu_seconds: float | None = None
    """Of the worker's process while the unit ran; None in older records."""
    peak_memory_bytes: int
    """Largest resident size of the worker process so far, or of its device."""
    flops: int
    read_bytes: int
    write_bytes: int


class ArtifactFile(PlainData):
    """One file a unit left: address below the workspace, length, digest."""

    path: str
    size_bytes: int
    sha256: str


class UnitRecord(PlainData):
    """The truth about a finished unit; written last, after everything it names."""

    unit: str
    kind: UnitKind
    files: tuple[ArtifactFile, ...]
    cost: UnitCost
    source: Literal["run", "cache"] = "run"
    worker: str
    device: str
    construction: ConstructMetrics | None = None
    adaptation: tuple[AdaptMetrics, ...] = ()
    task_vectors: tuple[TaskVectorMetrics, ...] = ()


class UnitSummary(PlainData):
    """One row of the cost table."""

    id: str
    kind: UnitKind
    layer: int | None
    expert: str | None
    source: Literal["run", "cache"]
    device: str
    cost: UnitCost


class Metrics(PlainData):
    """merge_metrics.json."""

    format: Literal[1] = METRICS_FORMAT
    job_id: str
    method: str
    start: str | None
    """FDA's start; None for every other method."""
    family: str
    layers: int
    experts: tuple[str, ...]
    construction: tuple[ConstructMetrics, ...]
    adaptation: tuple[AdaptMetrics, ...]
    task_vectors: tuple[TaskVectorMetrics, ...]
    units: tuple[UnitSummary, ...]
    totals: UnitCost
    """Sums over units; the peak is the largest of any one."""


class InputDigest(PlainData):
    """One file that was read."""

    role: str
    """`base` or the expert's name."""
    uri: str
    size_bytes: int
    sha256: str


class Manifest(PlainData):
    """merge_manifest.json: what went in, what came out, and with what it was made."""

    format: Literal[1] = MANIFEST_FORMAT
    job_id: str
    created: str
    """UTC, RFC 3339."""
    versions: dict[str, str]
    seed: int
    device: str
    threads: int
    method: str
    parameters: dict[str, object]
    inputs: tuple[InputDigest, ...]
    outputs: dict[str, ArtifactFile]
    """By path below the output folder; everything but the manifest itself."""
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


class Publication(PlainData):
    """What the documents of one output are made from."""

    metrics: Metrics
    manifest: Manifest
    """Without the outputs, which are the documents and the weights."""
