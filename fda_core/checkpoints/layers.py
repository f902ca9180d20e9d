"""Which layer a tensor belongs to, read from its name and the family's table.

Names are compared in canonical form: without the base-model prefix that some checkpoints
carry (`bert.encoder...`) and some lack, and with old spellings replaced.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

from fda_core.errors import UnknownArchitecture

Scope = Literal["layer", "mlp"]
"""What of a layer is a function of its own: the whole residual block, or its MLP alone."""

NOT_THE_LAYERS = ("transformers_version", "architectures", "torch_dtype", "dtype", "auto_map")
"""Keys of config.json that say nothing of what a layer computes."""


@dataclass(frozen=True, kw_only=True)
class Tower:
    """One stack of layers of a family."""

    name: str
    block: str | None
    layer: re.Pattern[str]
    config: str | None
    defaults: Mapping[str, Any]
    depth: str
    width: str
    tokens: Literal["text", "image"]
    bindings: Mapping[str, str | tuple[str, ...]]
    optional: frozenset[str]
    insensitive: frozenset[str]
    mlp: str | None
    transposed: frozenset[str]
    entry: frozenset[str]
    not_first: frozenset[str] = frozenset()
    """Bindings that the first layer lacks."""
    found: tuple[int, int] | None = None
    """Layers and width, where they were read off tensors and not off the config."""
    beside: int = 1
    """Tokens an image has beside its patches: a class token, or more, or none."""
    registers: str | None = None
    """The config's key that says how many there are on top."""

    def settings(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the part of a model's config that describes this tower, defaults filled in."""
        nested = None if self.config is None else config.get(self.config)
        found = nested if isinstance(nested, dict) else config
        return {**self.defaults, **found} if self.defaults else found

    def image_tokens(self, config: Mapping[str, Any]) -> int | None:
        """Return how many tokens a layer sees of an image, or None if the config does not say."""
        settings = self.settings(config)
        image, patch = (_side(settings.get(key)) for key in ("image_size", "patch_size"))
        if not (image and patch):
            return None
        more = settings.get(self.registers) if self.registers else 0
        registers = more if isinstance(more, int) and more > 0 else 0
        return int((image // patch) ** 2 + self.beside + registers)

    def module_of(self, part: str) -> str | None:
        """Return the binding a tensor inside a layer falls under, or None."""
        path, _, _ = part.rpartition(".")
        return path if path in self.bindings else None

    def modules_of(self, part: str) -> tuple[str, ...]:
        """Return the library's modules a tensor inside a layer belongs to; none if unknown."""
        bound = self.bindings.get(part.rpartition(".")[0], ())
        return (bound,) if isinstance(bound, str) else bound

    def holds(self, part: str, scope: Scope) -> bool:
        """Say whether a tensor inside a layer is in the scope."""
        if scope == "layer":
            return True
        modules = self.modules_of(part)
        return bool(modules) and all(name.startswith(f"{self.mlp}.") for name in modules)

    def reads_input(self, part: str) -> bool:
        """Say whether a matrix inside a layer reads the layer's input itself, before any norm."""
        return part.rpartition(".")[0] in self.entry

    def is_transposed(self, part: str) -> bool:
        """Say whether a tensor inside a layer is a matrix stored (inputs, outputs)."""
        path, _, leaf = part.rpartition(".")
        return leaf == "weight" and path in self.transposed


def _side(value: object) -> int:
    if isinstance(value, list) and value:
        value = value[0]
    return value if isinstance(value, int) and value > 0 else 0


@dataclass(frozen=True, kw_only=True)
class Family:
    """How one family of models names its tensors."""

    name: str
    model_types: tuple[str, ...]
    prefixes: tuple[str, ...]
    body: re.Pattern[str]
    renames: tuple[tuple[str, str], ...]
    ties: tuple[tuple[str, str], ...]
    tied: bool
    vocabulary: frozenset[str]
    buffers: tuple[re.Pattern[str], ...]
    towers: tuple[Tower, ...]
    always: tuple[tuple[str, str], ...] = ()
    """Ties that hold whatever tie_word_embeddings says."""

    def prefix_of(self, names: Iterable[str]) -> str:
        """Return the base-model prefix these names carry, or the empty string."""
        names = tuple(names)
        for prefix in self.prefixes:
            if any(self.body.match(n.removeprefix(prefix)) for n in names if n.startswith(prefix)):
                return prefix
        return ""

    def canonical(self, name: str, prefix: str) -> str:
        """Return the name by which tensors of different checkpoints are compared."""
        if prefix:
            name = name.removeprefix(prefix)
        for old, new in self.renames:
            name = name.replace(old, new)
        return name

    def is_head(self, canonical: str) -> bool:
        """Say whether a canonical name lies outside the model proper."""
        return not self.body.match(canonical)

    def is_buffer(self, canonical: str) -> bool:
        """Say whether a tensor is a stored buffer and no parameter."""
        return any(pattern.search(canonical) for pattern in self.buffers)

    def tied_sources(
        self, config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]
    ) -> dict[str, str]:
        """Return, for every stored copy of a tied tensor, what it is a copy of.

        Names are canonical; `shapes` has every tensor of the checkpoint.
        """
        return {
            copy: source
            for copy, source in self.tied_pairs(config)
            if copy in shapes and shapes[copy] == shapes.get(source)
        }

    def tied_pairs(self, config: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
        """Return (copy, source) of what a config ties; canonical names."""
        said = self.ties if config.get("tie_word_embeddings", self.tied) else ()
        return (*self.always, *said)

    def first_layers(self, config: Mapping[str, Any]) -> dict[str, int]:
        """Return each tower's first layer number: towers are numbered one after the other."""
        first, number = {}, 0
        for tower in self.towers:
            first[tower.name] = number
            number += tower.found[0] if tower.found else int(tower.settings(config)[tower.depth])
        return first

    def place(self, canonical: str) -> tuple[Tower, int, str] | None:
        """Return (tower, layer inside the tower, name inside the layer), or None outside.

        Buffers that old checkpoints store inside layers are outside: they are no weights.
        """
        if self.is_buffer(canonical):
            return None
        for tower in self.towers:
            match = tower.layer.match(canonical)
            if match:
                return tower, int(match.group(1)), canonical[match.end() :]
        return None


@cache
def families() -> Mapping[str, Family]:
    """Return every family we know, by name."""
    text = resources.files(__package__).joinpath("families.toml").read_text(encoding="utf-8")
    tables: dict[str, dict[str, Any]] = {}
    for name, table in tomllib.loads(text).items():
        tables[name] = _completed(table, tables) if "like" in table else table
    return {name: _family(name, table) for name, table in tables.items()}


def _completed(table: dict[str, Any], earlier: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Return a table with what it does not say itself taken from the one it is `like`."""
    own = dict(table)
    other = earlier[own.pop("like")]
    tower = other["towers"][0] | own.pop("tower")
    tower["bindings"] = tower["bindings"] | {name: name for name in tower.pop("more", ())}
    return {**other, **own, "towers": [tower]}


def known_family(config: Mapping[str, Any]) -> Family | None:
    """Return the family of a model config; None if the table has none of its model type."""
    kind = config.get("model_type")
    return next((found for found in families().values() if kind in found.model_types), None)


def family_of(config: Mapping[str, Any], *, where: str) -> Family:
    """Return the family of a model config, or raise `UnknownArchitecture`."""
    found = known_family(config)
    if found is not None:
        return found
    kind = config.get("model_type")
    known = sorted(kind for family in families().values() for kind in family.model_types)
    said = f"model_type {kind!r}" if kind else "no model_type"
    raise UnknownArchitecture(
        f"{where}: config.json has {said}, whose layers are not known here",
        hint=f"Known: {', '.join(known)}.",
        uri=where,
        model_type=kind,
    )


def _family(name: str, table: dict[str, Any]) -> Family:
    return Family(
        name=name,
        model_types=tuple(table["model_types"]),
        prefixes=tuple(table["prefixes"]),
        body=re.compile(table["body"]),
        renames=tuple((old, new) for old, new in table["renames"]),
        ties=tuple((copy, source) for copy, source in table["ties"]),
        tied=table.get("tied", True),
        vocabulary=frozenset(table.get("vocabulary", ())),
        buffers=tuple(re.compile(pattern) for pattern in table["buffers"]),
        towers=tuple(_tower(tower) for tower in table["towers"]),
    )


def _tower(table: dict[str, Any]) -> Tower:
    bindings = {
        disk: tuple(module) if isinstance(module, list) else module
        for disk, module in table.get("bindings", {}).items()
    }
    return Tower(
        name=table["name"],
        block=table.get("block"),
        layer=re.compile(table["layer"]),
        config=table.get("config"),
        defaults=table.get("defaults", {}),
        depth=table["depth"],
        width=table["width"],
        tokens=table["tokens"],
        bindings=bindings,
        optional=frozenset(table.get("optional", ())),
        insensitive=frozenset(table.get("insensitive", ())),
        mlp=table.get("mlp"),
        transposed=frozenset(table.get("transposed", ())),
        entry=frozenset(table.get("entry", ())),
        not_first=frozenset(table.get("not_first", ())),
        beside=table.get("beside", 1),
        registers=table.get("registers"),
    )
