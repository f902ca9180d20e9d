"""mergekit documents and `vary` through the command, on tiny models."""

from pathlib import Path

import pytest
import torch
import yaml

from tests.support.checkpoints import RecipeFile, base_model, expert_of, read_tensors
from tests.support.command import fda, succeed

BASE = base_model(num_hidden_layers=3)
A, B = (expert_of(BASE, seed) for seed in (1, 2))
HERE = ("--workers", 1, "--device", "cpu")
WORDS = "bert.embeddings.word_embeddings.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, model in {"base": BASE, "a": A, "b": B}.items():
        model.save(tmp_path / name)
    return tmp_path


def _recipe(folder, *, method, **more):
    experts = {name: folder / name for name in "ab"}
    return RecipeFile(
        base=folder / "base", experts=experts, output=folder / "out", method=method, more=more
    ).write(folder / "recipe.yaml")


def _mergekit(folder, text):
    path = folder / "mergekit.yaml"
    path.write_text(text.replace("@", f"{folder}/"))
    return path


def _query(layer):
    return f"bert.encoder.layer.{layer}.attention.self.query.weight"


def _expected(name, *, a, b, scale=1.0):
    base = BASE.tensors[name].double()
    moved = sum(w * (m.tensors[name].double() - base) for m, w in ((A, a), (B, b)))
    return base + scale * moved


GRADIENTS = """
merge_method: task_arithmetic
base_model: '@base'
models:
  - {model: '@a', parameters: {weight: [0.0, 1.0]}}
  - model: '@b'
    parameters: {weight: [{filter: query, value: -0.5}, {value: 0.25}]}
parameters:
  lambda: [{filter: pooler, value: 0.0}, {value: 2.0}]
"""


def test_a_mergekit_document_merges_as_it_says_layer_by_layer(folder):
    path = _mergekit(folder, GRADIENTS)
    succeed("merge", path, "--output", folder / "out", *HERE)
    merged = read_tensors(folder / "out")
    for layer, a in ((0, 0.0), (1, 0.5), (2, 1.0)):
        found = merged[_query(layer)].double()
        torch.testing.assert_close(
            found, _expected(_query(layer), a=a, b=-0.5, scale=2.0), rtol=0, atol=1e-6
        )
        other = _query(layer).replace("query", "key")
        torch.testing.assert_close(
            merged[other].double(), _expected(other, a=a, b=0.25, scale=2.0), rtol=0, atol=1e-6
        )
    outside = _expected(WORDS, a=0.0, b=0.25, scale=2.0)
    torch.testing.assert_close(merged[WORDS].double(), outside, rtol=0, atol=1e-6)
    pooler = "bert.pooler.dense.weight"
    assert torch.equal(merged[pooler], BASE.tensors[pooler])


def test_plan_shows_the_translation_and_says_that_it_is_one(folder):
    path = _mergekit(folder, GRADIENTS)
    shown = fda("plan", path, "--output", folder / "out").out
    assert "translated from a mergekit document (merge_method task_arithmetic)" in shown
    assert "tensors: '*query*'" in shown
    data = succeed("plan", path, "--output", folder / "out")
    weights = [entry["weights"] for entry in data["recipe"]["vary"]]
    assert {"a": {"gradient": [0.0, 1.0]}} in weights
    assert any("translated from a mergekit document" in note for note in data["notes"])


def test_the_recipe_that_is_written_merges_to_the_same_bytes(folder):
    path = _mergekit(folder, GRADIENTS)
    succeed("merge", path, "--output", folder / "out", *HERE)
    ours = yaml.safe_load((folder / "out" / "merge_recipe.yaml").read_text())
    assert "merge_method" not in ours
    again = folder / "ours.yaml"
    again.write_text(yaml.safe_dump(ours))
    succeed("merge", again, "--output", folder / "again", *HERE)
    first, second = (folder / name / "model.safetensors" for name in ("out", "again"))
    assert first.read_bytes() == second.read_bytes()


def test_a_slice_of_fewer_layers_than_the_base_has_is_refused(folder):
    path = _mergekit(
        folder,
        """
merge_method: slerp
base_model: '@base'
slices:
  - sources: [{model: '@base', layer_range: [0, 2]}, {model: '@a', layer_range: [0, 2]}]
parameters: {t: 0.5}
""",
    )
    refused = fda("plan", path, "--output", folder / "out")
    assert refused.code != 0
    assert "the recipe is for 2 layers, the base has 3" in refused.err + refused.out


def test_of_two_entries_that_vary_a_tensor_the_later_one_counts(folder):
    vary = [
        {"layers": [1, 2], "set": {"scale": {"gradient": [0.5, 1.0]}}},
        {"tensors": "*query*", "set": {"scale": 0.0}, "weights": {"a": 3.0}},
        {"layers": [2, 2], "tensors": "*query*", "set": {"scale": 1.5}},
    ]
    method = {"name": "task_arithmetic", "scale": 0.1}
    succeed("merge", _recipe(folder, method=method, vary=vary), *HERE)
    merged = read_tensors(folder / "out")
    assert torch.equal(merged[_query(1)], BASE.tensors[_query(1)])
    key = _query(1).replace("query", "key")
    for name, scale, a in ((_query(2), 1.5, 3.0), (key, 0.5, 1.0), (WORDS, 0.1, 1.0)):
        wanted = _expected(name, a=a, b=1.0, scale=scale)
        torch.testing.assert_close(merged[name].double(), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("method", "entry", "said"),
    [
        ("fda", {"set": {"scope": "layer"}}, "vary: the layers of an FDA merge"),
        ("ties", {"set": {"densty": 0.5}}, "vary.0.set.densty: there is no such parameter of ties"),
        ("ties", {"weights": {"c": 1.0}}, "vary.0.weights.c: there is no such expert"),
        ("ties", {"experts": {"c": {"density": 1.0}}}, "vary.0.experts.c: there is no such expert"),
        ("ties", {"experts": {"a": {"scale": 1.0}}}, "vary.0.experts.a.scale: there is no such"),
        ("tsvm", {"experts": {"a": {"scale": 1.0}}}, "vary.0.experts.a: tsvm has no parameters"),
        ("ties", {"experts": {"a": {"density": 2.0}}}, "LayerNorm.bias.experts.a.density: input"),
        ("della", {"experts": {"a": {"density": 0.05}}}, "give probabilities from -0.02 to 0.12"),
        ("tsvm", {"weights": {"a": 1.0}}, "vary.0.weights: tsvm does not weigh experts"),
        ("ties", {"layers": [1, 3], "set": {"scale": 1.0}}, "vary.0.layers: [1, 3], but the base"),
        ("ties", {"layers": [2, 1], "set": {"scale": 1.0}}, "[2, 1] ends before it begins"),
        ("ties", {"tensors": "*"}, "give set:, weights: or experts:"),
        ("ties", {"set": {"scale": {"gradeint": [1]}}}, "write a value, or {gradient:"),
        ("ties", {"set": {"density": 2.0}}, "embeddings.LayerNorm.bias.density"),
        ("linear", {"weights": {"a": 1.0, "b": -1.0}}, "sum to 0"),
    ],
)
def test_what_a_method_does_not_take_is_refused_when_planning(folder, method, entry, said):
    refused = fda("plan", _recipe(folder, method=method, vary=[entry]))
    assert refused.code != 0
    assert said in (refused.err + refused.out).replace("\n", " ")


def test_an_entry_that_no_tensor_falls_under_is_warned_of(folder):
    entry = {"tensors": "*self_atn*", "set": {"scale": 0.5}}
    warnings = succeed("plan", _recipe(folder, method="ties", vary=[entry]))["warnings"]
    assert warnings == ["vary.0 changes nothing: no merged tensor is called like '*self_atn*'"]


@pytest.mark.parametrize("where", ["method", "method.start"])
def test_a_pattern_that_excludes_no_tensor_is_warned_of(folder, where):
    method = {"name": "ties", "exclude": ["*self_atn*", "*attention*"]}
    if where == "method.start":
        method = {"name": "fda", "start": method}
    warnings = succeed("plan", _recipe(folder, method=method))["warnings"]
    assert warnings == [
        f"{where}.exclude changes nothing: no merged tensor is called like '*self_atn*'"
    ]


def _with_own(folder, own, *, method, out="out", **more):
    path = _recipe(folder, method=method, **more)
    document = yaml.safe_load(path.read_text())
    for expert in document["experts"]:
        if expert["name"] in own:
            expert["parameters"] = own[expert["name"]]
    document["output"] = str(folder / out)
    path.write_text(yaml.safe_dump(document))
    return path


def _largest(tensor, share):
    """Return a tensor with all but its int(share · n) + 1 largest magnitudes zeroed."""
    count = int(share * tensor.numel()) + 1
    if count >= tensor.numel():
        return tensor
    threshold = tensor.abs().flatten().sort(descending=True).values[count - 1]
    return torch.where(tensor.abs() >= threshold, tensor, 0.0)


def _trimmed(name, *, a, b):
    """Return the TIES sum of both experts, each trimmed to its own density."""
    base = BASE.tensors[name].double()
    kept = [
        _largest((m.tensors[name] - BASE.tensors[name]).double(), share)
        for m, share in ((A, a), (B, b))
    ]
    elected = sum(kept).sign()
    return base + sum(torch.where(k.sign() == elected, k, 0.0) for k in kept)


def test_experts_are_trimmed_to_their_own_densities_which_vary_by_layer(folder):
    vary = [
        {"tensors": "*query*", "experts": {"a": {"density": {"gradient": [0.2, 0.6]}}}},
        {"layers": [2, 2], "set": {"density": 0.1}},
    ]
    method = {"name": "ties", "density": 0.9, "merge": "sum"}
    path = _with_own(folder, {"b": {"density": 0.5}}, method=method, vary=vary)
    succeed("merge", path, *HERE)
    merged = read_tensors(folder / "out")
    key = "bert.encoder.layer.2.attention.self.key.weight"
    for name, a, b in (
        (_query(0), 0.2, 0.5),
        (_query(1), 0.4, 0.5),
        (_query(2), 0.6, 0.5),
        (key, 0.1, 0.5),
        (WORDS, 0.9, 0.5),
    ):
        found = merged[name].double()
        torch.testing.assert_close(found, _trimmed(name, a=a, b=b), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "method",
    [
        {"name": "ties"},
        {"name": "dare_linear", "rescale": "l1"},
        {"name": "della"},
        {"name": "fda", "start": "ties", "construct": {"anchors": 2, "steps": 2}},
    ],
)
def test_the_same_density_for_each_expert_gives_the_bytes_of_one_for_all(folder, method):
    own = {"a": {"density": 0.5}, "b": {"density": 0.5}}
    if method["name"] == "fda":
        method = {**method, "adapt": {"epochs": 2}}
        shared = {**method, "start": {"name": "ties", "density": 0.5}}
    else:
        shared = {**method, "density": 0.5}
    succeed("merge", _with_own(folder, own, method=method), *HERE)
    succeed("merge", _with_own(folder, {}, method=shared, out="shared"), *HERE)
    first, second = (folder / name / "model.safetensors" for name in ("out", "shared"))
    assert first.read_bytes() == second.read_bytes()


def test_an_expert_s_density_is_set_from_the_command_line_and_told_of_in_the_output(folder):
    path = _recipe(folder, method="ties")
    setting = ("--set", "experts.0.parameters.density=0.9")
    plan = succeed("plan", path, *setting)
    assert plan["recipe"]["experts"][0]["parameters"] == {"density": 0.9}
    assert "parameters" not in plan["recipe"]["experts"][1]
    assert plan["job_id"] != succeed("plan", path)["job_id"]
    succeed("merge", path, *setting, *HERE)
    assert "experts.a.density" in (folder / "out" / "README.md").read_text()
    written = yaml.safe_load((folder / "out" / "merge_recipe.yaml").read_text())
    assert written["experts"][0]["parameters"] == {"density": 0.9}
    name = _query(1)
    found = read_tensors(folder / "out")[name].double()
    moved = found != BASE.tensors[name].double()
    assert moved.float().mean() > 0.85


@pytest.mark.parametrize(
    ("method", "own", "said"),
    [
        ("ties", {"denisty": 0.5}, "experts.0.parameters.denisty: ties has no such parameter"),
        ("ties", {"density": 1.5}, "experts.0.parameters.density: input should be less than or"),
        ("della", {"epsilon": 0.4}, "experts.0.parameters: density 0.7 and epsilon 0.4 give"),
        ("linear", {"scale": 0.5}, "experts.0.parameters: linear has no parameters that an"),
        ("fda", {"density": 0.5}, "experts.0.parameters: fda has no parameters that an expert"),
    ],
)
def test_what_an_expert_cannot_have_of_its_own_is_refused_when_planning(folder, method, own, said):
    refused = fda("plan", _with_own(folder, {"a": own}, method=method))
    assert refused.code == 2
    assert said in (refused.err + refused.out).replace("\n", " ")
