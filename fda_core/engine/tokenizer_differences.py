"""Whether experts' tokenizers give ids to the same tokens as the base's.

Rows of embeddings are merged by their number, and the output gets the base's tokenizer: where an
expert's gives an id to another token, two words' rows become one, and no shape shows it.
"""

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, Final

from fda_core.contract.plan import PinnedCheckpoint
from fda_core.contract.uris import join
from fda_core.storage.base import Storage

FILES: Final = ("tokenizer.json", "vocab.json", "vocab.txt")
"""Where ids are written down; the first that a base and an expert both have is compared."""
THREADS: Final = 4

Tokens = dict[int, str]


def tokenizer_warnings(
    base: PinnedCheckpoint, experts: Mapping[str, PinnedCheckpoint], storage: Storage
) -> list[str]:
    """Return a warning for every expert that gives ids of the base to other tokens.

    Reads nothing where the files' lengths and tags are equal, and holds `THREADS` files at most
    beside the base's. A file that is no tokenizer says nothing.
    """
    differing = {name: file for name, pins in experts.items() if (file := _differing(base, pins))}
    ours = {file: storage.read(join(base.uri, file)) for file in set(differing.values())}

    @cache
    def tokens(file: str) -> Tokens:
        return tokens_of(file, ours[file])

    def compared(name: str) -> str | None:
        file = differing[name]
        data = storage.read(join(experts[name].uri, file))
        if data == ours[file]:
            return None
        return _warning(name, file, tokens(file), tokens_of(file, data))

    with ThreadPoolExecutor(THREADS, "fda-tokenizers") as pool:
        return [warning for warning in pool.map(compared, differing) if warning]


def _warning(name: str, file: str, ours: Tokens, theirs: Tokens) -> str | None:
    moved = sorted(n for n in ours.keys() & theirs.keys() if ours[n] != theirs[n])
    if not moved:
        return None
    return (
        f"{name}: its {file} gives {len(moved)} ids to other tokens than the base's (first "
        f"{moved[0]}: {theirs[moved[0]]!r}, the base's {ours[moved[0]]!r}); rows of embeddings are "
        "merged by id, and the output gets the base's tokenizer"
    )


def tokens_of(file: str, data: bytes) -> Tokens:
    """Return a tokenizer file's tokens by their ids; none if it is not one."""
    try:
        text = data.decode("utf-8")
        if file == "vocab.txt":
            return dict(enumerate(text.splitlines()))
        document = json.loads(text)
        if file == "vocab.json":
            return _by_id(document)
        return _of_fast_tokenizer(document)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return {}


def _of_fast_tokenizer(document: Mapping[str, Any]) -> Tokens:
    """Return the tokens of a tokenizer.json: its model's, as words or pieces, and added ones."""
    vocabulary = document["model"]["vocab"]
    if isinstance(vocabulary, Mapping):
        found = _by_id(vocabulary)
    else:
        found = {number: str(piece) for number, (piece, _score) in enumerate(vocabulary)}
    return found | {int(each["id"]): str(each["content"]) for each in document["added_tokens"]}


def _by_id(vocabulary: Mapping[str, Any]) -> Tokens:
    return {number: token for token, number in vocabulary.items() if isinstance(number, int)}


def _differing(base: PinnedCheckpoint, expert: PinnedCheckpoint) -> str | None:
    """Return the file that both have, unless it is known to be the same."""
    file = next((f for f in FILES if f in base.sidecars and f in expert.sidecars), None)
    return None if file is None or base.sidecars[file] == expert.sidecars[file] else file
