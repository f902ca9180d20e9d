"""Where webhooks may go.

The host's name is resolved here, once, every address it has is checked, and the connection is
made to a checked address: a name that changes its mind between check and use (DNS rebinding)
has no second say.
"""

import ipaddress
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult, quote, urlsplit

from fda_core.errors import UnsafeAddress

Resolve = Callable[[str, int], Sequence[str]]
"""Returns the addresses of a host, or raises OSError."""

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

HTTPS_PORT, FIRST_FREE_PORT = 443, 1024
GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
SET_ASIDE = tuple(
    ipaddress.ip_network(network)
    for network in ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "3fff::/20")
)
"""For protocols and documents; not every Python's `is_global` knows them."""
NAT64 = ipaddress.ip_network("64:ff9b::/96")
METADATA = frozenset(
    ipaddress.ip_address(address)
    for address in ("169.254.169.254", "100.100.100.200", "168.63.129.16", "fd00:ec2::254")
)
"""Clouds' metadata services; one of them has an address that looks public."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A checked address of a webhook."""

    scheme: str
    host: str
    """ASCII, as it goes into Host and SNI."""
    port: int
    path: str
    """With the query."""

    @property
    def host_header(self) -> str:
        """Return what the Host header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = {"https": 443, "http": 80}[self.scheme]
        return host if self.port == default else f"{host}:{self.port}"


def resolve_host(host: str, port: int) -> Sequence[str]:
    """Return a host's addresses as the system finds them, each once."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def check_url(url: str, *, allow_private: bool) -> Target:
    """Return the parts of a webhook's address, or raise `UnsafeAddress`.

    Looks at the text alone; a host that is an address itself is checked too. With
    `allow_private` http, all ports and private addresses are taken.
    """
    if any(ord(letter) <= 32 or ord(letter) == 127 or letter == "\\" for letter in url):
        raise _refused(url, "has spaces, control characters or a backslash in it")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as problem:
        raise _refused(url, f"cannot be read ({problem})") from None
    if parts.scheme != "https" and not (allow_private and parts.scheme == "http"):
        raise _refused(url, "is not https")
    if parts.username is not None or parts.password is not None:
        raise _refused(url, "has a name or password in it", "Use the signature to tell us apart.")
    if parts.fragment:
        raise _refused(url, "has a fragment (#) in it")
    host = _host(url, parts)
    target = Target(
        scheme=parts.scheme,
        host=host,
        port=port if port is not None else {"https": 443, "http": 80}[parts.scheme],
        path=_ascii((parts.path or "/") + (f"?{parts.query}" if parts.query else "")),
    )
    if not allow_private:
        _check_port(url, target.port)
        literal = _address(host)
        if literal is not None:
            _check_public(url, literal)
        if host == "localhost" or host.endswith((".localhost", ".local", ".internal")):
            raise _refused(url, "names a host of a private network")
    return target


def addresses_of(target: Target, *, resolve: Resolve, allow_private: bool) -> Sequence[str]:
    """Return the addresses a target may be reached at: all of them are allowed, or none is.

    Raises `UnsafeAddress`, or OSError if the name is not known.
    """
    found = resolve(target.host, target.port)
    if not found:
        raise OSError(f"{target.host} has no address")
    if not allow_private:
        for text in found:
            address = _address(text)
            if address is None:
                raise _refused(target.host, f"resolves to {text!r}, which is no address")
            _check_public(target.host, address)
    return found


def is_public(address: IpAddress) -> bool:
    """Say whether an address is one of the open internet, whatever it is wrapped in."""
    inner = _wrapped(address)
    if inner is not None:
        return is_public(inner)
    if isinstance(address, ipaddress.IPv6Address) and address not in GLOBAL_UNICAST:
        return False
    return (
        address.is_global
        and not any(address in network for network in SET_ASIDE)
        and not address.is_multicast
        and not address.is_reserved
        and not address.is_unspecified
        and not address.is_loopback
        and not address.is_link_local
        and address not in METADATA
    )


def _wrapped(address: IpAddress) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address inside an IPv6 one: mapped, compatible, 6to4, Teredo or NAT64."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    compatible = int(address) >> 32 == 0 and int(address) > 1
    if address in NAT64 or compatible:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None


def _check_public(name: str, address: IpAddress) -> None:
    if not is_public(address):
        raise _refused(
            name,
            f"leads to {address}, which is not a public address",
            "Webhooks go to public addresses, unless FDA_WEBHOOK_ALLOW_PRIVATE is set.",
        )


def _check_port(url: str, port: int) -> None:
    if port != HTTPS_PORT and port < FIRST_FREE_PORT:
        raise _refused(
            url, f"has port {port}", f"Use {HTTPS_PORT} or one from {FIRST_FREE_PORT} on."
        )


def _host(url: str, parts: SplitResult) -> str:
    host = (parts.hostname or "").rstrip(".")
    if "%" in host:
        raise _refused(url, "has a zone or an escape in its host")
    try:
        ascii_host = host if ":" in host else host.encode("idna").decode("ascii").lower()
    except UnicodeError:
        ascii_host = ""
    if not ascii_host:
        raise _refused(url, "has no host")
    return ascii_host


def _ascii(path: str) -> str:
    """Return a path with letters beyond ASCII escaped, the rest as it was written."""
    return "".join(
        letter if letter.isascii() else quote(letter, errors="replace") for letter in path
    )


def _address(text: str) -> IpAddress | None:
    try:
        return ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None


def _refused(name: str, why: str, hint: str = "Give https://host/path.") -> UnsafeAddress:
    return UnsafeAddress(f"{_shown(name)} {why}", hint=hint)


def _shown(url: str) -> str:
    """Return an address without the part that may hold a password, on one line."""
    head, sign, tail = url.partition("://")
    authority, slash, path = tail.partition("/")
    clean = f"{head}{sign}{authority.rpartition('@')[2]}{slash}{path}" if sign else url
    return repr(clean[:200])
