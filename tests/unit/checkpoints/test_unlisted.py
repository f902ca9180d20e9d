"""What names alone tell of a model."""

from collections.abc import Mapping
from typing import Any

import pytest

from fda_core.checkpoints.index import RawCheckpoint
from fda_core.checkpoints.layers import Family, families
from fda_core.checkpoints.unlisted import family_of_checkpoint, is_unlisted
from fda_core.contract.plan import PinnedFile, TensorEntry
from fda_core.errors import UnknownArchitecture


def raw(shapes: Mapping[str, tuple[int, ...]], **config: Any) -> RawCheckpoint:
    pin = PinnedFile(size_bytes=1, etag="x")
    tensors = {
        name: TensorEntry(file="f", dtype="F32", shape=shape, start=0, end=0)
        for name, shape in shapes.items()
    }
    return RawCheckpoint(
        uri="/m",
        config={"model_type": "odd-v2", **config},
        files={"f": pin},
        tensors=tensors,
        config_file=pin,
        sidecars={},
    )


def family(*names: str, **config: Any) -> Family:
    return family_of_checkpoint(raw(dict.fromkeys(names, (4, 4)), **config))


def test_a_listed_family_is_the_tables() -> None:
    found = family("encoder.layer.0.x", model_type="bert")
    assert found is families()["bert"]
    assert not is_unlisted(found)
    assert is_unlisted(family("x"))


@pytest.mark.parametrize("kind", [None, "", 3, ["bert"], {}, "a<b>", "x" * 65, "-x", "a b"])
def test_a_model_type_that_cannot_be_one_is_refused(kind: Any) -> None:
    with pytest.raises(UnknownArchitecture, match="model_type"):
        family("x", model_type=kind)


@pytest.mark.parametrize("prefix", ["odd_v2.", "odd.", "model.", "transformer.", "backbone."])
def test_what_is_not_behind_the_prefix_is_a_head_but_for_a_language_models_output(
    prefix: str,
) -> None:
    found = family(f"{prefix}layers.0.q.weight", f"{prefix}norm.weight", "lm_head.weight", "top.x")
    assert found.prefix_of([f"{prefix}norm.weight"]) == prefix
    assert found.prefix_of(["norm.weight"]) == ""
    assert [
        name
        for name in ("layers.0.q.weight", "norm.weight", "lm_head.weight", "top.x")
        if found.is_head(name)
    ] == ["top.x"]


def test_halves_of_a_model_and_small_parts_are_no_prefix() -> None:
    shapes = {f"{side}.layer.0.q.weight": (4, 4) for side in ("encoder", "decoder")}
    halves = family_of_checkpoint(raw(shapes, model_type="encoder-decoder"))
    assert [tower.name for tower in halves.towers] == ["encoder.layer", "decoder.layer"]
    names = {"model.x.weight": (2, 2), "tower.layers.0.q.weight": (4, 4)}
    small = family_of_checkpoint(raw(names))
    assert not any(small.is_head(name) for name in names)


def test_one_matrix_with_a_row_per_token_is_an_output_and_no_head() -> None:
    shapes = {"odd.h.0.q.weight": (8, 8), "head.weight": (7, 4), "other.weight": (3, 4)}
    found = family_of_checkpoint(raw(shapes, vocab_size=7))
    assert not found.is_head("head.weight")
    assert found.is_head("other.weight")
    assert found.vocabulary == {"head.weight"}


def test_without_a_prefix_heads_are_what_is_called_so() -> None:
    found = family("encoder.layer.0.q.weight", "embeddings.x", "classifier.weight", "score.weight")
    assert found.is_head("classifier.weight")
    assert found.is_head("score.weight")
    assert not found.is_head("embeddings.x")


def test_stacks_are_numbered_one_after_the_other_encoders_first() -> None:
    names = [
        f"{side}.block.{k}.layer.0.q.weight" for side in ("decoder", "encoder") for k in range(3)
    ]
    found = family(*names)
    assert found.first_layers({}) == {"encoder.block": 0, "decoder.block": 3}
    place = found.place("decoder.block.2.layer.0.q.weight")
    assert place is not None
    assert (place[0].name, place[1], place[2]) == ("decoder.block", 2, "layer.0.q.weight")


def test_numbered_modules_without_matrices_and_far_numbers_are_no_layers() -> None:
    shapes = {
        "conv.0.weight": (4, 4, 3),
        "far.99999.weight": (4, 4),
        "h.0.w": (4, 4),
        "1.w": (4, 4),
    }
    found = family_of_checkpoint(raw(shapes))
    assert [tower.name for tower in found.towers] == ["h"]
    assert found.place("h.0.w") is not None
    assert found.place("far.99999.weight") is None


def test_depth_and_width_come_from_tensors_whatever_the_config_says() -> None:
    shapes = {"h.0.up.weight": (8, 4), "h.0.q.weight": (4, 4), "h.1.down.weight": (4, 8)}
    found = family_of_checkpoint(raw(shapes, num_hidden_layers="many", vocab_size=[1]))
    assert found.towers[0].found == (2, 4)


def test_a_bias_as_long_as_rows_tells_of_turned_matrices() -> None:
    shapes = {
        "h.0.fc.weight": (4, 8),
        "h.0.fc.bias": (8,),
        "h.0.square.weight": (4, 4),
        "h.0.square.bias": (4,),
        "linear.0.fc.weight": (8, 4),
        "linear.0.fc.bias": (8,),
        "linear.0.square.weight": (4, 4),
        "linear.0.square.bias": (4,),
    }
    turned = {tower.name: tower.transposed for tower in family_of_checkpoint(raw(shapes)).towers}
    assert turned == {"h": {"fc", "square"}, "linear": frozenset()}


def test_an_expert_of_the_same_type_has_the_bases_family() -> None:
    base = family("odd.layers.0.q.weight", "odd.norm.weight")
    expert = raw({"layers.0.q.weight": (4, 4), "extra.weight": (4, 4)})
    assert family_of_checkpoint(expert, like=base) is base
    assert family_of_checkpoint(raw({"x": (1,)}, model_type="other"), like=base) is not base


@pytest.mark.parametrize(
    ("config", "output"),
    [
        ({}, True),
        ({"tie_word_embeddings": False}, False),
        ({"tie_word_embeddings": True, "scale_decoder_outputs": True}, True),
        ({"tie_word_embeddings": True, "scale_decoder_outputs": False}, False),
        ({"tie_word_embeddings": True, "model_type": "mt5"}, False),
    ],
)
def test_copies_of_shared_embeddings_are_known(config: dict[str, Any], output: bool) -> None:
    """Flan-T5's output matrix is its own; transformers 5 still writes that it is tied."""
    halves = ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"]
    names = ["model.shared.weight", "lm_head.weight", *(f"model.{half}" for half in halves)]
    found = family(*names, vocab_size=4, **config)
    copies = [*halves, "lm_head.weight"] if output else halves
    assert found.tied_pairs(config) == tuple((copy, "shared.weight") for copy in copies)


def test_an_output_matrix_is_tied_where_the_config_says_so() -> None:
    """What the library takes an absent key to be differs from type to type."""
    words = "decoder.embed_tokens.weight"
    found = family(f"model.{words}", "lm_head.weight", vocab_size=4)
    assert found.tied_pairs({"tie_word_embeddings": True}) == (("lm_head.weight", words),)
    assert found.tied_pairs({"tie_word_embeddings": False}) == ()
    assert found.tied_pairs({}) == ()


def test_of_two_matrices_of_words_none_is_taken_for_the_source() -> None:
    names = ("model.encoder.words.weight", "model.decoder.words.weight", "lm_head.weight")
    assert family(*names, vocab_size=4).tied_pairs({"tie_word_embeddings": True}) == ()
