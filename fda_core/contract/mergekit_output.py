"""What a mergekit document says of its output: dtypes, tokenizer, chat template."""

from collections.abc import Mapping
from typing import Any

from fda_core.contract.mergekit_models import check_keys, model_path
from fda_core.errors import BadParameter, RecipeError

FLOATS = ("float32", "float64", "float16", "bfloat16")


def read_dtype(document: Mapping[str, Any]) -> tuple[dict[str, str], list[str]]:
    """Return our dtypes, and remarks. mergekit's dtype is for computing and writing."""
    compute, output = (_float(document, key) for key in ("dtype", "out_dtype"))
    remarks = []
    if compute in ("float16", "bfloat16"):
        remarks.append(f"computed in float32, where mergekit would compute in {compute}")
    return {
        "compute": "float64" if compute == "float64" else "float32",
        "output": output or compute or "as_base",
    }, remarks


def _float(document: Mapping[str, Any], key: str) -> str | None:
    value = document.get(key)
    if value is None:
        return None
    name = str(value).removeprefix("torch.")
    if name not in FLOATS:
        raise BadParameter(
            f"{key}: {value!r} is no dtype to merge in",
            hint=f"One of {', '.join(FLOATS)}.",
            key=key,
        )
    return name


def read_tokenizer(document: Mapping[str, Any], *, base: str) -> tuple[dict[str, str], list[str]]:
    """Return what is to be done with vocabularies, and remarks.

    The output gets the base's tokenizer; any other, and any change to it, is refused.
    """
    if document.get("chat_template") is not None:
        raise RecipeError(
            "chat_template: the output gets the base's tokenizer files as they are",
            hint="Leave it out and edit the output's tokenizer_config.json.",
            key="chat_template",
        )
    source, where = document.get("tokenizer_source"), "tokenizer_source"
    tokenizer = document.get("tokenizer")
    if tokenizer is not None:
        if not isinstance(tokenizer, Mapping):
            raise BadParameter(f"tokenizer: {tokenizer!r} is no mapping", key="tokenizer")
        check_keys(tokenizer, {"source"}, "tokenizer")
        source, where = tokenizer.get("source", "union"), "tokenizer.source"
    if source is None:
        return {}, []
    if source == "union" or (source != "base" and model_path(source, where) != base):
        raise BadParameter(
            f"{where}: {source!r}: vocabularies are not joined or rearranged here",
            hint="Leave it out, or say base, if the base's tokens have the same numbers in all "
            "models.",
            key=where,
        )
    return {"vocabulary": "base"}, [
        f"{where}: rows of vocabularies are matched by number; the base's tokens must have the "
        "same numbers in all models"
    ]
