"""Which cache entry a construction leads to, guessed from pinned files without reading them.

The cache is addressed by content, and content is only known once tensors are read. An
alias is a digest of the pins (address, length, tag) of the files a layer lies in; it lets a
plan say what is cached from headers alone. A wrong guess costs nothing: the unit looks the
content up again.
"""

import hashlib
import json

from fda_core.anchors.config import SIGMAS, TRIAL_STEPS, ConstructConfig
from fda_core.checkpoints.layers import NOT_THE_LAYERS, families
from fda_core.contract.plan import Plan
from fda_core.contract.uris import join
from fda_core.engine import layout
from fda_core.methods.fda import Fda
from fda_core.storage.base import Storage


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
    return {
        "version": 2,
        "scope": method.parameters.scope,
        "model": _layer_settings(plan),
        "seed": plan.recipe.seed,
        "compute": plan.recipe.dtype.compute,
        "construct": _construct_settings(method.parameters.construction),
    }


def _construct_settings(config: ConstructConfig) -> dict[str, object]:
    """Return the settings that count: what is off is left out, as before there was such a thing."""
    found = config.model_dump(mode="json")
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


def is_cached(plan: Plan, alias_: str, storage: Storage) -> bool:
    """Say whether an earlier job left these anchors in the workspace's cache."""
    note = layout.anchor_alias(plan.workspace, alias_)
    if not storage.exists(note):
        return False
    try:
        key = str(json.loads(storage.read(note))["key"])
    except (ValueError, KeyError, TypeError):
        return False
    return storage.exists(join(layout.anchors(plan.workspace, key), "metrics.json"))
