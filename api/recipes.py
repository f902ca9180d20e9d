"""Check a recipe as it comes from a caller, before anything is read for it."""

from collections.abc import Iterator, Mapping, Sequence

from fda_core.contract.recipe import Recipe
from fda_core.contract.rest.jobs import Recipe as SentRecipe
from fda_core.contract.storable import stored_text
from fda_core.contract.uris import inside, normalise, scheme
from fda_core.engine.plan import check_needs
from fda_core.engine.recipes import parse_document, recipe_of
from fda_core.errors import BadParameter, FdaError, Forbidden, RecipeError
from fda_core.methods.registry import method_of

MOST_CHARACTERS = 256 * 1024
"""YAML takes a second per 200 kB, and a recipe with thousands of experts has less."""


def read_recipe(sent: SentRecipe, *, roots: Sequence[str], workspace: str) -> Recipe:
    """Return a checked recipe with addresses in their normal form, all below `roots`.

    None may lie in the workspace, which is the service's own. Reads nothing. Raises a
    `RecipeError` that names the key, or `Forbidden`.
    """
    _check_text(sent)
    recipe = recipe_of(parse_document(sent) if isinstance(sent, str) else sent)
    _check_text(recipe.model_dump(mode="json", by_alias=True))
    method = method_of(recipe)
    check_needs(recipe, method)
    if recipe.output is None:
        raise RecipeError(
            "the recipe has no output", hint="Add output: s3://bucket/folder.", key="output"
        )
    places = dict(_addresses(recipe, roots))
    _check_not_ours(places, workspace)
    experts = tuple(
        expert.model_copy(update={"model": places[f"experts.{index}.model"]})
        for index, expert in enumerate(recipe.experts)
    )
    return recipe.model_copy(
        update={"base": places["base"], "output": places["output"], "experts": experts}
    )


def _check_text(document: object) -> None:
    """Refuse what neither database nor log can hold, and whole novels."""
    try:
        text = stored_text(document)
    except ValueError as problem:
        raise RecipeError(
            f"the recipe cannot be kept: {problem}",
            hint="Leave out NaN, infinity, NUL and halves of surrogate pairs.",
        ) from None
    if len(text) > MOST_CHARACTERS:
        raise RecipeError(
            f"the recipe has {len(text)} characters; at most {MOST_CHARACTERS} are read",
            hint="Check that this is a recipe.",
        )


def _check_not_ours(places: Mapping[str, str], workspace: str) -> None:
    for key, address in places.items():
        if inside(address, workspace):
            raise Forbidden(
                f"{key}: {address} lies in the service's own workspace",
                hint="Choose a folder outside of it.",
                key=key,
                uri=address,
            )


def _addresses(recipe: Recipe, roots: Sequence[str]) -> Iterator[tuple[str, str]]:
    yield "base", _allowed("base", recipe.base, roots)
    for index, expert in enumerate(recipe.experts):
        key = f"experts.{index}.model"
        yield key, _allowed(key, expert.model, roots)
    yield "output", _allowed("output", recipe.output or "", roots)


def _allowed(key: str, uri: str, roots: Sequence[str]) -> str:
    """Return an address in its normal form, if it is whole and below a root."""
    path = uri.removeprefix("file://")
    if scheme(uri) == "file" and not path.startswith(("/", "~")):
        raise BadParameter(
            f"{key}: {uri!r} is a relative path, and this service has no folder of yours",
            hint="Give an absolute path or s3://bucket/prefix.",
            key=key,
        )
    try:
        address = normalise(uri, cwd="/")
    except FdaError as problem:
        raise type(problem)(
            f"{key}: {problem.message}", hint=problem.hint, **problem.context, key=key
        ) from None
    if not any(inside(address, root) for root in roots):
        raise Forbidden(
            f"{key}: {uri} is outside the storage that may be used here",
            hint=f"Allowed: {', '.join(roots)}." if roots else "No storage is allowed: FDA_ROOTS.",
            key=key,
            uri=uri,
        )
    return address
