"""Time one step of construction against the naive reference, interleaved on the same layer.

The naive reference is what one writes first: torch as it comes, float32, a graph of the
gradient, torch's cosine per tensor, `backward()`, which also fills the gradients of both
models' parameters. Ours runs with and without the float32 kernel the engine picks.

    python -m tests.bench.construction [--threads 1] [--rounds 15]
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from fda_core.anchors.config import ConstructConfig
from fda_core.anchors.construct import construct
from fda_core.anchors.layer_task import LayerTask
from fda_core.blocks.block import build_block
from fda_core.checkpoints.layers import Tower, families
from fda_core.engine.device import describe_device, fast_float32, float32_kernel

LAYERS = {
    "BERT 256, 64 × 5 (the demo's)": ("bert", 256, 4, 512, 64, 5),
    "BERT 384, 64 × 5": ("bert", 384, 12, 1536, 64, 5),
    "ViT 384, 64 × 5 (the vision suite's)": ("vit", 384, 6, 1536, 64, 5),
    "ViT 384, 64 × 17": ("vit", 384, 6, 1536, 64, 17),
    "RoBERTa-base 768, 64 × 5": ("bert", 768, 12, 3072, 64, 5),
}
STEPS = 2


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    kernel = float32_kernel()
    print(
        f"{describe_device(torch.device('cpu'))}, torch {torch.__version__}, "
        f"{options.threads} thread(s); engine's float32 kernel: {kernel}; medians of "
        f"{options.rounds} interleaved rounds\n"
    )
    print(f"{'layer':<32}{'naive':>10}{'ours, same kernel':>20}{'ours':>10}{'ratios':>16}")
    for name, shape in LAYERS.items():
        times = _measure(*shape, rounds=options.rounds, kernel=kernel)
        naive, same, ours = (statistics.median(times[key]) * 1e3 for key in times)
        print(
            f"{name:<32}{naive:>7.1f} ms{same:>17.1f} ms{ours:>7.1f} ms"
            f"{same / naive:>9.2f} {ours / naive:>6.2f}"
        )


def _measure(
    kind: str, width: int, heads: int, inner: int, n: int, t: int, *, rounds: int, kernel: str
) -> dict[str, list[float]]:
    tower = families()[kind].towers[0]
    config = {
        "hidden_size": width,
        "num_attention_heads": heads,
        "intermediate_size": inner,
        "num_hidden_layers": 1,
    }
    base_module = _module(tower, config)
    expert_module = copy.deepcopy(base_module)
    numbers = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in expert_module.parameters():
            parameter.add_(0.002 * torch.randn(parameter.shape, generator=numbers))
    base, expert = (_named(tower, module) for module in (base_module, expert_module))
    block = build_block(tower, config, {part: tuple(x.shape) for part, x in base.items()})
    task = LayerTask(block=block, base=base, expert=expert, width=width)
    start = 0.5 * torch.randn(n, t, width, generator=numbers)

    runs: dict[str, Callable[[], object]] = {
        "naive": lambda: _naive(base_module, expert_module, start),
        "same": lambda: _ours(task, start, "default"),
        "ours": lambda: _ours(task, start, kernel),
    }
    times: dict[str, list[float]] = {key: [] for key in runs}
    for round_ in range(rounds + 2):
        for key, run in runs.items():
            began = time.perf_counter()
            run()
            if round_ >= 2:
                times[key].append((time.perf_counter() - began) / STEPS)
    return times


def _module(tower: Tower, config: dict[str, int]) -> nn.Module:
    from fda_core.blocks.modules import build_module

    torch.manual_seed(0)
    module = build_module(tower.block or "", config).module
    module.to_empty(device="cpu").requires_grad_(True)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.03 + (parameter.ndim == 1))
    return module


def _named(tower: Tower, module: nn.Module) -> dict[str, Tensor]:
    disk = {memory: name for name, memory in tower.bindings.items()}
    return {
        f"{disk[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}": value.detach().clone()
        for name, value in module.named_parameters()
    }


def _ours(task: LayerTask, start: Tensor, kernel: str) -> None:
    config = ConstructConfig(anchors=len(start), steps=STEPS, optimiser="adamw")
    with fast_float32(kernel):
        construct(task, start, config=config, on_step=lambda *_: None)


def _naive(base: nn.Module, expert: nn.Module, start: Tensor) -> None:
    x = start.clone().requires_grad_()
    parameters = list(base.parameters())
    deltas = [(e - b).detach() for b, e in zip(parameters, expert.parameters(), strict=True)]
    optimiser = torch.optim.AdamW([x], lr=1e-2)
    for _ in range(STEPS):
        optimiser.zero_grad()
        for module in (base, expert):
            module.zero_grad()
        similarity = cosine_similarity(_out(base, x).flatten(1), _out(expert, x).flatten(1)).mean()
        gradients = torch.autograd.grad(similarity, parameters, create_graph=True)
        loss = sum(
            1 - cosine_similarity(g.flatten(), d.flatten(), dim=0)
            for g, d in zip(gradients, deltas, strict=True)
        )
        loss.backward()
        optimiser.step()


def _out(module: nn.Module, x: Tensor) -> Tensor:
    output = module(x, None)
    return output[0] if isinstance(output, tuple) else output


if __name__ == "__main__":
    main()
