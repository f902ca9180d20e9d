"""Spectra and subspaces of anchors: closed forms, and the engine's own anchors on a small model."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fda_core.anchors.config import ConstructConfig
from tests.bench.vision import subspaces
from tests.bench.vision.layers import layers_of
from tests.bench.vision.model_folder import read_config
from tests.bench.vision.spectra import (
    Singular,
    effective_rank,
    head_energy,
    head_size,
    relative,
    similarity,
    singular,
)
from tests.bench.vision.subspace_tables import findings, markdown
from tests.bench.vision.subspaces import evenly, watch
from tests.support.small_dinov2 import SMALL, write_small


def diagonal(*values: float) -> Singular:
    return singular(torch.diag(torch.tensor(values)))


def test_equal_directions_count_one_each_and_a_single_one_counts_alone() -> None:
    assert effective_rank(diagonal(2.0, 2.0, 2.0, 2.0, 2.0)) == pytest.approx(5.0)
    assert effective_rank(diagonal(3.0, 0.0, 0.0)) == pytest.approx(1.0)


def test_the_head_is_a_fifth_and_at_least_one() -> None:
    assert [head_size(count) for count in (1, 4, 10, 160)] == [1, 1, 2, 32]
    assert head_energy(diagonal(3.0, 1.0, 1.0, 1.0, 2.0)) == pytest.approx(9 / 16)


def test_singular_values_are_over_the_largest() -> None:
    assert relative(diagonal(1.0, 4.0, 2.0)) == [1.0, 0.5, 0.25]


def test_anchors_are_read_as_rows() -> None:
    anchors = torch.randn(3, 2, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(singular(anchors).values, singular(anchors.reshape(6, 8)).values)


def test_the_similarity_is_one_with_itself_and_zero_with_what_is_at_right_angles() -> None:
    a, b = diagonal(5.0, 4.0, 0.0, 0.0), diagonal(0.0, 0.0, 5.0, 4.0)
    assert similarity(a, a, size=2) == pytest.approx(1.0)
    assert similarity(a, b, size=2) == pytest.approx(0.0, abs=1e-12)
    assert similarity(a, diagonal(5.0, 0.0, 4.0, 0.0), size=2) == pytest.approx(0.5)


def test_random_subspaces_are_as_near_as_chance() -> None:
    numbers = torch.Generator().manual_seed(0)
    drawn = [
        similarity(*(singular(torch.randn(20, 40, generator=numbers)) for _ in range(2)), size=8)
        for _ in range(40)
    ]
    assert sum(drawn) / len(drawn) == pytest.approx(8 / 40, abs=0.02)


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(subspaces, "STEPS", (0, 3, 8))
    write_small(tmp_path / "base")
    write_small(tmp_path / "one", noise=0.02)
    base, expert = (layers_of(tmp_path / name)[1] for name in ("base", "one"))
    real = singular(torch.randn(100, SMALL["hidden_size"], generator=torch.Generator()))
    config = ConstructConfig(anchors=4, tokens=5, init="gaussian", steps=8)
    return watch(base, expert, read_config(tmp_path / "base"), 1, config=config, real=real)


def test_anchors_are_described_at_every_number_of_steps(watched: dict[str, Any]) -> None:
    assert [stage["steps"] for stage in watched["stages"]] == [0, 3, 8]
    assert watched["stages"][0]["alignment"] is None
    assert watched["stages"][1]["alignment"] < watched["stages"][2]["alignment"]
    assert watched["size"] == 4
    assert watched["chance"] == pytest.approx(4 / SMALL["hidden_size"])
    assert all(stage["spectrum"][0] == 1.0 for stage in watched["stages"])


def cell(task: str, *, near: tuple[float, float], rank: tuple[float, float]) -> dict[str, Any]:
    stages = [
        {
            "steps": steps,
            "alignment": None if steps == 0 else 0.5,
            "effective_rank": rank[number],
            "head_energy": 0.5,
            "similarity": near[number],
            "spectrum": [1.0, 0.5],
        }
        for number, steps in enumerate((0, 240))
    ]
    about = {"init": "gaussian", "optimiser": "adamw", "size": 2, "chance": 0.1}
    return {"task": task, "layer": 1, "stages": stages, **about}


def test_what_rises_and_falls_everywhere_agrees_and_what_differs_is_noise() -> None:
    cells = [
        cell("mnist", near=(0.1, 0.4), rank=(9.0, 4.0)),
        cell("kanji", near=(0.1, 0.5), rank=(4.0, 9.0)),
    ]
    said = {each["claim"]: each for each in findings(cells)}
    verdicts = [each["verdict"] for each in said.values()]
    assert verdicts == ["within noise", "within noise", "agrees"]
    nearer = said["the strongest directions come nearer to those of real features"]
    assert nearer["difference"]["value"] == pytest.approx(0.35)


def test_the_table_has_a_row_for_each_start_and_number_of_steps() -> None:
    cells = [cell("mnist", near=(0.1, 0.4), rank=(9.0, 4.0))]
    real = {"task": "mnist", "layer": 1, "effective_rank": 3.0, "head_energy": 0.97}
    found = {
        "made": "2026-11-22T00:00:00+00:00",
        "images": 256,
        "layers": [1],
        "features": [real],
        "anchors": cells,
        "findings": findings(cells),
    }
    text = markdown(found)
    assert "| gaussian, adamw | 240 | 0.500 | 4.0 | 50.0 % | 0.400 |" in text
    assert "used for measuring only" in text
    assert "by chance it is 0.100" in text


@pytest.mark.parametrize("count", [3, 256, 500, 511, 2400])
def test_real_features_are_of_pictures_from_all_of_the_list(count: int) -> None:
    """A list in order of classes, cut at its end, would leave the last classes out."""
    places = evenly(count, 256)
    gaps = np.diff(places)
    assert len(places) == min(count, 256)
    assert places[0] == 0
    assert gaps.max() - gaps.min() <= 1
    assert count - places[-1] <= gaps.max()
