"""The base's names and the probe of the vision benchmark."""

from pathlib import Path

import pytest
import torch

from tests.bench.vision.appearing import appearing, appearing_file
from tests.bench.vision.backbone import weight_name
from tests.bench.vision.heads import class_means
from tests.bench.vision.layers import layers_of
from tests.bench.vision.model_folder import load_model, names_of, tensors_of
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


def test_a_folders_layers_have_all_tensors_that_are_in_layers(tmp_path: Path) -> None:
    write_small(tmp_path / "model")
    in_layers = [name for name in names_of(tmp_path / "model") if ".layer." in name]
    layers = layers_of(tmp_path / "model")
    assert set(layers) == {0, 1}
    assert sum(len(tensors) for tensors in layers.values()) == len(in_layers)


def test_the_names_of_matrix_products_give_the_names_of_weights() -> None:
    node = "/backbone/encoder/layer.3/attention/attention/key/MatMul"
    assert weight_name(node) == "encoder.layer.3.attention.attention.key.weight"
    with pytest.raises(ValueError, match="no matrix product"):
        weight_name("/decoder/final_conv/MatMul")


def fail_half_way_through_a_file(target: Path) -> None:
    with appearing_file(target) as file:
        file.write(b"half")
        raise RuntimeError


def test_a_file_that_fails_half_way_never_appears(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        fail_half_way_through_a_file(tmp_path / "numbers.npy")
    assert list(tmp_path.iterdir()) == []


def fail_half_way(folder: Path) -> None:
    with appearing(folder) as aside:
        (aside / "part").write_text("half")
        raise RuntimeError


def test_a_folder_that_fails_half_way_never_appears(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        fail_half_way(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_head_gives_the_cosine_to_centred_class_means() -> None:
    torch.manual_seed(0)
    found, labels = torch.randn(60, 5) + 3, torch.arange(60) % 3
    weight, bias = class_means(found, labels, classes=3)
    middle = found.mean(dim=0)
    for number in range(3):
        mean = found[labels == number].mean(dim=0) - middle
        expected = (found - middle) @ mean / mean.norm()
        logits = found @ weight[number] + bias[number]
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
