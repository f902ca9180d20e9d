"""Cutting tensors into files: everything once, layers whole, sizes kept."""

from hypothesis import given
from hypothesis import strategies as st

from fda_core.contract.plan import PlannedTensor, TensorRule
from fda_core.contract.recipe import parse_recipe
from fda_core.engine.tensors import PART_BYTES, plan_shards, tensor_bytes

MB = 2**20


def _recipe(size: int):
    return parse_recipe(
        {
            "base": "b",
            "experts": [{"name": "x", "model": "m"}],
            "method": "linear",
            "shard_size": size,
        }
    )


def _tensors(sizes: dict[int | None, list[int]]) -> list[PlannedTensor]:
    return [
        PlannedTensor(
            name=f"{layer}.{k}",
            layer=layer,
            part=str(k),
            rule=TensorRule.MERGE,
            reason="layer",
            experts=("x",),
            dtype="F32",
            shape=(size // 4,),
        )
        for layer, group in sizes.items()
        for k, size in enumerate(group)
    ]


SIZES = st.lists(st.integers(1, 40).map(lambda k: k * MB), min_size=1, max_size=4)


@given(
    outside=SIZES,
    layers=st.lists(SIZES, max_size=5),
    limit=st.integers(1, 200).map(lambda k: k * MB),
    apart=st.booleans(),
)
def test_every_tensor_is_in_one_shard_and_layers_are_whole(outside, layers, limit, apart):
    tensors = _tensors({None: outside, **dict(enumerate(layers))})
    shards, single = plan_shards(tensors, _recipe(limit), one_layer_each=apart)
    assert [name for shard in shards for name in shard.tensors] == [t.name for t in tensors]
    places = [layer for shard in shards for layer in shard.layers]
    assert sorted(places) == list(range(len(layers)))
    assert single == (sum(tensor_bytes(t) for t in tensors) <= limit)
    assert sum(shard.size_bytes for shard in shards) == sum(tensor_bytes(t) for t in tensors)
    bound = PART_BYTES if single else limit
    for shard in shards:
        whole = len(shard.layers) == 1 and not any(n.startswith("None") for n in shard.tensors)
        assert shard.size_bytes <= bound or whole or len(shard.tensors) == 1
        if apart:
            assert len(shard.layers) <= 1


def test_final_shards_are_numbered_out_of_their_count():
    shards, single = plan_shards(_tensors({None: [MB] * 3}), _recipe(MB), one_layer_each=False)
    assert not single
    assert [shard.file for shard in shards] == [
        f"model-0000{k}-of-00003.safetensors" for k in (1, 2, 3)
    ]
