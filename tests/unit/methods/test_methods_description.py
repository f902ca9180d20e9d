"""Methods as plain data: descriptions without torch, parameters and their ranges."""

import subprocess
import sys

import pytest

from fda_core.contract.recipe import MethodSpec
from fda_core.errors import BadParameter, UnknownKey
from fda_core.methods.registry import METHODS, describe, method_class, resolve

NAMES = [name for name in METHODS if name != "fda"]
MATRIX = ["tsvm", "iso_c", "iso_cts", "ace", "wudi", "iwudi", "swudi", "aswudi", "optmerge"]
SPARSE = ["ties", "dare_linear", "dare_ties", "breadcrumbs", "breadcrumbs_ties"]
SPARSE += ["della", "della_linear"]
WEIGHED = ["linear", "task_arithmetic", "nuslerp", *SPARSE]
LEAST = {"nuslerp": 2, "model_stock": 2}
MOST = {"slerp": 2, "nuslerp": 2}
TRANSFER = {"transfer": "as_is"}
SUMMED = {"normalize": False}
DARE = {"density": 0.5, "rescale": "inverse_probability"}
BREADCRUMBS = {"scale": 0.3, "keep": 0.1, "remove_top": 0.01, "scope": "row"}
DELLA = {"scale": 1.1, "density": 0.7, "epsilon": 0.07, "rescale": "inverse_probability"}

DEFAULTS = {
    "linear": {"scale": 1.0, "normalize": True},
    "task_arithmetic": {"scale": 0.3, "normalize": False},
    "slerp": {"scale": 1.0, "t": 0.5},
    "nuslerp": {"scale": 1.0, "on": "task_vectors", "flatten": True, "row_wise": False},
    "karcher": {"scale": 1.0, "max_iter": 10, "tol": 1e-5},
    "dare_linear": {"scale": 0.3, **DARE, **SUMMED},
    "dare_ties": {"scale": 0.5, **DARE, "merge": "sum"},
    "breadcrumbs": {**BREADCRUMBS, **SUMMED},
    "breadcrumbs_ties": {**BREADCRUMBS, "merge": "sum"},
    "della": {**DELLA, "merge": "mean"},
    "della_linear": {**DELLA, **SUMMED},
    "model_stock": {"scale": 1.0, "filter_wise": False, "clamp": True},
    "sce": {"scale": 1.0, "select_topk": 1.0, "mask_scope": "delta"},
    "ties": {"scale": 1.0, "density": 0.2, "merge": "mean", "rules": "paper"},
    "tsvm": {"scale": 1.0, "rank_tolerance": 1e-6, "others": "average", **TRANSFER},
    "iso_c": {"scale": 1.0, "rank_tolerance": 1e-6, "others": "average", **TRANSFER},
    "iso_cts": {
        "scale": 1.0,
        "common_fraction": 0.8,
        "rank_tolerance": 1e-6,
        "others": "average",
        **TRANSFER,
    },
    "ace": {
        "scale": 1.0,
        "ridge": 1e-2,
        "heterogeneity": 0.3,
        "rank_fraction": 0.3,
        "rank_tolerance": 1e-6,
        "others": "average",
        **TRANSFER,
    },
    "optmerge": {
        "scale": 1.0,
        "lr": 1e-4,
        "momentum": 0.9,
        "steps": 300,
        "others": "average",
        **TRANSFER,
    },
    "wudi": {
        "scale": 1.0,
        "solver": "adam",
        "lr": 1e-5,
        "steps": 300,
        "time": 300.0,
        "top_ratio": None,
        "init": "sum",
        "others": "base",
        **TRANSFER,
    },
    "iwudi": {"scale": 1.0, "time": 300.0, "init": "sum", "others": "average", **TRANSFER},
    "swudi": {
        "scale": 1.0,
        "time": 300.0,
        "top_ratio": 0.65,
        "init": "sum",
        "others": "average",
        **TRANSFER,
    },
    "aswudi": {
        "scale": 1.0,
        "rank_rule": "participation",
        "init": "sum",
        "others": "average",
        **TRANSFER,
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
    assert described["paper"].startswith(("arXiv ", "mergekit"))
    assert described["cost"] in ("A", "B", "C")
    assert described["min_experts"] == LEAST.get(name, 1)
    assert described["max_experts"] == MOST.get(name)
    assert described["uses_weights"] == (name in WEIGHED)


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
        ("slerp", "t", -0.1),
        ("slerp", "t", 1.1),
        ("nuslerp", "on", "base"),
        ("nuslerp", "flatten", 0),
        ("karcher", "max_iter", 0),
        ("karcher", "max_iter", 1.5),
        ("karcher", "tol", 0.0),
        *(
            (f"dare_{kind}", "density", value)
            for kind in ("linear", "ties")
            for value in (0.0, 1.1)
        ),
        ("dare_linear", "rescale", True),
        ("dare_linear", "normalize", 1),
        ("dare_ties", "merge", "max"),
        ("breadcrumbs", "keep", 0.0),
        ("breadcrumbs", "keep", 1.1),
        ("breadcrumbs", "remove_top", -0.1),
        ("breadcrumbs", "remove_top", 1.0),
        ("breadcrumbs_ties", "scope", "model"),
        ("della", "density", 0.0),
        ("della", "density", 1.1),
        ("della", "epsilon", -0.1),
        ("della", "epsilon", 0.5),
        ("della_linear", "rescale", "none"),
        ("model_stock", "filter_wise", 1),
        ("sce", "select_topk", -0.1),
        ("sce", "select_topk", 1.1),
        ("sce", "mask_scope", "all"),
        ("iso_cts", "common_fraction", 1.1),
        ("iso_cts", "rank_tolerance", 1.0),
        ("ace", "ridge", 0.0),
        ("ace", "heterogeneity", -1.0),
        ("ace", "rank_fraction", 1.1),
        ("optmerge", "lr", 0.0),
        ("optmerge", "momentum", 1.0),
        ("optmerge", "steps", 0),
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


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("nuslerp", {"row_wise": True}, "row_wise is for flatten: false"),
        ("della", {"density": 0.05}, "-0.02 to 0.12"),
        ("della", {"density": 0.95}, "0.88 to 1.02"),
        ("della_linear", {"density": 0.3, "epsilon": 0.3}, "0 to 0.6"),
    ],
)
def test_parameters_that_exclude_each_other_are_refused_with_their_values(
    name, parameters, message
):
    with pytest.raises(BadParameter, match=message):
        resolve(MethodSpec(name=name, parameters=parameters))


@pytest.mark.parametrize("name", ["slerp", "karcher"])
def test_methods_that_depend_on_the_order_of_experts_say_so(name):
    kind = method_class(name)
    assert "order" in kind.summary or "first" in (kind.__doc__ or "")


@pytest.mark.parametrize("name", [name for name in NAMES if name not in MATRIX])
def test_element_wise_methods_treat_all_tensors_alike_and_have_no_others(name):
    with pytest.raises(UnknownKey, match="others"):
        resolve(MethodSpec(name=name, parameters={"others": "base"}))
