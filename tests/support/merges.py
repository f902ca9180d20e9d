"""A base and two experts built by the transformers library, and merges of them."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from fda_core.contract.plan import Plan
from fda_core.engine.plan import make_plan
from fda_core.engine.recipes import read_recipe
from fda_core.storage.resolve import storages
from tests.support.checkpoints import RecipeFile, read_tensors
from tests.support.command import succeed
from tests.support.models import build_model, save_expert

HERE = ("--workers", 1, "--device", "cpu")


def fda_method(**more: Any) -> dict[str, Any]:
    construct = {"anchors": 6, "steps": 8, **more.pop("construct", {})}
    adapt = {"epochs": 3, "learning_rate": 1e-3}
    return {"name": "fda", "construct": construct, "adapt": adapt, **more}


class Models:
    """A base and two experts of one kind, saved by the library."""

    def __init__(self, root: Path, kind: str) -> None:
        self.root = root
        self.base = build_model(kind)
        self.base.save_pretrained(root / "base")
        for seed, name in enumerate("ab"):
            save_expert(self.base, root / name, seed=seed)

    def recipe(self, method: Any, output: str = "out", **more: Any) -> Path:
        recipe = RecipeFile(
            base=self.root / "base",
            experts={name: self.root / name for name in "ab"},
            output=self.root / output,
            method=method,
            more=more,
        )
        return recipe.write(self.root / f"{output}.yaml")

    def merge(self, method: Any, output: str = "out", **more: Any) -> dict[str, Tensor]:
        succeed("merge", self.recipe(method, output, **more), *HERE)
        return read_tensors(self.root / output)

    def plan(self, method: Any, **more: Any) -> Plan:
        recipe = read_recipe(self.recipe(method, **more).read_text())
        return make_plan(recipe, storages(), cwd=str(self.root))

    def tensors(self, name: str) -> dict[str, Tensor]:
        return read_tensors(self.root / name)

    def document(self, name: str, output: str = "out") -> Any:
        return json.loads((self.root / output / f"{name}.json").read_text())

    def change(self, name: str, changed: dict[str, Tensor], *, without: str = "") -> None:
        """Rewrite a checkpoint's weights with some tensors added, replaced or removed."""
        file = self.root / name / "model.safetensors"
        kept = {k: v for k, v in load_file(file).items() if not without or without not in k}
        save_file({**kept, **changed}, file, metadata={"format": "pt"})

    def change_config(self, name: str, **changes: Any) -> None:
        file = self.root / name / "config.json"
        config = {**json.loads(file.read_text()), **changes}
        file.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
