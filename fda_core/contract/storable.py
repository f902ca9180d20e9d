"""What neither databases nor logs keep."""


def has_nul(text: str) -> bool:
    """Say whether a JSON text has a NUL character, not just the six that would stand for one."""
    return "\\u0000" in text.replace("\\\\", "")
