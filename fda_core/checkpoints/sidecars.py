"""Which side files of a checkpoint go along to the output: a rule by name and size.

A file goes along if it matches a pattern of `CARRIED`, none of `LEFT`, no part of its path is
hidden, and it is at most `MAX_SIDECAR_BYTES` long. Patterns are matched against the path
below the checkpoint, in lower case. Tokenizers, vocabularies, templates, processors,
generation settings, sentence-transformers' module files and licences go along. Weights in any
format, pickles, training state, logs, model cards, adapters, code and what we write ourselves
stay. `config.json` is no sidecar: publishing writes it from the plan.
"""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Final

from fda_core.storage.base import ObjectInfo

MAX_SIDECAR_BYTES: Final = 128 * 2**20

CARRIED: Final = (
    "*.json",
    "*.txt",
    "*.jinja",
    "*.model",
    "*.vocab",
    "*.bpe",
    "*.codes",
    "*.spm",
    "*.tiktoken",
    "license*",
    "licence*",
    "notice*",
    "copying*",
    "use_policy*",
)

CARRIED_BELOW: Final = (
    "additional_chat_templates/*.jinja",
    "[0-9]_*/config.json",
)
"""The few files in subfolders: further templates, sentence-transformers' modules."""

LEFT: Final = (
    "config.json",
    "*.index.json",
    "adapter_*",
    "readme*",
    "optimizer*",
    "scheduler*",
    "scaler*",
    "training_args*",
    "trainer_state*",
    "rng_state*",
    "*_results.*",
    "requirements*.txt",
    "*log.txt",
    "*.log.txt",
    "merge_*",
    "manifest.json",
)


def is_sidecar(path: str, *, size_bytes: int) -> bool:
    """Say whether the file at a path below the checkpoint goes along to the output."""
    if size_bytes > MAX_SIDECAR_BYTES or not path.isprintable():
        return False
    parts = path.lower().split("/")
    if any(part.startswith(".") for part in parts):
        return False
    if len(parts) > 1:
        return _matches(path.lower(), CARRIED_BELOW) and len(parts) == 2
    return _matches(parts[0], CARRIED) and not _matches(parts[0], LEFT)


def sidecars(listing: dict[str, ObjectInfo]) -> tuple[str, ...]:
    """Return the sidecars among a checkpoint's files, by their paths below it, sorted."""
    return tuple(
        path
        for path, info in sorted(listing.items())
        if is_sidecar(path, size_bytes=info.size_bytes)
    )


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
