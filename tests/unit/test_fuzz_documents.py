"""Documents of any kind end in success or one of our errors: nothing else, and no hang.

Sound documents are broken by what knows their structure; bytes and YAML text are broken
blindly. Headers of weight files have their own in `checkpoints/test_header_parsing.py`.
"""

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fda_core.checkpoints.weight_files import INDEX, parse_index
from fda_core.contract.plan import Plan
from fda_core.engine.plan import make_plan
from fda_core.engine.recipes import read_recipe, recipe_yaml
from fda_core.errors import FdaError, InternalError
from fda_core.methods.registry import METHODS, method_class
from fda_core.storage.local import LocalStorage
from tests.support.adapters import factors_of, save_adapter
from tests.support.checkpoints import RecipeFile, base_model, expert_of
from tests.support.mutations import broken, to_json

MOST_SECONDS = 60
"""For all examples of a test together; each takes milliseconds."""

FUZZED = settings(
    max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)


@pytest.fixture(autouse=True)
def _no_hang() -> Iterator[None]:
    def hung(*_: object) -> None:
        raise TimeoutError(f"still busy after {MOST_SECONDS} s")

    before = signal.signal(signal.SIGALRM, hung)
    signal.alarm(MOST_SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def refused_or_fine(work: Callable[[], object]) -> None:
    """Do it; an error must be ours, not our fault, and fit for a log."""
    problem = _error_of(work)
    if problem is not None:
        assert not isinstance(problem, InternalError)
        assert len(problem.message) < 20_000
        json.dumps(problem.as_dict(), ensure_ascii=False).encode()


def _error_of(work: Callable[[], object]) -> FdaError | None:
    try:
        work()
    except FdaError as problem:
        return problem
    return None


MODULES = {"bert.encoder.layer.0.attention.self.query": (16, 16)}
ADAPTER = {
    "peft_type": "LORA",
    "r": 2,
    "lora_alpha": 4,
    "bias": "none",
    "use_rslora": False,
    "init_lora_weights": True,
    "target_modules": ["query"],
    "rank_pattern": {"query": 2},
    "alpha_pattern": {"layer.0.attention.self.query": 4.0},
    "base_model_name_or_path": "base",
    "task_type": "SEQ_CLS",
}
FDA = {
    "name": "fda",
    "start": {"name": "ties", "density": 0.3},
    "construct": {"anchors": 4, "tokens": 3, "steps": 2, "init": "gaussian", "sigma": 0.1},
    "adapt": {"epochs": 2, "learning_rate": 0.01, "batch": 8},
}
VARY = [
    {"layers": [0, 1], "tensors": "*query*", "set": {"density": {"gradient": [0.2, 0.8]}}},
    {"weights": {"a": 0.5, "c": {"gradient": [0, 1]}}},
    {"experts": {"a": {"density": 0.5}, "c": {"density": {"gradient": [0.1, 1]}}}},
]
MERGEKIT = {
    "merge_method": "ties",
    "base_model": "base",
    "models": [
        {"model": "a", "parameters": {"weight": 0.5, "density": [0.5, 0.7]}},
        {"model": "c", "parameters": {"weight": [{"filter": "mlp", "value": 0.3}, {"value": 1}]}},
    ],
    "parameters": {"normalize": True, "int8_mask": False, "density": [0.2, 0.8]},
    "dtype": "bfloat16",
    "tokenizer_source": "base",
}
SLICES = {
    "merge_method": "slerp",
    "base_model": "a",
    "slices": [
        {"sources": [{"model": m, "layer_range": [0, 2]} for m in ("a", "c")]},
    ],
    "parameters": {"t": [{"filter": "self_attn", "value": [0, 0.5, 1]}, {"value": 0.5}]},
    "dtype": "float16",
}


class World:
    """A sharded base, experts `a` and `c`, an adapter `b`; nothing is ever written to them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        base = base_model()
        base.save(root / "base", shards=2)
        for seed, name in enumerate("ac", start=1):
            expert_of(base, seed).save(root / name)
        save_adapter(root / "b", factors_of(MODULES), **ADAPTER)
        experts = {name: root / name for name in "abc"}
        self.recipe = RecipeFile(
            base=root / "base", experts=experts, output=root / "out", method="ties"
        ).document()

    def plan(self, text: str) -> None:
        """Plan a recipe's text and carry the plan over a process border."""
        recipe = read_recipe(text)
        yaml.safe_load(recipe_yaml(recipe))
        plan = make_plan(recipe, LocalStorage([str(self.root)]), cwd=str(self.root))
        Plan.model_validate_json(plan.model_dump_json(by_alias=True))

    def plan_with(self, file: str, text: str) -> None:
        """Plan with another text in a file."""
        path = self.root / file
        before = path.read_bytes()
        try:
            path.write_text(text, encoding="utf-8")
            self.plan(json.dumps(self.recipe))
        finally:
            path.write_bytes(before)

    def document(self, file: str) -> Any:
        return json.loads((self.root / file).read_text())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("fuzz"))


def test_the_documents_to_break_are_sound(world: World) -> None:
    world.plan(json.dumps(world.recipe))
    world.plan(json.dumps({**world.recipe, "method": FDA}))
    experts = [e for e in world.recipe["experts"] if e["name"] != "b"]
    world.plan(json.dumps({**world.recipe, "experts": experts, "vary": VARY}))
    for document in (MERGEKIT, SLICES):
        read_recipe(json.dumps(document), output="out")


@pytest.mark.parametrize("file", ["base/config.json", "a/config.json", "b/adapter_config.json"])
@FUZZED
@given(st.data())
def test_configs(world: World, file: str, data: st.DataObject) -> None:
    text = to_json(data.draw(broken(world.document(file))))
    refused_or_fine(lambda: world.plan_with(file, text))


@FUZZED
@given(st.data())
def test_indexes(world: World, data: st.DataObject) -> None:
    text = to_json(data.draw(broken(world.document(f"base/{INDEX}"))))
    refused_or_fine(lambda: parse_index(text.encode(), label="index"))
    refused_or_fine(lambda: world.plan_with(f"base/{INDEX}", text))


@pytest.mark.parametrize("method", ["ties", "fda", "vary"])
@FUZZED
@given(st.data())
def test_recipes(world: World, method: str, data: st.DataObject) -> None:
    sound = {**world.recipe, "seed": 1, "dtype": {"compute": "float32", "output": "bfloat16"}}
    if method == "fda":
        sound["method"] = FDA
    if method == "vary":
        sound["vary"] = VARY
        sound["experts"][0]["parameters"] = {"density": 0.4}
    text = to_json(data.draw(broken(sound)))
    refused_or_fine(lambda: world.plan(text))


@pytest.mark.parametrize("document", [MERGEKIT, SLICES], ids=["models", "slices"])
@FUZZED
@given(st.data())
def test_mergekit_documents(world: World, document: Any, data: st.DataObject) -> None:
    text = to_json(data.draw(broken(document)))
    refused_or_fine(lambda: read_recipe(text, output="out"))
    refused_or_fine(lambda: world.plan(text))


@pytest.mark.parametrize("name", METHODS)
@settings(FUZZED, max_examples=15)
@given(st.data())
def test_parameters_of_every_method(world: World, name: str, data: st.DataObject) -> None:
    sound = {"name": name, **_defaults(name)}
    text = to_json({**world.recipe, "method": data.draw(broken(sound))})
    refused_or_fine(lambda: world.plan(text))


def _defaults(name: str) -> dict[str, Any]:
    found: dict[str, Any] = method_class(name).Parameters().model_dump(mode="json", by_alias=True)
    return found


YAML_PIECES = st.sampled_from(
    [
        *(
            "base: ",
            "experts:\n",
            "- ",
            "{",
            "}",
            "[",
            "]",
            ": ",
            ", ",
            "\n",
            "  ",
            "\t",
            "#",
            "---",
        ),
        *(
            "&x ",
            "*x",
            "<<: ",
            "!!python/object/apply:os.system ",
            "!!binary ",
            "!!set ",
            "!!omap ",
        ),
        *(
            "!!timestamp ",
            "!!float ",
            "!!int ",
            "!!null ",
            "!!bool ",
            "!!map ",
            "!!seq ",
            "!x ",
            "?",
        ),
        *(
            "2020-01-01",
            "9999-99-99",
            "12:30:45",
            "0o777",
            "0x1f",
            "1_000",
            ".inf",
            ".nan",
            "1e400",
        ),
        *(
            "|\n",
            ">\n",
            "'",
            '"',
            "\\",
            "%YAML 9.9\n",
            "\0",
            "\x85",
            "\ufeff",
            "yes",
            "~",
            "=",
            "é",
        ),
    ]
)


@settings(FUZZED, max_examples=300)
@given(st.lists(YAML_PIECES, max_size=25).map("".join) | st.text(max_size=60))
def test_any_yaml(text: str) -> None:
    refused_or_fine(lambda: read_recipe(text))
    refused_or_fine(lambda: read_recipe("base: a\nmethod: linear\nexperts: []\n" + text))


@settings(FUZZED, max_examples=100)
@given(st.text(max_size=20), YAML_PIECES)
def test_any_setting(path: str, value: str) -> None:
    sound = json.dumps({"base": "a", "experts": [{"name": "x", "model": "x"}], "method": FDA})
    refused_or_fine(lambda: read_recipe(sound, settings=[f"{path}={value}"]))
    refused_or_fine(lambda: read_recipe(sound, settings=[f"method.construct.{value}={path}"]))
