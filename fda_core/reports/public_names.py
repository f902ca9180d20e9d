"""Names for what lies at an address, fit to be published: no path of this machine.

A report and a model card travel with the weights. What a reader elsewhere can use is the
name of the base and of the experts, never where they lay here.
"""

import re

from fda_core.contract import uris
from fda_core.contract.plan import Plan

_HUB_CACHE = re.compile(r"(?:^|/)models--([^/]+)--([^/]+)(?:/|$)")
_NOT_HUB = re.compile(r"[^A-Za-z0-9._-]+")
_LOCAL_PATH = re.compile(
    r"""(?<![\w./~])(?:file://)?/(?!/)(?:[^\s/'"`,;()<>]+/)+[^\s/'"`,;()<>]*"""
)


def model_name(uri: str) -> str:
    """Return the last part of an address; for the hub's cache folders, owner/name."""
    cached = _HUB_CACHE.search(uri)
    if cached:
        return f"{cached.group(1)}/{cached.group(2)}"
    return uris.basename(uri) or "model"


def hub_id(uri: str) -> str:
    """Return the name in the form model hubs accept: letters, digits, '.', '_', '-'."""
    parts = model_name(uri).split("/")
    return "/".join(_hub_part(part) for part in parts)


def public_text(plan: Plan, text: str) -> str:
    """Return a text with this machine's paths shortened to names."""
    for address in sorted(_addresses(plan), key=len, reverse=True):
        text = text.replace(address, model_name(address))
    return _LOCAL_PATH.sub(lambda found: model_name(found.group(0)), text)


def _hub_part(part: str) -> str:
    text = re.sub(r"([.-])[.-]+", r"\1", _NOT_HUB.sub("-", part)).strip(".-")
    return text[:96].strip(".-") or "model"


def _addresses(plan: Plan) -> set[str]:
    recipe = plan.recipe
    given = {recipe.base, recipe.output or "", *(expert.model for expert in recipe.experts)}
    pinned = {plan.base.uri, plan.output, plan.workspace}
    pinned |= {expert.checkpoint.uri for expert in plan.experts}
    return {
        address
        for address in given | pinned
        if uris.scheme(address) == "file" and len(address) > 1 and "/" in address
    }
