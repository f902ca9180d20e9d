"""One byte range of a file, RFC 9110: what was asked for, or that it cannot be had."""

import re

from api.errors import BadRange

_RANGE = re.compile(r"^bytes=(\d{0,18})-(\d{0,18})$")


def read_range(header: str | None, size_bytes: int) -> tuple[int, int] | None:
    """Return the bytes [start, end) to send; None for all of them.

    Several ranges, other units and nonsense are ignored, as the standard allows. A range that
    begins behind the end is `BadRange`.
    """
    match = _RANGE.match((header or "").replace(" ", ""))
    if not match or not (match[1] or match[2]):
        return None
    if not match[1]:
        start, end = max(0, size_bytes - int(match[2])), size_bytes
        usable = int(match[2]) > 0 and size_bytes > 0
    else:
        start = int(match[1])
        end = min(size_bytes, int(match[2]) + 1 if match[2] else size_bytes)
        if match[2] and int(match[2]) < start:
            return None
        usable = start < size_bytes
    if not usable:
        raise BadRange(
            f"the file has {size_bytes} bytes; none of them is in {header!r}",
            hint="Ask for bytes that it has.",
            size_bytes=size_bytes,
        )
    return start, end
