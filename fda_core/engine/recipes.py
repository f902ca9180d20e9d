"""Read recipes: YAML or JSON text into one checked document."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from fda_core.contract.mergekit import is_mergekit, translate
from fda_core.contract.recipe import Recipe, parse_recipe
from fda_core.errors import BadParameter, RecipeError
from fda_core.methods.registry import METHODS

MAX_BYTES = 4 * 2**20
MAX_DEPTH = 64


class _Loader(yaml.SafeLoader):
    """Safe YAML without its traps: repeated keys, 1e-3 read as text, aliases, and tags.

    A few lines of aliases to aliases are a value of gigabytes to whoever prints it; a tag
    forces a kind on whatever follows it, so `!!int []` reaches a constructor of numbers.
    """

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Return the next node; an alias, a tag, or too many in one another, are refused."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        line = event.start_mark.line + 1
        if self.check_event(yaml.AliasEvent):
            raise RecipeError(
                f"line {line}: YAML aliases (*name) are not read", hint="Write the values out."
            )
        if event.tag is not None:
            raise RecipeError(
                f"line {line}: YAML tags ({ascii(event.tag)[1:-1]}) are not read",
                hint="Leave the tag out; put quotes around text that looks like a number.",
            )
        if self.depth == MAX_DEPTH:
            raise RecipeError(
                f"line {line}: nested more than {MAX_DEPTH} deep",
                hint="Check that this is a recipe.",
            )
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*)(\.[\d_]*)?[eE][-+]?\d+$"),
    list("-+0123456789"),
)


def _text(loader: _Loader, node: yaml.ScalarNode) -> str:
    """Return a text; halves of a character that JSON writes as two escapes are joined."""
    text = str(loader.construct_scalar(node))
    if text.isascii():
        return text
    try:
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raise RecipeError(
            f"line {node.start_mark.line + 1}: {ascii(text)[:80]} is not valid Unicode",
            hint="One half of a character stands alone there.",
        ) from None


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise RecipeError(
                f"line {key_node.start_mark.line + 1}: the key {key!r} is no text",
                hint="Keys are words; put quotes around one that looks like a number.",
            )
        if key in seen:
            raise RecipeError(
                f"line {key_node.start_mark.line + 1}: the key {key!r} is given twice",
                hint="Keep one of them.",
                key=key,
            )
        seen.add(key)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


_OTHER_BASES = re.compile(r"[-+]?(0[0-7_]+|[0-9_]+(:[0-5]?[0-9])+(\.[0-9_]*)?)$")
"""Octal numbers and times of day, which YAML 1.1 takes for others than they look."""


def _careful(kind: str) -> None:
    """Give a kind of scalar, which a look decides, errors of ours: 0x_ and 9999-99-99."""
    tag = f"tag:yaml.org,2002:{kind}"
    usual = _Loader.yaml_constructors[tag]

    def construct(loader: _Loader, node: yaml.ScalarNode) -> Any:
        if _OTHER_BASES.match(node.value):
            line, read = node.start_mark.line + 1, usual(loader, node)
            raise RecipeError(
                f"line {line}: YAML reads {node.value} as {read}",
                hint="Write the number without leading zeros or colons, or put quotes around text.",
            )
        try:
            return usual(loader, node)
        except (ValueError, OverflowError):
            raise RecipeError(
                f"line {node.start_mark.line + 1}: {ascii(node.value)[:80]} cannot be read as "
                f"{kind}",
                hint="Correct the value, or put quotes around it.",
            ) from None

    _Loader.add_constructor(tag, construct)


for _kind in ("int", "float", "bool", "timestamp"):
    _careful(_kind)
_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_SCALAR_TAG, _text)


def parse_document(text: str) -> Any:
    """Return what a YAML or JSON text says, or raise `RecipeError` with the line."""
    if len(text) > MAX_BYTES:
        raise RecipeError(
            f"the recipe has {len(text)} characters; at most {MAX_BYTES} are read",
            hint="Check that this is a recipe.",
        )
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        what = getattr(problem, "problem", None) or str(problem).splitlines()[0]
        raise RecipeError(f"{where}{what}", hint="The recipe is no valid YAML or JSON.") from None
    except ValueError as problem:
        raise RecipeError(
            f"the recipe cannot be read: {type(problem).__name__}",
            hint="It has a number or date that cannot be.",
        ) from None


def read_recipe(text: str, *, settings: Sequence[str] = (), output: str | None = None) -> Recipe:
    """Return the recipe of a text, with `key.path=value` settings and the output laid over it.

    A mergekit document is translated first, so that settings are in our terms.
    """
    return recipe_of(parse_document(text), settings=settings, output=output)


def recipe_of(
    document: object, *, settings: Sequence[str] = (), output: str | None = None
) -> Recipe:
    """Return the recipe of a document that is read already, ours or mergekit's."""
    if not isinstance(document, Mapping):
        return parse_recipe(document)
    changed = dict(document)
    if is_mergekit(changed):
        changed = translate(changed, methods=METHODS)
    for setting in settings:
        _set(changed, setting)
    if output is not None:
        changed["output"] = output
    return parse_recipe(changed)


def _set(document: dict[str, Any], setting: str) -> None:
    """Lay one `key.path=value` over a document; numbers in the path index lists."""
    path, sign, value = setting.partition("=")
    if not sign or not all(path.strip().split(".")):
        raise BadParameter(
            f"--set {setting!r} is not key.path=value", hint="For example: --set method.scale=0.5"
        )
    set_at(document, path, parse_document(value))


def set_at(document: dict[str, Any], path: str, value: Any) -> None:
    """Put a value at a `key.path` of a document, in place; numbers index lists."""
    keys = path.strip().split(".")
    if not all(keys):
        raise BadParameter(
            f"{path!r} is not key.path", hint="For example: method.scale or experts.0.weight"
        )
    if keys[0] == "method" and isinstance(document.get("method"), str):
        document["method"] = {"name": document["method"]}
    here: Any = document
    for depth, key in enumerate(keys[:-1]):
        here = _enter(here, key, ".".join(keys[: depth + 1]))
    _assign(here, keys[-1], value, path)


def _enter(here: Any, key: str, path: str) -> Any:
    if isinstance(here, list):
        child = here[_index(here, key, path)]
    elif isinstance(here, dict):
        child = here.get(key)
        if child is None:
            child = here[key] = {}
        elif isinstance(child, str) and key == "start":
            child = here[key] = {"name": child}
    else:
        child = None
    if not isinstance(child, (dict, list)):
        raise BadParameter(
            f"{path}: there is nothing below it",
            hint="Give the path of a key that the recipe has or may have.",
            key=path,
        )
    return child


def _assign(here: Any, key: str, value: Any, path: str) -> None:
    if isinstance(here, list):
        here[_index(here, key, path)] = value
    else:
        here[key] = value


def _index(here: list[Any], key: str, path: str) -> int:
    if not (key.isascii() and key.isdigit()) or int(key) >= len(here):
        raise BadParameter(
            f"{path}: the list has {len(here)} entries, not {key!r}",
            hint="Entries are counted from 0, as in experts.0.weight=2.",
            key=path,
        )
    return int(key)


def recipe_yaml(recipe: Recipe) -> str:
    """Return a recipe as YAML, every default written out."""
    data = recipe.model_dump(mode="json", by_alias=True)
    data["vary"] = [e.model_dump(mode="json", exclude_defaults=True) for e in recipe.vary]
    for key in ("vary", "layers", "notes"):
        if not data[key]:
            del data[key]
    method = data["method"]
    data["method"] = {"name": method["name"], **method["parameters"]}
    text: str = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100)
    return text
