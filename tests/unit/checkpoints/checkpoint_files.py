"""Weight files made by hand, byte by byte, so that they can be wrong."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def raw_file(
    header: bytes | dict[str, Any], data: bytes = b"", *, length: int | None = None
) -> bytes:
    """Return a file with this header, right or wrong."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def tensor(
    begin: Any = 0, end: Any = 4, *, dtype: Any = "F32", shape: Any = (1,), **more: Any
) -> dict[str, Any]:
    """Return one header entry."""
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end], **more}


def good_file(*names: str) -> bytes:
    """Return a sound file with one float32 number per name."""
    header = {name: tensor(4 * at, 4 * at + 4) for at, name in enumerate(names)}
    return raw_file(header, bytes(range(4 * len(names))))


def write(folder: Path, files: Mapping[str, bytes | dict[str, Any]]) -> str:
    """Write files below a folder and return its address; a mapping is written as JSON."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return str(folder)
