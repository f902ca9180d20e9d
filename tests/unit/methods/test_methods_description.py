"""Methods as plain data: descriptions without torch, parameters and their ranges."""

import subprocess
import sys

import pytest

from fda_core.contract.recipe import MethodSpec
from fda_core.errors import BadParameter, UnknownKey
from fda_core.methods.registry import METHODS, describe, resolve

NAMES = [name for name in METHODS if name != "fda"]
MATRIX = ["tsvm", "iso_c", "wudi", "iwudi", "swudi", "aswudi"]

DEFAULTS = {
    "linear": {"scale": 1.0, "normalize": True},
    "task_arithmetic": {"scale": 0.3, "normalize": False},
    "ties": {"scale": 1.0, "density": 0.2, "merge": "mean", "rules": "paper"},
    "tsvm": {"scale": 1.0, "rank_tolerance": 1e-6, "others": "average"},
    "iso_c": {"scale": 1.0, "rank_tolerance": 1e-6, "others": "average"},
    "wudi": {
        "scale": 1.0,
        "solver": "adam",
        "lr": 1e-5,
        "steps": 300,
        "time": 300.0,
        "top_ratio": None,
        "init": "sum",
        "others": "base",
    },
    "iwudi": {"scale": 1.0, "time": 300.0, "init": "sum", "others": "average"},
    "swudi": {
        "scale": 1.0,
        "time": 300.0,
        "top_ratio": 0.65,
        "init": "sum",
        "others": "average",
    },
    "aswudi": {
        "scale": 1.0,
        "rank_rule": "participation",
        "init": "sum",
        "others": "average",
    },
}


def test_describing_and_resolving_every_method_loads_no_torch():
    program = f"""
import sys
from fda_core.contract.recipe import MethodSpec
from fda_core.methods.registry import describe, resolve
for name in {NAMES!r}:
    assert describe(name)["parameters"]["properties"]
    resolve(MethodSpec(name=name))
loaded = [name for name in sys.modules if name.split(".")[0] in ("torch", "numpy")]
assert not loaded, loaded[:5]
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_defaults_are_the_published_ones(name):
    parameters = resolve(MethodSpec(name=name)).parameters.model_dump()
    assert parameters == {**DEFAULTS[name], "exclude": ()}


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_is_described(name):
    for key, schema in describe(name)["parameters"]["properties"].items():
        assert len(schema.get("description", "")) > 10, key


@pytest.mark.parametrize("name", NAMES)
def test_descriptions_say_what_a_table_needs(name):
    described = describe(name)
    assert described["name"] == name
    assert described["summary"].endswith(".")
    assert described["paper"].startswith("arXiv ")
    assert described["cost"] in ("A", "B", "C")
    assert described["min_experts"] == 1
    assert described["uses_weights"] == (name in ("linear", "task_arithmetic", "ties"))


@pytest.mark.parametrize("name", NAMES)
def test_parameters_survive_json(name):
    given = {"scale": 0.5, "exclude": ["*.bias"]}
    method = resolve(MethodSpec(name=name, parameters=given))
    again = resolve(
        MethodSpec(name=name, parameters=method.parameters.model_dump(mode="json", by_alias=True))
    )
    assert again.parameters == method.parameters


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        *((name, "scale", value) for name in NAMES for value in (float("nan"), "1", None)),
        *((name, "exclude", value) for name in NAMES for value in ("*.bias", [1], [""])),
        *((name, "others", "sum") for name in MATRIX),
        ("linear", "normalize", 1),
        ("ties", "density", 0.0),
        ("ties", "density", 1.5),
        ("ties", "merge", "max"),
        ("ties", "rules", "peft"),
        ("tsvm", "rank_tolerance", -1e-9),
        ("iso_c", "rank_tolerance", 1.0),
        ("wudi", "solver", "sgd"),
        ("wudi", "lr", 0.0),
        ("wudi", "steps", 0),
        ("wudi", "steps", 1.5),
        ("wudi", "time", 0.0),
        ("wudi", "init", "base"),
        ("iwudi", "time", -1.0),
        ("swudi", "top_ratio", 0.0),
        ("swudi", "top_ratio", 1.1),
        ("aswudi", "rank_rule", "none"),
    ],
)
def test_values_outside_a_parameters_range_are_refused_by_name(name, key, value):
    with pytest.raises(BadParameter, match=rf"method\.{key}"):
        resolve(MethodSpec(name=name, parameters={key: value}))


@pytest.mark.parametrize("name", NAMES)
def test_parameters_a_method_does_not_have_are_refused(name):
    with pytest.raises(UnknownKey, match="denisty"):
        resolve(MethodSpec(name=name, parameters={"denisty": 0.2}))


@pytest.mark.parametrize("name", ["linear", "task_arithmetic", "ties"])
def test_element_wise_methods_treat_all_tensors_alike_and_have_no_others(name):
    with pytest.raises(UnknownKey, match="others"):
        resolve(MethodSpec(name=name, parameters={"others": "base"}))
