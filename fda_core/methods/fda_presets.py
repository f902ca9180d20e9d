"""Named settings of FDA: the paper's, and ours that cost a tenth of them or less.

A preset fills in what a recipe leaves out; what the recipe says counts. Where the quick settings
come from, and what they were measured on, is in `DECISIONS.md` 48, 53, 57 and 58.
"""

from collections.abc import Mapping
from typing import Any, Literal

Preset = Literal["published", "quick"]

QUICK: Mapping[str, Mapping[str, Any]] = {
    "construct": {
        "init": "spectral",
        "optimiser": "muon",
        "metric": "update",
        "cosine": "layer",
        "steps": 40,
    },
    "adapt": {"schedule": "cosine", "epochs": 20, "batch": 32},
}
PRESETS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {"published": {}, "quick": QUICK}

ELEMENT_RATES: Mapping[str, float] = {"text": 5e-5, "image": 1e-5}
"""Published rates of stage II from the base, by what the model reads."""
ELEMENT_FACTOR = 10.0
"""The quick preset's rate in those: it takes fewer steps, and lets the rate fall."""


def filled(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe's parameters with what their preset says where they say nothing.

    What is no preset's name, or no mapping where one belongs, is left for validation to refuse.
    """
    name = given.get("preset")
    preset = PRESETS.get(name, {}) if isinstance(name, str) else {}
    found = dict(given)
    for stage, settings in preset.items():
        said = found.get(stage, {})
        if isinstance(said, Mapping):
            found[stage] = {**settings, **said}
    return found


def adapt_rate(preset: Preset, *, start: str, reads: str) -> float:
    """Return the rate of stage II that is left unset: of coefficients, or of a base's elements."""
    is_quick = preset == "quick"
    if start == "base":
        published = ELEMENT_RATES["text" if reads == "text" else "image"]
        return ELEMENT_FACTOR * published if is_quick else published
    return 1e-3 if is_quick and start != "task_arithmetic" else 1e-2
