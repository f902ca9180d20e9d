"""Choose σ of the gaussian init: start from several, keep the best-aligned and go on from it.

`fda.md` §2 tries them on one layer; here every (layer, expert) tries for itself, so that it
hangs on nothing but its own inputs. The kept trial goes on as if it had been alone: the result
is, to the byte, that of `sigma` set to what was chosen.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

from torch import Tensor

from fda_core.anchors.config import SIGMAS, ConstructConfig
from fda_core.anchors.construct import Construction, Descent, OnStep, construct, pose
from fda_core.anchors.layer_task import LayerTask
from fda_core.errors import NonFinite


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One σ that was tried, the steps it had, and the best alignment within them."""

    sigma: float
    steps: int
    alignment: float


@dataclass(frozen=True, kw_only=True)
class Found:
    """The construction that was kept, the σ of its gaussian start, and every trial in order."""

    made: Construction
    sigma: float | None
    """None for another init."""
    trials: tuple[Trial, ...] = ()
    """Empty where σ was given."""

    @property
    def steps(self) -> int:
        """Return all steps taken, of the trials that were not kept, too."""
        dropped = sum(trial.steps for trial in self.trials if trial.sigma != self.sigma)
        return dropped + len(self.made.losses)


StartOf = Callable[[ConstructConfig], Tensor]
"""Draws the first anchors of settings whose `sigma` is a number."""


def construct_from(
    task: LayerTask, *, start_of: StartOf, config: ConstructConfig, on_step: OnStep
) -> Found | None:
    """Return what `construct` makes of a start drawn here, σ searched for where it is asked.

    None without a task vector. Raises as `construct`.
    """
    if config.sigma == "search":
        return search_sigma(task, start_of=start_of, config=config, on_step=on_step)
    made = construct(task, start_of(config), config=config, on_step=on_step)
    sigma = config.sigma if config.init == "gaussian" else None
    return None if made is None else Found(made=made, sigma=sigma)


def search_sigma(
    task: LayerTask, *, start_of: StartOf, config: ConstructConfig, on_step: OnStep
) -> Found | None:
    """Return the best trial over `SIGMAS`, carried on to `config.steps`.

    None without a task vector. `on_step` counts the steps of all trials. Memory: that of
    `construct` and what the best trial so far holds at rest, five times the anchors (four of
    Muon). Raises as `construct`.
    """
    problem = pose(task, config=config)
    if problem is None:
        return None
    taken = count(1)

    def counted(_step: int, loss: float, alignment: float) -> None:
        on_step(next(taken), loss, alignment)

    kept: tuple[Descent, Trial] | None = None
    trials = []
    for sigma in SIGMAS:
        start = start_of(config.model_copy(update={"sigma": sigma}))
        descent = Descent(problem, start)
        trials.append(_try(descent, sigma, steps=config.trial_steps, on_step=counted))
        if kept is None or trials[-1].alignment > kept[1].alignment:
            kept = descent, trials[-1]
    assert kept is not None, "there are sigmas to try"
    descent, trial = kept
    descent.advance(config.steps, on_step=counted)
    return Found(made=descent.result(), sigma=trial.sigma, trials=tuple(trials))


def _try(descent: Descent, sigma: float, *, steps: int, on_step: OnStep) -> Trial:
    try:
        descent.advance(steps, on_step=on_step)
    except NonFinite as problem:
        message = f"sigma {sigma:g}: {problem.message}"
        raise NonFinite(message, hint=problem.hint, **problem.context) from problem
    return Trial(sigma=sigma, steps=descent.steps, alignment=descent.alignment)
