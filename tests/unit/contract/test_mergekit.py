"""mergekit documents in our terms: what they become, and what is refused by name."""

from fnmatch import fnmatchcase

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fda_core.checkpoints.layers import families
from fda_core.contract.mergekit_methods import table
from fda_core.contract.plan import PinnedCheckpoint, PlannedTensor, TensorRule
from fda_core.engine.inputs import Matched, Opened
from fda_core.engine.recipes import read_recipe, recipe_of, recipe_yaml
from fda_core.engine.vary import vary_tensors
from fda_core.errors import (
    BadParameter,
    DuplicateExpert,
    NoExperts,
    RecipeError,
    UnknownKey,
    UnknownMethod,
)
from fda_core.methods.registry import METHODS, method_class, method_of, resolve


def _document(method="ties", *, base="m/base", models=("m/a", "m/b"), **more):
    entries = [{"model": path, "parameters": {"weight": 1.0}} for path in models]
    found = {"merge_method": method, "models": entries, "base_model": base, **more}
    return {key: value for key, value in found.items() if value is not None}


def _recipe(text):
    return recipe_of(yaml.safe_load(text))


def _parameters(method, **given):
    weighs = "weight" in (table()[method].parameters or {})
    models = ("m/a",) if method == "slerp" else ("m/a", "m/b")
    document = _document(method, models=models, base=None if method == "linear" else "m/base")
    if not weighs:
        document["models"] = [{"model": entry["model"]} for entry in document["models"]]
    return recipe_of({**document, "parameters": given}).method.parameters


@pytest.mark.parametrize(
    ("method", "given", "ours"),
    [
        ("linear", {}, {"normalize": True, "scale": 1.0}),
        ("linear", {"normalize": False}, {"normalize": False, "scale": 1.0}),
        ("slerp", {"t": 0.25}, {"t": 0.25, "scale": 1.0}),
        ("slerp", {"t": "3e-1"}, {"t": 0.3, "scale": 1.0}),
        (
            "nuslerp",
            {"nuslerp_flatten": False, "nuslerp_row_wise": True},
            {"on": "task_vectors", "flatten": False, "row_wise": True, "scale": 1.0},
        ),
        ("karcher", {}, {"max_iter": 10, "tol": 1e-5, "scale": 1.0}),
        ("task_arithmetic", {}, {"scale": 1.0, "normalize": False}),
        ("task_arithmetic", {"lambda": 0.4, "normalize": True}, {"scale": 0.4, "normalize": True}),
        ("ties", {}, {"density": 1.0, "scale": 1.0, "merge": "mean", "rules": "mergekit"}),
        (
            "ties",
            {"normalize": False, "density": 0.2, "rescale": False},
            {"density": 0.2, "scale": 1.0, "merge": "sum", "rules": "mergekit"},
        ),
        (
            "dare_linear",
            {"density": 0.3},
            {"density": 0.3, "scale": 1.0, "normalize": False, "rescale": "l1"},
        ),
        ("dare_ties", {}, {"density": 1.0, "scale": 1.0, "merge": "sum", "rescale": "l1"}),
        (
            "breadcrumbs",
            {"density": 0.9},
            {"keep": 0.9, "remove_top": 0.01, "scale": 1, "normalize": False, "scope": "tensor"},
        ),
        (
            "breadcrumbs_ties",
            {"gamma": 0.1},
            {"keep": 1.0, "remove_top": 0.1, "scale": 1.0, "merge": "sum", "scope": "tensor"},
        ),
        (
            "della",
            {"density": 0.5},
            {"density": 0.5, "epsilon": 0.15, "scale": 1, "merge": "mean", "rescale": "l1"},
        ),
        (
            "della_linear",
            {"density": 0.5, "epsilon": 0.1},
            {"density": 0.5, "epsilon": 0.1, "scale": 1, "normalize": False, "rescale": "l1"},
        ),
        ("model_stock", {}, {"filter_wise": False, "clamp": False, "scale": 1.0}),
        ("sce", {"select_topk": 0.1}, {"select_topk": 0.1, "mask_scope": "delta", "scale": 1.0}),
    ],
)
def test_mergekits_defaults_are_written_out(method, given, ours):
    assert _parameters(method, **given) == ours


@pytest.mark.parametrize("method", sorted(table()))
def test_what_is_written_out_is_what_our_method_takes(method):
    assert method in METHODS
    given = {"slerp": {"t": 0.5}, "della": {"density": 0.5}, "della_linear": {"density": 0.5}}
    parameters = _parameters(method, **given.get(method, {}))
    spec = recipe_of(_document("ties")).method.model_copy(
        update={"name": method, "parameters": parameters}
    )
    resolve(spec)


def test_a_method_that_mergekit_lacks_takes_its_own_parameters():
    given = {"scale": 0.5, "exclude": ["*.bias"]}
    recipe = recipe_of({**_document("tsvm"), "parameters": given})
    assert recipe.method.parameters == given
    assert [expert.weight for expert in recipe.experts] == [1.0, 1.0]


def test_experts_are_the_models_but_the_base_under_the_last_part_of_their_paths():
    models = ("m/base", "org/a", "other/A/", "x/_5 b", "x/base")
    recipe = recipe_of(_document(models=models))
    assert recipe.base == "m/base"
    assert [(e.name, e.model) for e in recipe.experts] == [
        ("a", "org/a"),
        ("A-2", "other/A/"),
        ("5-b", "x/_5 b"),
        ("base-2", "x/base"),
    ]
    assert "models.0.parameters: it is the base, so they change nothing" in recipe.notes


@pytest.mark.parametrize("method", ["linear", "karcher"])
def test_where_mergekit_merges_the_base_like_any_model_it_is_an_expert_too(method):
    weight = {"parameters": {"weight": 0.5}} if method == "linear" else {}
    recipe = recipe_of({**_document(method), "models": [{"model": "m/a"}], **weight})
    assert [expert.model for expert in recipe.experts] == ["m/a", "m/base"]


def test_without_a_base_the_first_model_is_it_and_the_recipe_says_so():
    recipe = recipe_of(_document("linear", base=None))
    assert recipe.base == "m/a"
    assert [expert.model for expert in recipe.experts] == ["m/a", "m/b"]
    assert "no base_model: the first model, m/a, is the base" in recipe.notes
    slerp = recipe_of(_document("slerp", base=None, parameters={"t": 0.5}) | _plain("m/a", "m/b"))
    assert (slerp.base, [expert.model for expert in slerp.experts]) == ("m/a", ["m/b"])


def _plain(*models):
    return {"models": [{"model": model} for model in models]}


def test_nuslerp_is_on_task_vectors_only_where_a_base_is_given():
    assert recipe_of(_document("nuslerp")).method.parameters["on"] == "task_vectors"
    alone = recipe_of(_document("nuslerp", base=None))
    assert alone.method.parameters["on"] == "parameters"
    assert len(alone.experts) == 2


def test_gradients_and_filters_become_entries_that_vary():
    recipe = _recipe("""
merge_method: ties
base_model: m/base
models:
  - {model: m/a, parameters: {weight: [0, 0.5, 1]}}
  - model: m/b
    parameters:
      weight: [{filter: mlp, value: [1, 0]}, {filter: "q[0]*", value: 2}, {value: 0.25}]
parameters:
  lambda: [{filter: mlp, value: 0.5}, {value: 1}]
""")
    assert [expert.weight for expert in recipe.experts] == [0.0, 0.25]
    assert recipe.method.parameters["scale"] == 1.0
    said = [entry.model_dump(mode="json", exclude_defaults=True) for entry in recipe.vary]
    assert said == [
        {"tensors": "*mlp*", "set": {"scale": 0.5}},
        {"weights": {"a": {"gradient": [0.0, 0.5, 1.0]}}},
        {"tensors": "*q[[]0][*]*", "weights": {"b": 2.0}},
        {"tensors": "*mlp*", "weights": {"b": {"gradient": [1.0, 0.0]}}},
    ]
    assert fnmatchcase("x.q[0]*.y", "*q[[]0][*]*")
    assert read_recipe(recipe_yaml(recipe)) == recipe


TIES_EXAMPLE = """
models:
  - model: psmathur/orca_mini_v3_13b
    parameters:
      density: [1, 0.7, 0.1] # density gradient
      weight: 1.0
  - model: garage-bAInd/Platypus2-13B
    parameters:
      density: 0.5
      weight: [0, 0.3, 0.7, 1] # weight gradient
  - model: WizardLM/WizardMath-13B-V1.0
    parameters:
      density: 0.33
      weight:
        - filter: mlp
          value: 0.5
        - value: 0
merge_method: ties
base_model: TheBloke/Llama-2-13B-fp16
parameters:
  normalize: true
  int8_mask: true
dtype: float16
"""


def test_mergekits_own_example_of_ties_with_a_density_for_each_model():
    recipe = _recipe(TIES_EXAMPLE)
    assert recipe.method.parameters == {
        "density": 1.0,
        "scale": 1.0,
        "merge": "mean",
        "rules": "mergekit",
    }
    assert [(e.name, e.weight, e.parameters) for e in recipe.experts] == [
        ("orca_mini_v3_13b", 1.0, {}),
        ("Platypus2-13B", 0.0, {"density": 0.5}),
        ("WizardMath-13B-V1.0", 0.0, {"density": 0.33}),
    ]
    said = [entry.model_dump(mode="json", exclude_defaults=True) for entry in recipe.vary]
    assert said == [
        {
            "set": {"density": {"gradient": [1.0, 0.7, 0.1]}},
            "weights": {"Platypus2-13B": {"gradient": [0.0, 0.3, 0.7, 1.0]}},
        },
        {"tensors": "*mlp*", "weights": {"WizardMath-13B-V1.0": 0.5}},
    ]
    assert (
        "density differs between models: method.density is that of orca_mini_v3_13b, others have "
        "theirs under experts"
    ) in recipe.notes
    method_of(recipe)
    assert read_recipe(recipe_yaml(recipe)) == recipe


def test_gradients_and_filters_of_one_model_become_entries_that_vary_for_its_expert():
    recipe = _recipe("""
merge_method: della
base_model: m/base
models:
  - {model: m/a, parameters: {weight: 1, density: 0.5}}
  - model: m/b
    parameters:
      weight: 1
      density: [{filter: mlp, value: [0.4, 0.6]}, {value: 0.3}]
      epsilon: [0.05, 0.25]
""")
    given = recipe.method.parameters
    assert (given["density"], given["epsilon"]) == (0.5, 0.15)
    assert [e.parameters for e in recipe.experts] == [{}, {"density": 0.3, "epsilon": 0.05}]
    said = [entry.model_dump(mode="json", exclude_defaults=True) for entry in recipe.vary]
    assert said == [
        {"tensors": "*mlp*", "experts": {"b": {"density": {"gradient": [0.4, 0.6]}}}},
        {"experts": {"b": {"epsilon": {"gradient": [0.05, 0.25]}}}},
    ]
    assert read_recipe(recipe_yaml(recipe)) == recipe


def test_values_that_are_the_same_for_all_models_are_the_method_s():
    model = {"parameters": {"weight": 1, "density": 0.5}}
    recipe = recipe_of({**_document(), "models": [{"model": m, **model} for m in ("m/a", "m/b")]})
    assert recipe.method.parameters["density"] == 0.5
    assert [e.parameters for e in recipe.experts] == [{}, {}]
    assert not any("differs" in note for note in recipe.notes)


def test_what_the_method_is_given_is_never_a_mixture_of_two_models():
    recipe = _recipe("""
merge_method: della
base_model: m/base
models:
  - {model: m/a, parameters: {weight: 1, density: 0.5, epsilon: 0.4}}
  - {model: m/b, parameters: {weight: 1, density: 0.9, epsilon: 0.05}}
  - {model: m/c, parameters: {weight: 1, density: 0.9}}
parameters: {epsilon: 0.02}
""")
    given = recipe.method.parameters
    assert (given["density"], given["epsilon"]) == (0.5, 0.4)
    assert [e.parameters for e in recipe.experts] == [
        {},
        {"density": 0.9, "epsilon": 0.05},
        {"density": 0.9, "epsilon": 0.02},
    ]
    method_of(recipe)


@pytest.mark.parametrize("name", sorted(table()))
def test_what_mergekit_has_by_model_our_method_has_by_expert(name):
    rows = (table()[name].parameters or {}).values()
    each = {row.ours for row in rows if row.each} - {"weight", None}
    assert each == set(method_class(name).expert_parameters)


def test_a_method_that_mergekit_lacks_refuses_what_cannot_differ_between_experts():
    models = [{"model": "m/a", "parameters": {"scale": 1.0}}, {"model": "m/b"}]
    recipe = recipe_of({**_document("tsvm"), "models": models})
    assert recipe.method.parameters == {}
    with pytest.raises(BadParameter, match=r"experts\.0\.parameters: tsvm has no parameters"):
        method_of(recipe)


def test_one_slice_of_all_layers_is_a_merge_of_whole_models():
    recipe = _recipe("""
merge_method: slerp
base_model: m/a
slices:
  - sources: [{model: m/a, layer_range: [0, 4]}, {model: m/b, layer_range: [0, 4]}]
    parameters: {t: [{filter: mlp, value: 0.1}]}
parameters: {t: 0.5}
""")
    assert (recipe.base, recipe.layers) == ("m/a", 4)
    assert [expert.model for expert in recipe.experts] == ["m/b"]
    assert recipe.method.parameters["t"] == 0.5
    assert recipe.vary[0].set == {"t": 0.1}


@pytest.mark.parametrize(
    ("given", "compute", "output"),
    [
        ({}, "float32", "as_base"),
        ({"dtype": "float32"}, "float32", "float32"),
        ({"dtype": "bfloat16"}, "float32", "bfloat16"),
        ({"dtype": "torch.float64"}, "float64", "float64"),
        ({"dtype": "float64", "out_dtype": "float16"}, "float64", "float16"),
        ({"out_dtype": "bfloat16"}, "float32", "bfloat16"),
    ],
)
def test_dtype_is_for_computing_and_unless_said_otherwise_for_the_output(given, compute, output):
    dtype = recipe_of(_document(**given)).dtype
    assert (dtype.compute, dtype.output) == (compute, output)


def test_half_precision_and_parameters_without_effect_are_remarked_on():
    notes = recipe_of(_document(dtype="bfloat16", parameters={"int8_mask": True})).notes
    assert "computed in float32, where mergekit would compute in bfloat16" in notes
    assert "int8_mask has no effect with ties; left out" in notes
    assert "t has no effect with ties; left out" in recipe_of(_document(parameters={"t": 1})).notes


@pytest.mark.parametrize(
    "tokenizer",
    [
        {"tokenizer_source": "base"},
        {"tokenizer": {"source": "base"}},
        {"tokenizer_source": "m/base"},
    ],
)
def test_the_bases_tokenizer_is_the_one_that_can_be_had(tokenizer):
    assert recipe_of(_document(**tokenizer)).vocabulary == "base"
    assert recipe_of(_document()).vocabulary == "refuse"


def test_settings_and_the_output_are_laid_over_the_translation():
    text = yaml.safe_dump(_document())
    recipe = read_recipe(text, settings=["method.scale=0.5", "experts.1.weight=2"], output="/o")
    assert recipe.method.parameters["scale"] == 0.5
    assert recipe.experts[1].weight == 2
    assert recipe.output == "/o"


def _model(**parameters):
    return {"models": [{"model": "m/a", "parameters": {"weight": 1, **parameters}}]}


def _slices(*ranges, **more):
    names = ("m/base", "m/a", "m/b")
    sources = [{"model": m, "layer_range": r} for m, r in zip(names, ranges, strict=False)]
    return {"models": None, "slices": [{"sources": sources, **more}]}


REFUSED = [
    ({"merge_method": "passthrough"}, UnknownMethod, "'passthrough' is not among"),
    ({"merge_method": ["ties"]}, UnknownMethod, "ties"),
    ({"output": "/o"}, UnknownKey, "output: not understood"),
    ({"experts": []}, UnknownKey, "experts"),
    ({"models": None}, RecipeError, "either models or slices"),
    ({"models": "m/a"}, BadParameter, "models: 'm/a' is no list"),
    ({"models": [{"model": "m/a", "weight": 1}]}, UnknownKey, "models.0.weight"),
    ({"models": [{"model": None}]}, BadParameter, "models.0.model: None is no model"),
    (_plain("m/a", "m/a"), DuplicateExpert, "models.1: m/a is listed twice"),
    (_plain("m/a+m/lora"), BadParameter, r"models.0.model: an adapter .*m/a\+m/lora"),
    (_plain("m/a@main"), BadParameter, r"models.0.model: a revision \(m/a@main\)"),
    ({"base_model": None}, BadParameter, "base_model: ties needs one"),
    ({"base_model": "m/base@v1"}, BadParameter, "base_model: a revision"),
    (_plain({"path": "m/a", "revision": "v1"}), BadParameter, "models.0.model.revision"),
    (_plain("m/base"), NoExperts, "needs at least 1 models beside the base"),
    ({"merge_method": "slerp"}, NoExperts, "slerp needs 1 models"),
    ({"merge_method": "model_stock", **_plain("m/a")}, NoExperts, "at least 2"),
    (_plain("m/a"), BadParameter, "parameters.weight: ties needs a weight of m/a"),
    ({"merge_method": "slerp", **_plain("m/a")}, BadParameter, "slerp needs a t$"),
    (_model(weight=[{"filter": "mlp", "value": 1}]), BadParameter, "of m/a for tensors that no"),
    (_model(weight=[]), BadParameter, r"models.0.parameters.weight: \[\] is not"),
    (_model(weight=None), BadParameter, "weight: None is not"),
    (_model(weight=[1, {"value": 2}]), BadParameter, "weight"),
    (_model(weight="heavy"), BadParameter, "parameters.weight: 'heavy' is not a number"),
    (_model(weight=float("nan")), BadParameter, "weight: nan is not a finite number"),
    (_model(weight={"filter": 3, "value": 1}), BadParameter, "0.filter: 3 is not part"),
    (_model(weight={"value": 1, "fliter": "x"}), BadParameter, "no 'fliter'"),
    (_model(wieght=1), UnknownKey, "parameters.wieght: merge_method ties has no such"),
    (_model(normalize=True), BadParameter, "models.0.parameters.normalize: .*one model"),
    ({"parameters": {"rescale": True}}, BadParameter, "ties has no rescale: true here"),
    ({"parameters": {"normalize": "maybe"}}, BadParameter, "normalize: 'maybe' is not true or"),
    ({"parameters": ["x"]}, BadParameter, "parameters: .* no mapping"),
    (
        {"merge_method": "dare_ties", "parameters": {"rescale": False}},
        BadParameter,
        "dare_ties has no rescale: false here",
    ),
    (
        {"merge_method": "karcher", **_plain("m/a"), "parameters": {"max_iter": 2.5}},
        BadParameter,
        "max_iter: 2.5 is not a whole number",
    ),
    ({"models": None, "modules": {"text": {}}}, BadParameter, "modules: parts of models"),
    ({"models": None, "slices": [{}, {}]}, BadParameter, "slices: layers put together"),
    (_slices([0, 2], [1, 3]), BadParameter, r"layer_range: layer ranges \[\[0, 2\], \[1, 3\]\]"),
    (_slices([1, 3], [1, 3]), BadParameter, "layer_range"),
    (_slices([0, 3], [0, 3], residual_weight=0.5), UnknownKey, "slices.0.residual_weight"),
    ({**_slices([0, 3]), "base_model": "m/x"}, BadParameter, "base_model: m/x is not among"),
    (_slices([0, 3], [0, 3], base_model="m/a"), BadParameter, "slices.0.base_model: a second"),
    ({"dtype": "int8"}, BadParameter, "dtype: 'int8'"),
    ({"out_dtype": "float8"}, BadParameter, "out_dtype: 'float8'"),
    ({"chat_template": "auto"}, RecipeError, "chat_template"),
    ({"tokenizer_source": "union"}, BadParameter, "tokenizer_source: 'union'"),
    ({"tokenizer_source": "m/a"}, BadParameter, "tokenizer_source: 'm/a'"),
    ({"tokenizer": {"source": "union"}}, BadParameter, "tokenizer.source: 'union'"),
    ({"tokenizer": {"source": "base", "tokens": {}}}, UnknownKey, "tokenizer.tokens"),
]


@pytest.mark.parametrize(("changes", "error", "said"), REFUSED)
def test_what_cannot_be_said_is_refused_by_name(changes, error, said):
    document = {**_document(), **changes}
    with pytest.raises(error, match=said):
        recipe_of({key: value for key, value in document.items() if value is not None})


def test_an_unknown_merge_method_is_told_which_are_known():
    with pytest.raises(UnknownMethod) as caught:
        recipe_of(_document("nearswap"))
    assert "ties" in caught.value.hint
    assert "slerp" in caught.value.hint


# --- every tensor of every layer gets what mergekit's rules say -------------------------

LAYERS = 5
PARTS = ("self_attn.q_proj.weight", "mlp.up_proj.weight", "input_layernorm.weight")
OUTSIDE = ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight")
NAMES = [f"model.layers.{k}.{part}" for k in range(LAYERS) for part in PARTS] + list(OUTSIDE)


def _evaluate(setting, name, depth):
    """Return what mergekit makes of a setting, None for nothing; from its documentation."""
    if isinstance(setting, dict):
        setting = [setting]
    if isinstance(setting, list) and isinstance(setting[0], dict):
        for condition in setting:
            wanted = condition.get("filter")
            if wanted in (None, "*") or wanted in name:
                return _evaluate(condition["value"], name, depth)
        return None
    if not isinstance(setting, list):
        return setting
    position = depth * (len(setting) - 1)
    if isinstance(setting[0], bool):
        return setting[int(position)]
    left = int(position)
    right = min(left + 1, len(setting) - 1)
    return setting[left] + (position - left) * (setting[right] - setting[left])


def _first(scopes, key, name, depth, default):
    for scope in scopes:
        if key in scope:
            found = _evaluate(scope[key], name, depth)
            if found is not None:
                return found
    return default


def _settings(values):
    plain = values | st.lists(values, min_size=1, max_size=4)
    filters = st.sampled_from([None, "*", "mlp", "norm", "layers.1.", "weight", "nowhere", "[a]"])
    condition = st.builds(lambda f, v: {"filter": f, "value": v}, filters, plain)
    return plain | condition | st.lists(condition, min_size=1, max_size=3)


WEIGHTS = _settings(st.floats(-2, 2, allow_subnormal=False))
SHARES = _settings(st.floats(0.125, 1))
FLAGS = _settings(st.booleans())
OWN = st.fixed_dictionaries({}, optional={"weight": WEIGHTS, "density": SHARES})
COMMON = st.fixed_dictionaries(
    {"weight": st.just(0.5) | st.just([0.25, 0.75])},
    optional={"density": SHARES, "lambda": WEIGHTS, "normalize": FLAGS},
)


@settings(max_examples=100, deadline=None)
@given(first=OWN, second=OWN, common=COMMON)
def test_any_document_says_of_every_tensor_what_mergekit_reads_in_it(first, second, common):
    document = {
        "merge_method": "ties",
        "base_model": "m/base",
        "models": [{"model": "m/a", "parameters": first}, {"model": "m/b", "parameters": second}],
        "parameters": common,
    }
    recipe = read_recipe(recipe_yaml(recipe_of(document)))
    recipe = recipe.model_copy(update={"method": _in_full(recipe)})
    varied, found = vary_tensors([_tensor(name) for name in NAMES], recipe, _matched())
    for tensor in varied:
        depth = 0.0 if tensor.layer is None else tensor.layer / (LAYERS - 1)
        parameters = recipe.method.parameters
        weights = {expert.name: expert.weight for expert in recipe.experts}
        own = {expert.name: expert.parameters for expert in recipe.experts}
        if tensor.setting is not None:
            parameters = found[tensor.setting].parameters
            weights = found[tensor.setting].weights
            own = found[tensor.setting].experts

        def said(key, default, *own, name=tensor.name, depth=depth):
            return _first([*own, common], key, name, depth, default)

        assert weights["a"] == pytest.approx(said("weight", None, first), abs=1e-12)
        assert weights["b"] == pytest.approx(said("weight", None, second), abs=1e-12)
        for name, given_ in (("a", first), ("b", second)):
            density = own.get(name, {}).get("density", parameters["density"])
            assert density == pytest.approx(said("density", 1.0, given_))
        assert parameters["scale"] == pytest.approx(said("lambda", 1.0), abs=1e-12)
        assert parameters["merge"] == ("mean" if said("normalize", True) else "sum")


def _in_full(recipe):
    method = resolve(recipe.method)
    return recipe.method.model_copy(
        update={"parameters": method.parameters.model_dump(mode="json", by_alias=True)}
    )


def _tensor(name):
    layer = int(name.split(".")[2]) if ".layers." in name else None
    return PlannedTensor(
        name=name,
        layer=layer,
        part=name,
        rule=TensorRule.MERGE,
        reason="layer",
        experts=("a", "b"),
        dtype="F32",
        shape=(2, 2),
    )


def _matched():
    family = families()["llama"]
    pinned = PinnedCheckpoint(
        uri="m/base", family="llama", config={}, prefix="model.", files={}, tensors={}, sidecars={}
    )
    names = {family.canonical(name, "model."): name for name in NAMES}
    return Matched(base=Opened(whose="base", pinned=pinned, family=family, names=names), experts=[])
