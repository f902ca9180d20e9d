"""A corpus of wrong documents: recipes, mergekit's, indexes and configs, each with its code.

Wrong headers are in `checkpoints/test_bad_headers.py`, wrong weights and what the command says
of them in `integration/test_bad_input.py`; nothing is here twice. What the fuzzers find comes
here.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from fda_core.checkpoints.adapter_config import parse_adapter_config
from fda_core.checkpoints.index import read_config
from fda_core.checkpoints.layers import family_of
from fda_core.checkpoints.weight_files import parse_index
from fda_core.engine.recipes import read_recipe
from fda_core.errors import FdaError
from fda_core.methods.registry import resolve
from fda_core.storage.local import LocalStorage

EXPERTS = '"experts": [{"name": "x", "model": "x"}, {"name": "y", "model": "y"}]'
BOMB = "[&a [1,1]," + ",".join(f"&a{k + 1} [*a{k or ''},*a{k or ''}]" for k in range(60)) + "]"


def method(text: str) -> str:
    return f'{{"base": "b", {EXPERTS}, "method": {text}}}'


def key(text: str) -> str:
    return f'{{"base": "b", {EXPERTS}, "method": "ties", {text}}}'


def mergekit(text: str, models: str = '[{"model": "a"}, {"model": "c"}]') -> str:
    return f'{{"merge_method": "ties", "base_model": "b", "models": {models}, {text}}}'


RECIPES = {
    "bomb of aliases in a method": (method(f"{{name: ties, density: {BOMB}}}"), "recipe_invalid"),
    "alias right behind a bracket": ("a: &x 1\nb: [*x]\n", "recipe_invalid"),
    "alias as a key": ("a: &x b\n*x : 1\n", "recipe_invalid"),
    "merge of an alias": ("a: &x {b: 1}\nc: {<<: *x}\n", "recipe_invalid"),
    "merge of a number": ("<<: 1\n", "recipe_invalid"),
    "float tag on nothing": (method("{name: ties, density: !!float }"), "recipe_invalid"),
    "float tag on a word": (method("{name: ties, density: !!float x}"), "recipe_invalid"),
    "int tag on nothing": (key("seed: !!int "), "recipe_invalid"),
    "int tag on signs": (key("seed: !!int '-'"), "recipe_invalid"),
    "bool tag on a word": (method("{name: linear, normalize: !!bool x}"), "recipe_invalid"),
    "timestamp tag on a word": (key("seed: !!timestamp x"), "recipe_invalid"),
    "timestamp that cannot be": (key("seed: 2020-99-99"), "recipe_invalid"),
    "binary tag": (key("seed: !!binary x"), "recipe_invalid"),
    "set tag": (key("notes: !!set {a}"), "recipe_invalid"),
    "tag of an application": (key("seed: !mine 1"), "recipe_invalid"),
    "tag of Python's tuple": (key("seed: !!python/tuple [1]"), "recipe_invalid"),
    "mapping tag on a word": (key("dtype: !!map xy"), "recipe_invalid"),
    "mapping tag on a list": (key("dtype: !!map [a]"), "recipe_invalid"),
    "int tag on a list": (key("seed: !!int []"), "recipe_invalid"),
    "timestamp tag on a mapping": ("!!timestamp base: ", "recipe_invalid"),
    "digits of no base": (key("seed: 0x_"), "recipe_invalid"),
    "half a character": (key('output: "\\ud800"'), "recipe_invalid"),
    "half a character in a key": (key('"\\udc00": 1'), "recipe_invalid"),
    "YAML of the future": ("%YAML 9.9\n---\na: 1\n", "recipe_invalid"),
    "nested objects": ('{"a":' * 5000, "recipe_invalid"),
    "nested 65 times": (key("notes: " + "[" * 64 + "]" * 64), "recipe_invalid"),
    "nested blocks": ("".join(" " * k + "a:\n" for k in range(1500)), "recipe_invalid"),
    "4 MiB and one": ("#" * (4 * 2**20 + 1), "recipe_invalid"),
    "date as the base": (key("base: 2020-01-01").replace('"base": "b", ', ""), "bad_parameter"),
    "yes as the base": (key("base: yes").replace('"base": "b", ', ""), "bad_parameter"),
    "octal seed of letters": (key("seed: 0o777"), "bad_parameter"),
    "sexagesimal seed": (key("seed: 12:30.5"), "recipe_invalid"),
    "infinite density": (method("{name: ties, density: .inf}"), "bad_parameter"),
    "density that overflows": (method("{name: ties, density: 1e999}"), "bad_parameter"),
    "density of 401 digits": (method("{name: ties, density: 1" + "0" * 400 + "}"), "bad_parameter"),
    "scale of 401 digits": (method("{name: linear, scale: 1" + "0" * 400 + "}"), "bad_parameter"),
    "seed of 401 digits": (key("seed: 1" + "0" * 400), "bad_parameter"),
    "size of 401 digits": (key('shard_size: "1' + "0" * 400 + 'GB"'), "bad_parameter"),
    "size without a number": (key("shard_size: GB"), "bad_parameter"),
    "weight of 401 digits": (
        key("vary: [{weights: {x: 1" + "0" * 400 + "}}]"),
        "bad_parameter",
    ),
    "vary of nothing": (key("vary: [{}]"), "bad_parameter"),
    "vary of nothing for an expert": (key("vary: [{experts: {x: {}}}]"), "bad_parameter"),
    "vary of experts in a list": (key("vary: [{experts: [x]}]"), "bad_parameter"),
    "vary of an expert that is a number": (key("vary: [{experts: {x: 1}}]"), "bad_parameter"),
    "vary that ends before it begins": (
        key("vary: [{layers: [2, 1], set: {density: 0.1}}]"),
        "bad_parameter",
    ),
    "weights over words": (key("vary: [{weights: {x: {gradient: ['', 1]}}}]"), "bad_parameter"),
    "weights over Infinity": (
        key("vary: [{weights: {x: {gradient: [Infinity, 1]}}}]"),
        "bad_parameter",
    ),
    "gradient to 401 digits": (
        key("vary: [{set: {density: {gradient: [1, 1" + "0" * 400 + "]}}}]"),
        "bad_parameter",
    ),
    "gradient of nothing": (key("vary: [{set: {density: {gradient: []}}}]"), "bad_parameter"),
    "gradient of a gradient": (
        key("vary: [{set: {density: {gradient: [{gradient: [1]}]}}}]"),
        "bad_parameter",
    ),
    "gradient with more beside it": (
        key("vary: [{set: {density: {gradient: [1], to: 2}}}]"),
        "bad_parameter",
    ),
    "start that is a list": (method("{name: fda, start: []}"), "bad_parameter"),
    "base as a start with parameters": (
        method("{name: fda, start: {name: base, scale: 1}}"),
        "bad_parameter",
    ),
    "nested start": (method('{"name": "fda", "start": {"name": "fda"}}'), "bad_parameter"),
    "method without a name": (method('{"density": 0.5}'), "unknown_key"),
    "mergekit: method that is a list": ('{"merge_method": []}', "unknown_method"),
    "mergekit: method that is null": ('{"merge_method": null}', "unknown_method"),
    "mergekit: no models": ('{"merge_method": "ties", "base_model": "b"}', "recipe_invalid"),
    "mergekit: models that are a word": (mergekit('"dtype": "float16"', '"a"'), "bad_parameter"),
    "mergekit: a model without a path": (mergekit('"dtype": "float16"', "[{}]"), "bad_parameter"),
    "mergekit: a model that is null": (mergekit('"dtype": "float16"', "[null]"), "bad_parameter"),
    "mergekit: unknown dtype": (mergekit('"dtype": "int8"'), "bad_parameter"),
    "mergekit: dtype that is a list": (mergekit('"dtype": []'), "bad_parameter"),
    "mergekit: parameters that are a list": (mergekit('"parameters": [1]'), "bad_parameter"),
    "mergekit: density that is an object": (
        mergekit('"parameters": {"density": {"a": 1}}'),
        "bad_parameter",
    ),
    "mergekit: density of nothing": (mergekit('"parameters": {"density": []}'), "bad_parameter"),
    "mergekit: NaN": (mergekit('"parameters": {"density": .nan}'), "bad_parameter"),
    "mergekit: unknown key": (mergekit('"extra": 1'), "unknown_key"),
    "mergekit: modules": (mergekit('"modules": {}'), "bad_parameter"),
}
INDEXES = {
    "nothing": ("", "corrupt_shard"),
    "a list": ("[]", "corrupt_shard"),
    "half an object": ('{"weight_map": {', "corrupt_shard"),
    "no map": ('{"metadata": {}}', "corrupt_shard"),
    "empty map": ('{"weight_map": {}}', "corrupt_shard"),
    "map of lists": ('{"weight_map": {"a": []}}', "corrupt_shard"),
    "map to nothing": ('{"weight_map": {"a": ""}}', "corrupt_shard"),
    "map to null": ('{"weight_map": {"a": null}}', "corrupt_shard"),
    "backslashes": ('{"weight_map": {"a": "..\\\\x.safetensors"}}', "corrupt_shard"),
    "NUL in a file": ('{"weight_map": {"a": "x\\u0000.safetensors"}}', "corrupt_shard"),
    "half a character in a file": ('{"weight_map": {"a": "\\ud800"}}', "corrupt_shard"),
    "half a character in a name": ('{"weight_map": {"\\ud800": "a"}}', "corrupt_shard"),
    "a pickle": ('{"weight_map": {"a": "pytorch_model.bin"}}', "pickle_refused"),
    "deep": ('{"weight_map":' * 50_000, "corrupt_shard"),
    "a number of 5000 digits": ('{"weight_map": ' + "9" * 5000 + "}", "corrupt_shard"),
}
CONFIGS = {
    "deep": ("[" * 100_000, "missing_config"),
    "a number of 5000 digits": ('{"model_type": ' + "9" * 5000 + "}", "missing_config"),
    "model_type a list": ('{"model_type": ["bert"]}', "unknown_architecture"),
    "model_type an object": ('{"model_type": {}}', "unknown_architecture"),
    "model_type half a character": ('{"model_type": "\\ud800"}', "missing_config"),
    "key half a character": ('{"model_type": "bert", "\\udfff": 1}', "missing_config"),
    "half a character deep inside": ('{"a": [{"b": ["\\ud800"]}]}', "missing_config"),
    "nested 65 times": ('{"a": ' + "[" * 64 + "]" * 64 + "}", "missing_config"),
    "nested 300 times": ('{"a": ' + '{"a": ' * 299 + "1" + "}" * 300, "missing_config"),
}
ADAPTERS: dict[str, tuple[Any, str]] = {
    "rank 0": ({"r": 0}, "unsupported_adapter"),
    "rank true": ({"r": True}, "unsupported_adapter"),
    "rank of 400 digits": ({"r": 10**400}, "unsupported_adapter"),
    "alpha NaN": ({"lora_alpha": float("nan")}, "unsupported_adapter"),
    "alpha of 400 digits": ({"lora_alpha": 10**400}, "unsupported_adapter"),
    "pattern that runs for ever": ({"rank_pattern": {"(a+)+$": 2}}, "unsupported_adapter"),
    "pattern of an open set": ({"rank_pattern": {"[": 2}}, "unsupported_adapter"),
    "bias an object": ({"bias": {"a": 1}}, "unsupported_adapter"),
    "a key of tomorrow": ({"use_new_thing": True}, "unsupported_adapter"),
}


def test_there_are_enough() -> None:
    assert len(RECIPES) + len(INDEXES) + len(CONFIGS) + len(ADAPTERS) >= 60


def check(code: str, problem: FdaError) -> None:
    assert problem.code == code, problem.message
    assert len(problem.message) < 5000
    json.dumps(problem.as_dict(), ensure_ascii=False).encode()


@pytest.mark.parametrize(("text", "code"), RECIPES.values(), ids=RECIPES.keys())
def test_recipe(text: str, code: str) -> None:
    with pytest.raises(FdaError) as caught:
        resolve(read_recipe(text).method)
    check(code, caught.value)


@pytest.mark.parametrize(("text", "code"), INDEXES.values(), ids=INDEXES.keys())
def test_index(text: str, code: str) -> None:
    with pytest.raises(FdaError) as caught:
        parse_index(text.encode(), label="index")
    check(code, caught.value)


@pytest.mark.parametrize(("text", "code"), CONFIGS.values(), ids=CONFIGS.keys())
def test_config(tmp_path: Path, text: str, code: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(FdaError) as caught:
        family_of(read_config(LocalStorage(), str(tmp_path)), where="base")
    check(code, caught.value)


@pytest.mark.parametrize(("changes", "code"), ADAPTERS.values(), ids=ADAPTERS.keys())
def test_adapter_config(changes: dict[str, Any], code: str) -> None:
    with pytest.raises(FdaError) as caught:
        parse_adapter_config({"peft_type": "LORA", "r": 2, **changes}, where="adapter")
    check(code, caught.value)


def test_a_character_that_json_writes_as_two_escapes_is_one() -> None:
    recipe = read_recipe(key('"output": "\\ud83d\\ude00"'))
    assert recipe.output == "\U0001f600"


def test_ampersands_and_stars_in_texts_are_no_aliases() -> None:
    recipe = read_recipe(key('"notes": ["salt & pepper", "a *star"]'))
    assert recipe.notes == ("salt & pepper", "a *star")
