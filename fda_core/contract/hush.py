"""Take what must stay secret out of text that people will read: logs above all."""

import re

_LOGIN = re.compile(r"(?<=://)[^\s/@\"']*:[^\s@\"']+(?=@)")
_SIGNED = re.compile(
    r"(?<=[?&])(X-Amz-(?:Signature|Credential|Security-Token)|Signature|AWSAccessKeyId|sig"
    r"|signature|token)=[^&\s\"']+",
    re.IGNORECASE,
)
_BEARER = re.compile(r"(?<=Bearer )[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE)
HIDDEN = "***"


def hushed(text: str) -> str:
    """Return text without the logins of addresses, signatures of signed ones, and bearer keys."""
    text = _LOGIN.sub(HIDDEN, text)
    text = _SIGNED.sub(rf"\1={HIDDEN}", text)
    return _BEARER.sub(HIDDEN, text)
