"""Families that no table describes: what their names themselves tell.

Every method but FDA needs to know of a model only which tensors are its task's heads and which
are matrices of layers. Both show in the names the transformers library gives: the model proper
is behind its prefix (`electra.`) or, without one, what is not called like a head; layers are
numbered modules that have matrices. Of ties those of encoder-decoders are known, whose embeddings
are called shared, and an output matrix that the config says is tied; all else stored twice is two
tensors. Imports no torch.
"""

import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any, Final

from fda_core.checkpoints.dtypes import FLOATS
from fda_core.checkpoints.header import shown
from fda_core.checkpoints.index import RawCheckpoint
from fda_core.checkpoints.layers import Family, Tower, families, known_family
from fda_core.contract.plan import TensorEntry
from fda_core.errors import UnknownArchitecture

Entries = Mapping[str, TensorEntry]

_MODEL_TYPE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PREFIXES: Final = ("model", "transformer", "backbone")
_OUTPUTS: Final = ("lm_head", "lm_loss", "embed_out", "proj_out", "final_logits_bias")
"""What language models have outside the prefix and is no task's head."""
_HALVES: Final = ("encoder", "decoder")
"""Halves of a model, which no prefix is called like though a model type begins so."""
_HEADS: Final = frozenset(
    {"classification_head", "classifier", "cls", "pre_classifier", "qa_outputs", "score"}
)
_BUFFERS: Final = (r"(^|\.)rotary_emb\.inv_freq$", r"\.masked_bias$")
_RENAMES: Final = (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias"))
_SHARED: Final = "shared.weight"
_READERS: Final = tuple((f"{half}.embed_tokens.weight", _SHARED) for half in _HALVES)
_OWN_OUTPUTS: Final = ("mt5", "umt5")
"""Encoder-decoders whose output matrix is their own, though the library's configs tie it."""
_NUMBERED: Final = re.compile(r"([^0-9].*?)\.([0-9]{1,5})\.(.+)")


def family_of_checkpoint(raw: RawCheckpoint, *, like: Family | None = None) -> Family:
    """Return a checkpoint's family: from the table, or from the names of its tensors.

    `like` is the base's family, which an expert of the same unlisted model type shares. Raises
    `UnknownArchitecture` where config.json has no model type that could be one.
    """
    if (known := known_family(raw.config)) is not None:
        return known
    kind = raw.config.get("model_type")
    if not isinstance(kind, str) or not _MODEL_TYPE.fullmatch(kind):
        raise UnknownArchitecture(
            f"{raw.uri}: config.json has {f'model_type {shown(kind)}' if kind else 'no model_type'}"
            ", which says what kind of model it is",
            hint="Save it with the transformers library, which writes one, such as bert or llama.",
            uri=raw.uri,
            model_type=shown(kind),
        )
    if like is not None and like.name == kind:
        return like
    return _from_names(kind, raw.config, raw.tensors)


def is_unlisted(family: Family) -> bool:
    """Say whether a family was read off a checkpoint's names."""
    return family.name not in families()


def _from_names(kind: str, config: Mapping[str, Any], tensors: Entries) -> Family:
    prefixes = tuple(f"{name}." for name in (*_cuts(kind), *_PREFIXES))
    prefix = next((prefix for prefix in prefixes if _carries(tensors, prefix)), "")
    sizes = _vocabulary_sizes(config)
    roots = sorted(_roots(tensors, prefix) | set(_lone_outputs(tensors, sizes)))
    body = re.compile(rf"^({'|'.join(map(re.escape, roots))})(\.|$)")
    inside = {
        name: entry
        for given, entry in tensors.items()
        if body.match(name := given.removeprefix(prefix))
    }
    weights = {name: e for name, e in inside.items() if not is_integer_buffer(name, e)}
    integers = [re.escape(name) for name in inside if name not in weights]
    buffers = (*_BUFFERS, *([rf"^({'|'.join(integers)})$"] if integers else []))
    shares = _SHARED in weights
    ties: tuple[tuple[str, str], ...]
    if shares:
        ties = (("lm_head.weight", _SHARED),) if _ties_output(kind, config) else ()
    else:
        ties = tuple(_tied_output(sizes, weights))
    return Family(
        name=kind,
        model_types=(kind,),
        prefixes=prefixes,
        body=body,
        renames=_RENAMES,
        ties=ties,
        tied=shares,
        always=_READERS if shares else (),
        vocabulary=frozenset(_vocabulary(sizes, weights)),
        buffers=tuple(re.compile(pattern) for pattern in buffers),
        towers=tuple(_towers(weights)),
    )


def _ties_output(kind: str, config: Mapping[str, Any]) -> bool:
    """Say whether tie_word_embeddings is to be believed: the library writes true for every T5.

    Of those with an output matrix of their own it says in some that outputs are not scaled.
    """
    return kind not in _OWN_OUTPUTS and config.get("scale_decoder_outputs", True) is not False


def _tied_output(sizes: Container[int], weights: Entries) -> Iterator[tuple[str, str]]:
    """Yield the output matrix and the one matrix of its shape with a row per token."""
    rows = [name for name in _vocabulary(sizes, weights) if len(weights[name].shape) == 2]
    outputs = [name for name in rows if name.split(".")[0] in _OUTPUTS]
    sources = [name for name in rows if name not in outputs]
    if len(outputs) == len(sources) == 1 and weights[outputs[0]].shape == weights[sources[0]].shape:
        yield outputs[0], sources[0]


def _cuts(kind: str) -> Iterator[str]:
    """Yield what the library may call the model: deberta_v2 and deberta for deberta-v2."""
    words = kind.replace("-", "_").split("_")
    for count in range(len(words), 0, -1):
        if (cut := "_".join(words[:count])) not in _HALVES:
            yield cut


def _carries(tensors: Entries, prefix: str) -> bool:
    """Say whether a prefix is that of the model proper: a quarter of the parameters or more.

    A classifier of many classes on a small model may be the larger part.
    """
    inside = sum(entry.numel for name, entry in tensors.items() if name.startswith(prefix))
    return 4 * inside >= sum(entry.numel for entry in tensors.values())


def _roots(names: Iterable[str], prefix: str) -> set[str]:
    """Return the first parts of the names that are the model proper, without the prefix."""
    if prefix:
        found = {n.removeprefix(prefix).split(".")[0] for n in names if n.startswith(prefix)}
        return found | set(_OUTPUTS)
    return {name.split(".")[0] for name in names} - _HEADS | set(_OUTPUTS)


def _lone_outputs(tensors: Entries, sizes: Container[int]) -> Iterator[str]:
    """Yield modules that are one matrix with a row per token: a language model's output."""
    roots = Counter(name.split(".")[0] for name in tensors)
    for name, entry in tensors.items():
        root, _, leaf = name.partition(".")
        if roots[root] == 1 and leaf == "weight" and entry.shape and entry.shape[0] in sizes:
            yield root


def is_integer_buffer(name: str, entry: TensorEntry) -> bool:
    """Say whether a tensor holds positions, masks or counts; packed weights are named so."""
    floats = entry.dtype in FLOATS or entry.dtype.startswith("F8_")
    return not floats and "weight" not in name.rpartition(".")[2]


def _vocabulary_sizes(config: Mapping[str, Any]) -> set[int]:
    nested = [part for part in config.values() if isinstance(part, dict)]
    said = [part.get("vocab_size") for part in (config, *nested)]
    return {size for size in said if isinstance(size, int)}


def _vocabulary(sizes: Container[int], tensors: Entries) -> Iterator[str]:
    """Yield the tensors outside of numbered modules that have one row per token."""
    for name, entry in tensors.items():
        if entry.shape and entry.shape[0] in sizes and not _NUMBERED.fullmatch(name):
            yield name


def _towers(tensors: Entries) -> Iterator[Tower]:
    """Yield every stack of numbered modules that has matrices, encoders before decoders."""
    stacks: dict[str, dict[int, list[tuple[str, TensorEntry]]]] = {}
    for name, entry in tensors.items():
        if found := _NUMBERED.fullmatch(name):
            layers = stacks.setdefault(found[1], {})
            layers.setdefault(int(found[2]), []).append((found[3], entry))
    for stack in sorted(stacks, key=lambda stack: ("decoder" in stack, stack)):
        layers = stacks[stack]
        parts = [part for layer in layers.values() for part in layer]
        widths = Counter(entry.shape[1] for _, entry in parts if len(entry.shape) == 2)
        if widths and max(layers) < 2 * len(layers) + 2:
            yield _tower(stack, max(layers) + 1, widths.most_common(1)[0][0], parts)


def _tower(stack: str, depth: int, width: int, parts: list[tuple[str, TensorEntry]]) -> Tower:
    return Tower(
        name=stack,
        block=None,
        layer=re.compile(rf"^{re.escape(stack)}\.([0-9]+)\."),
        config=None,
        defaults={},
        depth="num_hidden_layers",
        width="hidden_size",
        tokens="text",
        bindings={},
        optional=frozenset(),
        insensitive=frozenset(),
        mlp=None,
        transposed=frozenset(_stored_transposed(parts)),
        entry=frozenset(),
        found=(depth, width),
    )


def _stored_transposed(parts: list[tuple[str, TensorEntry]]) -> Iterator[str]:
    """Yield modules whose matrices are stored (inputs, outputs), as biases as long as rows tell.

    Only of a stack where one tells for certain: a square matrix goes with the others.
    """
    biases = {part.rpartition(".")[0]: e.shape for part, e in parts if part.endswith(".bias")}
    matrices = [
        (part.rpartition(".")[0], entry.shape)
        for part, entry in parts
        if part.endswith(".weight") and len(entry.shape) == 2
    ]
    fitting = [(module, shape) for module, shape in matrices if biases.get(module) == shape[1:]]
    if any(shape[0] != shape[1] for _, shape in fitting):
        yield from {module for module, _ in fitting}
