"""The comparison with the published settings: what is compared, and what is said of it."""

import pytest

from fda_core.anchors.config import AdaptConfig, ConstructConfig
from fda_core.methods.fda import FdaParameters
from fda_core.methods.fda_presets import adapt_rate
from tests.bench.vision import presets
from tests.bench.vision.contenders import SIZE
from tests.bench.vision.presets import SETTINGS, TASKS
from tests.unit.bench import vision_rows
from tests.unit.bench.vision_rows import IMAGES

GROUPS = dict.fromkeys(TASKS)


def _document(*right: int):
    rows = [
        vision_rows.row(contender, count, TASKS, alignment=0.5)
        for contender, count in zip(presets.contenders(), right, strict=False)
    ]
    return presets.document(rows, GROUPS, part="test")


def test_the_published_settings_are_the_papers():
    construct = ConstructConfig(**SETTINGS["published"]["construct"])
    adapt = AdaptConfig(**SETTINGS["published"]["adapt"])
    assert (construct.optimiser, construct.settled_learning_rate) == ("adamw", 1e-2)
    assert (construct.init, construct.steps, construct.cosine) == ("weight", 1200, "per_tensor")
    assert (construct.distance, construct.metric) == ("cosine", "plain")
    assert (adapt.learning_rate, adapt.epochs, adapt.schedule) == (1e-5, 100, "constant")


def test_the_quick_settings_are_the_presets():
    filled_in = FdaParameters.model_validate({"preset": "quick", "construct": SIZE})
    settings = SETTINGS["quick"]
    assert ConstructConfig(**settings["construct"]) == filled_in.construction
    rate = adapt_rate("quick", start="base", reads="image")
    expected = filled_in.adaptation.model_copy(update={"learning_rate": rate})
    assert AdaptConfig(**settings["adapt"]) == expected


def test_differences_are_to_the_published_row():
    found = _document(200, 220)
    assert found["rows"][0]["difference"] is None
    assert found["rows"][1]["difference"]["value"] == pytest.approx(20 / IMAGES)
    assert found["rows"][1]["accuracy"]["value"] == pytest.approx(220 / IMAGES)


def test_the_table_has_a_row_for_each():
    lines = presets.markdown(_document(200, 220, 190)).splitlines()
    rows = [line.split("|")[1:4] for line in lines if line.startswith("| ")][1:]
    assert [name.strip() for name, _, _ in rows] == list(SETTINGS)
    assert [row[2].split(" ±")[0].strip() for row in rows] == ["–", "+5.0", "-2.5"]
