"""LoRA adapters: made by the peft library on tiny models, or by hand in its layout."""

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fda_core.contract.plan import Plan
from fda_core.contract.recipe import Recipe
from fda_core.engine.context import UnitContext
from fda_core.engine.device import fast_float32, float32_kernel
from fda_core.engine.journal import Journal
from fda_core.engine.layer_tensors import Inputs
from fda_core.engine.plan import make_plan
from fda_core.methods.registry import resolve
from fda_core.storage.base import Storage
from fda_core.storage.resolve import storages
from tests.support.models import build_model, save_model

WRAPPING = "base_model.model."
CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PEFT_WARNINGS = (
    "`is_gradient_checkpointing` is deprecated",
    "Setting `save_embedding_layers` to `True`",
    r"Adapter 'default': \d+ LoRA tensor\(s\) have invalid shape: .*\.lora_B\.bias",
)
"""What the peft library says on the way that is no fault of ours."""


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """A base, an adapter on it, and what the peft library merges the two into."""

    base: Path
    adapter: Path
    merged: Path


def tune(root: Path, kind: str, *, name: str = "adapter", seed: int = 0, **settings: Any) -> Tuned:
    """Train an adapter, that is: move all its parameters at random; save it, and it merged."""
    found = Tuned(base=root / "base", adapter=root / name, merged=root / f"{name}-merged")
    if not found.base.exists():
        save_model(kind, found.base)
    numbers = torch.Generator().manual_seed(500 + seed)
    with warnings.catch_warnings():
        for message in PEFT_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        model = _wrapped(build_model(kind), found.base, settings)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.1 * torch.randn(parameter.shape, generator=numbers))
        model.save_pretrained(found.adapter)
        model.merge_and_unload().save_pretrained(found.merged)
    return found


def _wrapped(model: nn.Module, base: Path, settings: Mapping[str, Any]) -> Any:
    from peft import LoraConfig, get_peft_model

    model.name_or_path = str(base)
    return get_peft_model(model, LoraConfig(**settings))


def factors_of(
    modules: Mapping[str, tuple[int, int]], *, rank: int = 2, seed: int = 0
) -> dict[str, Tensor]:
    """Return random factors for modules given with their outputs and inputs."""
    numbers = torch.Generator().manual_seed(700 + seed)
    factors = {}
    for module, (outputs, inputs) in modules.items():
        factors[f"{module}.lora_A.weight"] = torch.randn(rank, inputs, generator=numbers)
        factors[f"{module}.lora_B.weight"] = 0.1 * torch.randn(outputs, rank, generator=numbers)
    return factors


def save_adapter(folder: Path, factors: Mapping[str, Tensor], **config: Any) -> Path:
    """Write an adapter by hand; names come without the wrapping, None removes a key."""
    folder.mkdir(parents=True)
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "bias": "none", **config}
    kept = {key: value for key, value in settings.items() if value is not None}
    (folder / CONFIG).write_text(json.dumps(kept))
    named = {WRAPPING + name: tensor.contiguous() for name, tensor in factors.items()}
    save_file(named, folder / WEIGHTS, metadata={"format": "pt"})
    return folder


def change_config(folder: Path, **changes: Any) -> None:
    """Rewrite keys of an adapter's config; None removes one."""
    before = json.loads((folder / CONFIG).read_text())
    after = {key: value for key, value in {**before, **changes}.items() if value is not None}
    (folder / CONFIG).write_text(json.dumps(after))


def change_weights(folder: Path, change: Mapping[str, Tensor | None]) -> None:
    """Replace, add or (None) remove tensors of an adapter, by their wrapped names."""
    tensors: dict[str, Tensor | None] = {**load_file(folder / WEIGHTS), **change}
    save_file({n: t for n, t in tensors.items() if t is not None}, folder / WEIGHTS)


def plan_of(base: Path, *experts: Path, storage: Storage | None = None, **recipe: Any) -> Plan:
    """Return the plan of a linear merge of these experts."""
    document = {
        "base": str(base),
        "experts": [{"name": path.name, "model": str(path)} for path in experts],
        "method": {"name": "linear"},
        "output": str(base.parent / "output"),
        **recipe,
    }
    return make_plan(
        Recipe.model_validate(document), storage or storages(), cwd=str(base.parent), workspace=None
    )


def context_of(plan: Plan, *, storage: Storage | None = None) -> UnitContext:
    """Return a context in which a plan's inputs can be read."""
    storage = storage or storages()
    return UnitContext(
        plan=plan,
        unit=plan.units[0],
        method=resolve(plan.recipe.method),
        storage=storage,
        journal=Journal(plan, storage),
        device=torch.device("cpu"),
        device_name="cpu",
        emit=lambda _event: None,
        is_cancelled=lambda: False,
    )


def materialised(plan: Plan, expert: str) -> dict[str, Tensor]:
    """Return every tensor that an expert shares with the base, as a unit would get it."""
    inputs = Inputs(context_of(plan))
    names = next(e.names for e in plan.experts if e.name == expert)
    with fast_float32(float32_kernel()):
        return {name: inputs.expert(name, expert, inputs.base(name)) for name in names}
