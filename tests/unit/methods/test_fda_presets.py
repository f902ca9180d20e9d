"""FDA's presets: what they fill in, what counts before them, and that they are written out."""

from typing import Any

import pytest

from fda_core.anchors.config import AdaptConfig, ConstructConfig
from fda_core.contract.recipe import MethodSpec
from fda_core.errors import FdaError
from fda_core.methods.fda import Fda, FdaParameters
from fda_core.methods.fda_presets import QUICK, adapt_rate
from fda_core.methods.registry import resolve


def _parameters(**given: Any) -> FdaParameters:
    method = resolve(MethodSpec(name="fda", parameters=given))
    assert isinstance(method, Fda)
    return method.parameters


def test_published_is_the_default_and_fills_in_nothing() -> None:
    assert _parameters() == _parameters(preset="published")
    assert _parameters().construction == ConstructConfig()
    assert _parameters().adaptation == AdaptConfig()


def test_quick_fills_in_what_is_left_out() -> None:
    quick = _parameters(preset="quick")
    assert quick.construction == ConstructConfig(**QUICK["construct"])
    assert quick.adaptation == AdaptConfig(**QUICK["adapt"])


def test_what_the_recipe_says_counts() -> None:
    quick = _parameters(preset="quick", construct={"steps": 100, "anchors": 7}, adapt={"batch": 5})
    expected = {**QUICK["construct"], "steps": 100, "anchors": 7}
    assert quick.construction == ConstructConfig(**expected)
    assert quick.adaptation.batch == 5
    assert quick.adaptation.schedule == "cosine"


def test_a_preset_written_out_is_itself() -> None:
    quick = _parameters(preset="quick", construct={"steps": 100})
    assert FdaParameters.model_validate(quick.model_dump(by_alias=True)) == quick


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"preset": "fast"}, ("preset", "published", "quick")),
        ({"preset": ["quick"]}, ("preset",)),
        ({"preset": "quick", "construct": 40}, ("construct",)),
        ({"preset": "quick", "construct": {"step": 40}}, ("method.construct.step",)),
        ({"preset": "quick", "construct": {"optimiser": "adamw"}}, ("metric: update", "adamw")),
        ({"preset": "quick", "scope": "mlp"}, ("preset: quick", "scope: layer")),
    ],
)
def test_what_does_not_fit_is_refused(given: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(FdaError) as caught:
        _parameters(**given)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("preset", "start", "reads", "rate"),
    [
        ("published", "base", "text", 5e-5),
        ("published", "base", "image", 1e-5),
        ("published", "tsvm", "text", 1e-2),
        ("quick", "base", "text", 5e-4),
        ("quick", "base", "image", 1e-4),
        ("quick", "task_arithmetic", "image", 1e-2),
        ("quick", "iwudi", "image", 1e-3),
    ],
)
def test_rates_of_adaptation(preset: Any, start: str, reads: str, rate: float) -> None:
    assert adapt_rate(preset, start=start, reads=reads) == pytest.approx(rate)
