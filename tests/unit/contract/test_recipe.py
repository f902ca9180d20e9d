"""What a recipe may say, and how it is told off."""

import pytest

from fda_core.contract.recipe import parse_recipe
from fda_core.engine.recipes import parse_document, read_recipe, recipe_yaml
from fda_core.errors import BadParameter, DuplicateExpert, NoExperts, RecipeError, UnknownKey
from fda_core.methods.registry import resolve

GOOD = {
    "base": "b",
    "experts": [{"name": "x", "model": "m"}],
    "method": {"name": "ties", "density": 0.2},
}


def _with(**changes):
    return {**GOOD, **changes}


def test_the_flat_and_the_short_form_of_a_method_mean_the_same():
    assert parse_recipe(_with(method="ties")).method.name == "ties"
    assert parse_recipe(GOOD).method.parameters == {"density": 0.2}


@pytest.mark.parametrize(
    ("document", "place", "near"),
    [
        (_with(expert=[]), "expert", "experts"),
        (_with(experts=[{"name": "x", "model": "m", "wieght": 1.0}]), "experts.0.wieght", "weight"),
        (_with(dtype={"outptu": "float32"}), "dtype.outptu", "output"),
    ],
)
def test_an_unknown_key_names_its_place_and_the_nearest_known_one(document, place, near):
    with pytest.raises(UnknownKey, match=place) as caught:
        parse_recipe(document)
    assert repr(near) in caught.value.hint


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": -1}, "seed.*-1"),
        ({"seed": 2**63}, "seed"),
        ({"seed": True}, "seed"),
        ({"seed": 1.5}, "seed.*1.5"),
        ({"shard_size": 5}, "shard_size.*5"),
        ({"shard_size": "lots"}, "'lots' is not a size"),
        ({"outside": "mean"}, "outside.*mean"),
        ({"heads": "merge"}, "heads.*merge"),
        ({"dtype": {"compute": "float16"}}, "compute.*float16"),
        ({"output": ""}, "output"),
        ({"base": ""}, "base"),
        ({"experts": [{"name": "../x", "model": "m"}]}, r"\.\./x"),
        ({"experts": [{"name": "Base", "model": "m"}]}, "called 'base'"),
        ({"experts": [{"name": "x", "model": "m", "weight": float("nan")}]}, "weight"),
    ],
)
def test_a_value_out_of_range_is_named_with_its_value(changes, said):
    with pytest.raises(BadParameter, match=said):
        parse_recipe(_with(**changes))


def test_missing_keys_are_named():
    with pytest.raises(BadParameter, match="base: field required"):
        parse_recipe({key: value for key, value in GOOD.items() if key != "base"})


def test_no_experts_and_twice_the_same_are_refused():
    with pytest.raises(NoExperts):
        parse_recipe(_with(experts=[]))
    twice = [{"name": "x", "model": "m"}, {"name": "X", "model": "n"}]
    with pytest.raises(DuplicateExpert, match="'X'"):
        parse_recipe(_with(experts=twice))


@pytest.mark.parametrize("document", [None, [], "text", 3])
def test_what_is_no_mapping_is_refused(document):
    with pytest.raises(RecipeError, match="mapping"):
        parse_recipe(document)


@pytest.mark.parametrize(
    ("text", "size"), [("512MB", 512_000_000), ("2GiB", 2 * 2**30), ("1.5 GB", 1_500_000_000)]
)
def test_sizes_may_be_written_with_units(text, size):
    assert parse_recipe(_with(shard_size=text)).shard_size == size


def test_a_resolved_recipe_reads_back_as_itself():
    recipe = parse_recipe(_with(seed=3, output="/o", method={"name": "fda", "start": "tsvm"}))
    assert read_recipe(recipe_yaml(recipe)) == recipe


def test_what_an_expert_lacks_is_not_written_so_that_digests_are_as_before():
    recipe = parse_recipe(_with(vary=[{"set": {"density": 0.5}}]))
    dumped = recipe.model_dump(mode="json", by_alias=True)
    assert set(dumped["experts"][0]) == {"name", "model", "weight"}
    assert set(dumped["vary"][0]) == {"layers", "tensors", "set", "weights"}


def test_parameters_of_experts_read_back_as_they_were():
    experts = [{"name": "x", "model": "m", "parameters": {"density": 0.5}}]
    vary = [{"experts": {"x": {"density": {"gradient": [0.2, 0.8]}}}}]
    recipe = parse_recipe(_with(experts=experts, vary=vary))
    assert recipe.experts[0].parameters == {"density": 0.5}
    assert recipe.vary[0].experts["x"]["density"].gradient == (0.2, 0.8)
    assert read_recipe(recipe_yaml(recipe)) == recipe


def test_an_expert_s_parameters_can_be_set_by_their_path():
    text = recipe_yaml(parse_recipe(GOOD))
    recipe = read_recipe(text, settings=["experts.0.parameters.density=0.3"])
    assert recipe.experts[0].parameters == {"density": 0.3}


def test_small_numbers_without_a_point_are_numbers():
    assert parse_document("a: 1e-3") == {"a": 1e-3}
    assert parse_document("a: -2E+5") == {"a": -2e5}


@pytest.mark.parametrize(
    ("written", "read"), [("010", "8"), ("1:30", "90"), ("-0_17", "-15"), ("1:30.5", "90.5")]
)
def test_numbers_that_are_others_than_they_look_are_refused(written, read):
    with pytest.raises(RecipeError, match=f"line 2: YAML reads {written} as {read}$"):
        parse_document(f"base: x\nseed: {written}\n")
    assert parse_document(f"seed: '{written}'") == {"seed": written}


def test_plain_numbers_are_read():
    text = "[0, -0, 10, 1_000, 0x1f, 0.5, .5, 0e0, 100.25]"
    assert parse_document(text) == [0, 0, 10, 1000, 31, 0.5, 0.5, 0.0, 100.25]


def test_a_key_given_twice_is_refused_with_its_line():
    with pytest.raises(RecipeError, match="line 3: the key 'seed'"):
        parse_document("base: x\nseed: 1\nseed: 2\n")


@pytest.mark.parametrize("text", ["a: [1", "a: b: c", "\t- x", "{", "a: !!python/object:os.system"])
def test_text_that_is_no_yaml_is_refused(text):
    with pytest.raises(RecipeError):
        parse_document(text)


def test_a_bomb_of_aliases_is_refused():
    bomb = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"
    with pytest.raises(RecipeError, match="aliases"):
        parse_document(bomb)


def test_deep_nesting_is_refused():
    with pytest.raises(RecipeError):
        parse_document("[" * 20_000)


TEXT = "base: b\nexperts: [{name: x, model: m}]\nmethod: ties\n"


def test_settings_are_laid_over_the_recipe():
    recipe = read_recipe(
        TEXT, settings=["method.density=0.5", "experts.0.weight=2", "seed=9"], output="/o"
    )
    assert recipe.method.parameters == {"density": 0.5}
    assert recipe.experts[0].weight == 2
    assert (recipe.seed, recipe.output) == (9, "/o")


def test_a_setting_below_a_starts_name_makes_it_a_mapping():
    text = TEXT.replace("method: ties", "method: {name: fda, start: tsvm}")
    recipe = read_recipe(text, settings=["method.start.scale=0.5"])
    assert recipe.method.parameters["start"] == {"name": "tsvm", "scale": 0.5}


@pytest.mark.parametrize(
    "setting", ["method.density", "=3", "a..b=1", "experts.7.weight=1", "base.x=1", "experts.x=1"]
)
def test_a_setting_that_leads_nowhere_is_refused(setting):
    with pytest.raises(RecipeError):
        read_recipe(TEXT, settings=[setting])


@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        ({"experts": {"news": "m/a"}}, "experts: input should be a list", "name: news"),
        ({"experts": ["m/a"]}, "experts.0: input should be a mapping of keys", "name: news"),
        ({"experts": [{"model": "m/a"}]}, "experts.0.name: field required", "name: news"),
        ({"experts": [{"name": False, "model": "m/a"}]}, "experts.0.name: input", "in quotes"),
        ({"dtype": "bfloat16"}, "dtype: input should be a mapping of keys", "output: bfloat16"),
        ({"shard_size": 10}, "shard_size: input should be greater", "table of the recipe"),
        ({"heads": "x"}, "heads: input should be 'keep' or 'drop'", "table of the recipe"),
        ({"vary": 3}, "vary: input should be a list", "fda methods"),
    ],
)
def test_a_complaint_speaks_of_documents_and_says_where_to_read_on(
    change: dict[str, object], message: str, hint: str
) -> None:
    """They named Python's types and sent everybody to `fda methods`, which knows no such key."""
    with pytest.raises(BadParameter) as caught:
        parse_recipe(_with(**change))
    assert caught.value.message.startswith(message)
    assert hint in caught.value.hint


def test_a_method_s_name_is_not_respelt_in_complaints() -> None:
    from_itself = parse_recipe(_with(method={"name": "fda", "start": "fda"}))
    with pytest.raises(BadParameter, match="FDA cannot start from itself"):
        resolve(from_itself.method)
