"""Which cache entry a construction leads to, guessed from pinned files without reading them.

The cache is addressed by content, and content is only known once tensors are read. An
alias is a digest of the pins (address, length, tag) of the files a layer lies in; it lets a
plan say what is cached from headers alone. A wrong guess costs nothing: the unit looks the
content up again.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from fda_core.anchors.config import SIGMAS, TRIAL_STEPS, ConstructConfig
from fda_core.checkpoints.layers import NOT_THE_LAYERS, families
from fda_core.contract.artifacts import CACHE_METRICS_FILE
from fda_core.contract.plan import Plan
from fda_core.contract.uris import join
from fda_core.engine import layout
from fda_core.errors import NotFound
from fda_core.methods.fda import Fda
from fda_core.storage.base import Storage

THREADS = 8
_KEY = re.compile(r"[0-9a-f]{64}")


def alias(plan: Plan, method: Fda, layer: int, expert: str) -> str:
    """Return the digest of what one construction's inputs are pinned to."""
    who = next(e for e in plan.experts if e.name == expert)
    names = [t.name for t in plan.tensors if t.layer == layer]
    pins = []
    owned = [own for name in names for own in who.own(name)]
    for checkpoint, own in ((plan.base, names), (who.checkpoint, owned)):
        files = sorted({checkpoint.tensors[name].file for name in own})
        pins.append([[join(checkpoint.uri, f), checkpoint.files[f].etag] for f in files])
    updates = who.adapter.updates if who.adapter else {}
    scales = [updates[name].model_dump() for name in names if name in updates]
    facts = [pins, layer, scales, settings(plan, method)]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def settings(plan: Plan, method: Fda) -> dict[str, object]:
    """Return what anchors depend on beside the two layers.

    A unit's own microbatch is not part of it: it is set where memory ran out, and changes the
    order of sums only. The recipe's is.
    """
    model = _layer_settings(plan)
    return {
        # 2 had encoders that are decoders see both ways
        "version": 3 if model.get("is_decoder") is True else 2,
        "scope": method.parameters.scope,
        "model": model,
        "seed": plan.recipe.seed,
        "compute": plan.recipe.dtype.compute,
        "construct": _construct_settings(method.parameters.construction),
    }


def _construct_settings(config: ConstructConfig) -> dict[str, object]:
    """Return the settings that count: what is off is left out, as before there was such a thing."""
    config = config.settled()
    found = config.model_dump(mode="json")
    if (config.optimiser, config.schedule) == ("adamw", "constant"):
        del found["optimiser"], found["schedule"]
    if config.metric == "plain":
        del found["metric"]
    if config.weight_decay is None:
        del found["weight_decay"]
    if config.patience is None:
        del found["patience"], found["min_gain"]
    if config.sigma == "search":
        found["trials"] = [SIGMAS, TRIAL_STEPS]
    return found


def _layer_settings(plan: Plan) -> dict[str, object]:
    """Return what config.json says of the layers: equal weights are not equal functions."""
    settings_ = families()[plan.family].towers[0].settings(plan.base.config)
    left = {*NOT_THE_LAYERS, "_name_or_path", "vocab_size"}
    return {key: value for key, value in settings_.items() if key not in left}


def cached_among(plan: Plan, wanted: Iterable[str], storage: Storage) -> set[str]:
    """Return those aliases whose anchors an earlier job left in the workspace's cache.

    One listing says which notes are there; asking for each would take planning a large model
    over S3 ten times as long as all the rest.
    """
    notes = {layout.anchor_alias(plan.workspace, alias_): alias_ for alias_ in wanted}
    there = [info.uri for info in storage.list(layout.anchor_aliases(plan.workspace))]
    known = [uri for uri in there if uri in notes]
    with ThreadPoolExecutor(THREADS, "fda-aliases") as pool:
        whole = pool.map(lambda note: _leads_to_anchors(plan, note, storage), known)
        return {notes[note] for note, good in zip(known, whole, strict=True) if good}


def _leads_to_anchors(plan: Plan, note: str, storage: Storage) -> bool:
    try:
        key = str(json.loads(storage.read(note))["key"])
    except (NotFound, ValueError, KeyError, TypeError, RecursionError):
        return False
    if not _KEY.fullmatch(key):
        return False
    return storage.exists(join(layout.anchors(plan.workspace, key), CACHE_METRICS_FILE))
