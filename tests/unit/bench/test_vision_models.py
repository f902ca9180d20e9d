"""The base's names and the probe of the vision benchmark."""

from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from tests.bench.vision.backbone import weight_name
from tests.bench.vision.heads import fit_probe
from tests.bench.vision.model_folder import (
    appearing,
    load_model,
    names_of,
    tensors_of,
)
from tests.support.small_dinov2 import write_small


def test_a_folder_with_names_of_disk_is_what_the_library_reads_too(tmp_path: Path) -> None:
    from transformers import Dinov2Model

    write_small(tmp_path / "model")
    pixels = torch.randn(2, 3, 28, 28)
    ours = load_model(tmp_path / "model")(pixels).last_hidden_state
    theirs = Dinov2Model.from_pretrained(tmp_path / "model", attn_implementation="eager")
    torch.testing.assert_close(ours, theirs.eval()(pixels).last_hidden_state)


def test_a_renamed_tensor_that_changes_on_disk_changes_the_model(tmp_path: Path) -> None:
    write_small(tmp_path / "one")
    write_small(tmp_path / "two", query_scale=3.0)
    pixels = torch.randn(1, 3, 28, 28)
    one, two = (load_model(tmp_path / n)(pixels).last_hidden_state for n in ("one", "two"))
    assert (one - two).abs().max() > 1e-4


def test_parameters_go_back_to_disk_under_the_names_they_came_from(tmp_path: Path) -> None:
    write_small(tmp_path / "model")
    names = names_of(tmp_path / "model")
    module = load_model(tmp_path / "model")
    found = tensors_of(module, names)
    assert "encoder.layer.1.attention.attention.query.weight" in found
    assert len(found) == sum(1 for _ in module.parameters())


def test_the_names_of_matrix_products_give_the_names_of_weights() -> None:
    node = "/backbone/encoder/layer.3/attention/attention/key/MatMul"
    assert weight_name(node) == "encoder.layer.3.attention.attention.key.weight"
    with pytest.raises(ValueError, match="no matrix product"):
        weight_name("/decoder/final_conv/MatMul")


def fail_half_way(folder: Path) -> None:
    with appearing(folder) as aside:
        (aside / "part").write_text("half")
        raise RuntimeError


def test_a_folder_that_fails_half_way_never_appears(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        fail_half_way(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_the_probe_is_where_the_gradient_vanishes() -> None:
    torch.manual_seed(0)
    found, labels = torch.randn(60, 5), torch.randint(0, 3, (60,))
    weight, bias = fit_probe(found, labels, classes=3, ridge=1e-2)
    weight.requires_grad_()
    bias.requires_grad_()
    loss = cross_entropy(found @ weight.T + bias, labels) + 5e-3 * weight.square().sum()
    loss.backward()
    assert weight.grad is not None
    assert bias.grad is not None
    assert max(float(weight.grad.abs().max()), float(bias.grad.abs().max())) < 1e-4
