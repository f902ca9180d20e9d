"""Resolve a recipe against real checkpoints and cut it into units.

Everything that headers and configs can show is refused here, before any work. Reads no
tensor and loads no torch.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from fda_core import __version__
from fda_core.anchors.config import SIGMAS, ConstructConfig
from fda_core.checkpoints.layers import Scope, families
from fda_core.contract.artifacts import Manifest
from fda_core.contract.plan import Plan, Unit
from fda_core.contract.recipe import MethodSpec, Recipe
from fda_core.contract.uris import inside, join, normalise, parent, scheme
from fda_core.engine import layout
from fda_core.engine.cut import cut_into_units
from fda_core.engine.inputs import Matched, open_inputs
from fda_core.engine.name_lengths import check_output_name
from fda_core.engine.publishing import finish_publishing, is_half_published, manifest_at
from fda_core.engine.tensors import plan_shards, plan_tensors
from fda_core.engine.vary import check_layer_count, idle_excludes, vary_tensors
from fda_core.errors import (
    BadParameter,
    NoExperts,
    OutOfDisk,
    OutputExists,
    OutputInsideInput,
    RecipeError,
    UnknownArchitecture,
)
from fda_core.methods.base import Method
from fda_core.methods.fda import Fda
from fda_core.methods.fda_presets import adapt_rate
from fda_core.methods.linear import normalized
from fda_core.methods.registry import method_of
from fda_core.storage.base import Storage

TEXT_TOKENS = 5
MOST_IMAGE_TOKENS = 257
UNKNOWN_IMAGE_TOKENS = 50


def make_plan(
    recipe: Recipe,
    storage: Storage,
    *,
    cwd: str,
    workspace: str | None = None,
    job_id: str | None = None,
) -> Plan:
    """Return the plan of a recipe, or raise the first thing that stands against it.

    Relative addresses are taken from `cwd`. An output that exists is refused unless this
    very job published it. Without a `job_id`, a digest of everything the result depends on
    is the job: the same recipe on the same files goes on where it stopped.
    """
    recipe = _with_addresses(recipe, cwd)
    method = method_of(recipe)
    check_needs(recipe, method)
    output = _checked_output(recipe)
    workspace = _checked_workspace(recipe, output, workspace, cwd=cwd)
    matched = open_inputs(recipe, storage)
    recipe = recipe.model_copy(update={"method": _resolved(method, matched)})
    method = method_of(recipe)
    tensors, settings = vary_tensors(plan_tensors(matched, recipe), recipe, matched)
    layers = 1 + max((t.layer for t in tensors if t.layer is not None), default=-1)
    check_layer_count(recipe, layers)
    is_fda = isinstance(method, Fda)
    matched.warnings += idle_excludes(method, tensors)
    shards, single = plan_shards(tensors, recipe, one_layer_each=is_fda)
    digest = _digest(recipe, output, matched)
    plan = Plan(
        job_id=job_id or digest,
        digest=digest,
        version=__version__,
        recipe=recipe,
        output=output,
        workspace=workspace,
        family=matched.base.family.name,
        layers=layers,
        width=_width(matched),
        base=matched.base.pinned,
        experts=tuple(matched.experts),
        tensors=tuple(tensors),
        settings=settings,
        shards=tuple(shards),
        single_file=single,
        units=(),
        notes=(*recipe.notes, *matched.notes),
        warnings=tuple(matched.warnings),
    )
    plan = plan.model_copy(update={"units": tuple(cut_into_units(plan, method, storage))})
    check_output_name(plan)
    _check_output_free(plan, storage)
    return plan


def _with_addresses(recipe: Recipe, cwd: str) -> Recipe:
    experts = tuple(
        e.model_copy(update={"model": normalise(e.model, cwd=cwd)}) for e in recipe.experts
    )
    output = normalise(recipe.output, cwd=cwd) if recipe.output else None
    return recipe.model_copy(
        update={"base": normalise(recipe.base, cwd=cwd), "experts": experts, "output": output}
    )


def check_needs(recipe: Recipe, method: Method) -> None:
    """Refuse a number of experts, or weights, that the method has no use for."""
    count = len(recipe.experts)
    if count < method.min_experts:
        raise NoExperts(
            f"{method.name} needs at least {method.min_experts} experts, the recipe has {count}",
            hint="Add experts or choose another method.",
        )
    if method.max_experts is not None and count > method.max_experts:
        raise BadParameter(
            f"{method.name} takes at most {method.max_experts} experts, the recipe has {count}",
            hint="Choose another method for so many experts.",
        )
    start = method.start if isinstance(method, Fda) else method
    if getattr(start and start.parameters, "normalize", False):
        normalized([expert.weight for expert in recipe.experts])
    if not method.uses_weights:
        for expert in recipe.experts:
            if expert.weight != 1.0:
                raise BadParameter(
                    f"expert {expert.name!r} has weight {expert.weight:g}, but {method.name} does "
                    "not weigh experts",
                    hint="Leave the weight out, or choose a method that weighs (`fda methods`).",
                    expert=expert.name,
                )


def _checked_output(recipe: Recipe) -> str:
    if recipe.output is None:
        raise RecipeError(
            "the recipe has no output", hint="Add output: FOLDER, or give --output.", key="output"
        )
    output = _real(recipe.output)
    if parent(output) == output:
        raise RecipeError(
            f"the output {output} is a whole disk or bucket",
            hint="Write to a folder of its own, such as s3://bucket/merged.",
            output=output,
        )
    for name, uri in [("base", recipe.base), *((e.name, e.model) for e in recipe.experts)]:
        if inside(output, _real(uri)) or inside(_real(uri), output):
            raise OutputInsideInput(
                f"the output {recipe.output} and the input {name} at {uri} lie in one another",
                hint="Write to a folder of its own.",
                output=recipe.output,
                input=uri,
            )
    return recipe.output


def _real(uri: str) -> str:
    """Return a local address with its links followed; others have none."""
    return os.path.realpath(uri) if scheme(uri) == "file" else uri


def _checked_workspace(recipe: Recipe, output: str, wanted: str | None, *, cwd: str) -> str:
    """Return the workspace; in the output it would stand in the way of publishing."""
    if not wanted:
        return layout.default_workspace(output)
    workspace = normalise(wanted, cwd=cwd)
    inputs = [("base", recipe.base), *((e.name, e.model) for e in recipe.experts)]
    for name, uri in [("output", output), *((f"input {name}", uri) for name, uri in inputs)]:
        if inside(_real(workspace), _real(uri)):
            raise OutputInsideInput(
                f"the workspace {workspace} lies inside the {name} at {uri}",
                hint="Give a folder of its own, or leave --workspace out.",
                workspace=workspace,
            )
    return workspace


def _resolved(method: Method, matched: Matched) -> MethodSpec:
    """Return the method with every default written out, those that hang on the model too."""
    parameters = method.parameters.model_dump(mode="json", by_alias=True)
    if isinstance(method, Fda):
        scope = method.parameters.scope
        _check_blocks(matched, scope)
        if method.start is not None:
            parameters["start"]["parameters"] = method.start.parameters.model_dump(
                mode="json", by_alias=True
            )
        construct = method.parameters.construction.settled()
        parameters["construct"] = construct.model_dump(mode="json")
        if parameters["construct"]["tokens"] is None and scope == "layer":
            parameters["construct"]["tokens"] = _tokens(matched)
        if parameters["adapt"]["learning_rate"] is None:
            parameters["adapt"]["learning_rate"] = _adapt_rate(method, matched)
        matched.notes += _search_notes(method.parameters.construction)
        if scope == "mlp":
            matched.notes.append(
                "scope mlp: of each layer the MLP is fitted; its other tensors get what the start "
                "makes of them"
            )
    return MethodSpec(name=method.name, parameters=parameters)


def _search_notes(config: ConstructConfig) -> list[str]:
    """Return what a search for σ does and takes."""
    if config.sigma != "search":
        return []
    more = config.steps_in_all - config.steps
    return [
        f"construct.sigma search: every layer and expert tries {len(SIGMAS)} sigmas "
        f"({', '.join(f'{sigma:g}' for sigma in SIGMAS)}) for {config.trial_steps} steps each and "
        f"goes on from the best; {more} steps more than {config.steps}, "
        f"{more / config.steps:.0%} more operations of construct"
    ]


def _check_blocks(matched: Matched, scope: Scope) -> None:
    """Refuse FDA where we have no layer function, or the weights do not fit it."""
    base = matched.base
    if not all(tower.block for tower in base.family.towers) or not base.family.towers:
        known = ", ".join(sorted(families()))
        raise UnknownArchitecture(
            f"FDA has no layer function for {base.family.name} models",
            hint="All other methods merge them, such as {name: swudi, transfer: full}. "
            f"FDA knows: {known}.",
            family=base.family.name,
        )
    for tower in base.family.towers:
        if scope == "mlp" and tower.mlp is None:
            raise BadParameter(
                f"method.scope is mlp, but the layers of {base.family.name} models have no MLP "
                "module of their own",
                hint="Use scope: layer.",
                key="method.scope",
                family=base.family.name,
            )
        bound = set()
        for canonical, name in base.names.items():
            place = base.family.place(canonical)
            if place and place[0] is tower:
                binding = tower.module_of(place[2])
                if binding is None:
                    raise UnknownArchitecture(
                        f"{name}: a {base.family.name} layer has no such tensor",
                        hint="FDA needs layers exactly as the transformers library has them.",
                        tensor=name,
                    )
                bound.add(binding)
        lacking = sorted(set(tower.bindings) - tower.optional - bound)
        if lacking:
            raise UnknownArchitecture(
                f"the base's layers have no {lacking[0]}, which {base.family.name} layers need",
                hint="Check that config.json and the weights belong together.",
                tensor=lacking[0],
            )


def _tokens(matched: Matched) -> int:
    """Return the default tokens per anchor: the published 5 for text, the model's for images."""
    tower = matched.base.family.towers[0]
    if tower.tokens == "text":
        return TEXT_TOKENS
    seen = tower.image_tokens(matched.base.pinned.config)
    return min(MOST_IMAGE_TOKENS, seen or UNKNOWN_IMAGE_TOKENS)


def _width(matched: Matched) -> int:
    if not matched.base.family.towers:
        return 0
    tower = matched.base.family.towers[0]
    if tower.found:
        return tower.found[1]
    width = tower.settings(matched.base.pinned.config).get(tower.width)
    if not isinstance(width, int) or isinstance(width, bool) or width < 1:
        raise UnknownArchitecture(
            f"base: config.json has {tower.width} = {width!r}", hint="It must be a width."
        )
    return width


def _adapt_rate(method: Fda, matched: Matched) -> float:
    return adapt_rate(
        method.parameters.preset,
        start=method.parameters.start.name,
        reads=matched.base.family.towers[0].tokens,
    )


def _digest(recipe: Recipe, output: str, matched: Matched) -> str:
    """Return a digest of everything the result depends on, and where it goes."""
    checkpoints = [matched.base.pinned, *(e.checkpoint for e in matched.experts)]
    facts = {
        "version": __version__,
        "recipe": recipe.model_dump(mode="json", exclude={"notes"}),
        "output": output,
        "inputs": [
            {name: pin.model_dump() for name, pin in sorted(c.files.items())} for c in checkpoints
        ],
        "configs": [c.config for c in checkpoints],
        "side_files": {name: pin.etag for name, pin in matched.base.pinned.sidecars.items()},
    }
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _check_output_free(plan: Plan, storage: Storage) -> None:
    # In this order: whoever else publishes this job may finish between the two questions.
    if not storage.exists(plan.output):
        _check_nothing_in_the_way(plan.output)
        return
    if is_half_published(plan, storage):
        return
    if not is_published(plan, storage):
        raise OutputExists(
            f"{plan.output} exists already; nothing is overwritten",
            hint="Remove it or choose another output. (An output of this very merge counts as "
            "finished only while all of its files are there.)",
            output=plan.output,
        )


def _check_nothing_in_the_way(output: str) -> None:
    """Refuse what is no file, and yet no folder can be moved to: links, and folders of folders."""
    if scheme(output) != "file":
        return
    path = Path(output)
    if path.is_symlink():
        raise OutputExists(
            f"{output} is a link to {_real(output)}; nothing is overwritten",
            hint="Give the folder it leads to as the output, or remove the link.",
            output=output,
        )
    if path.is_dir() and any(path.iterdir()):
        raise OutputExists(
            f"{output} holds empty folders; nothing is overwritten",
            hint="Remove it or choose another output.",
            output=output,
        )


def is_published(plan: Plan, storage: Storage) -> bool:
    """Say whether the output is there and this very job made it."""
    found = manifest_at(plan.output, storage)
    if found is None or found.job_id != plan.job_id:
        return False
    return _is_whole(plan.output, found, storage)


def finish_if_published(plan: Plan, storage: Storage) -> bool:
    """Say whether the output is published; if so, do what its publisher may not have done."""
    if not is_published(plan, storage):
        return False
    finish_publishing(plan, storage)
    return True


def _is_whole(output: str, manifest: Manifest, storage: Storage) -> bool:
    """Say whether every file of an output is there with its length; `fda verify` reads them."""
    there = {info.uri: info.size_bytes for info in storage.list(output)}
    return all(
        there.get(join(output, file.path)) == file.size_bytes for file in manifest.outputs.values()
    )


def check_can_write(plan: Plan, storage: Storage, *, done: Collection[str]) -> None:
    """Check the space left, in the workspace and beside the output, for what is not done yet.

    What goes to one disk is counted together. Then write probes there.
    """
    needed: Counter[str] = Counter()
    for unit in plan.units:
        if not unit.cached and unit.id not in done:
            needed[_written_to(plan, unit)] += unit.write_bytes
    on_disk: Counter[str] = Counter()
    for place, count in needed.items():
        left = storage.free_space(place)
        if left is None:
            continue
        on_disk[left.disk] += count
        if left.free_bytes < on_disk[left.disk]:
            raise OutOfDisk(
                f"{place}: the merge writes {on_disk[left.disk]} bytes, {left.free_bytes} are free",
                hint="Free space, or put the output on another disk.",
                needed_bytes=on_disk[left.disk],
                free_bytes=left.free_bytes,
            )
    for probe in layout.probes(plan):
        storage.put(probe, b"may I write here?\n")
        storage.delete(probe)


def _written_to(plan: Plan, unit: Unit) -> str:
    """Return whose disk a unit writes to: final shards are beside the output from the start."""
    final = unit.kind == "publish" or (unit.kind == "merge" and not plan.single_file)
    return plan.output if final else plan.workspace
