"""Where webhooks may go."""

import ipaddress
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.webhooks.addresses import Target, addresses_of, check_url, is_public
from fda_core.errors import UnsafeAddress

PRIVATE = [
    "0.0.0.0",
    "10.1.2.3",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "192.0.0.192",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::a00:1",
    "2002:7f00:1::",
    "2001:0:a00:1::f5ff:fffe",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
    "2001:db8::1",
    "64:ff9b:1::1",
    "3fff::1",
]
PUBLIC = ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "::ffff:1.1.1.1"]


def resolver(*addresses: str) -> object:
    def resolve(_host: str, _port: int) -> Sequence[str]:
        return addresses

    return resolve


@pytest.mark.parametrize("address", PRIVATE)
def test_addresses_that_are_not_of_the_open_internet_are_refused(address: str):
    assert not is_public(ipaddress.ip_address(address))
    target = check_url("https://example.org/", allow_private=False)
    with pytest.raises(UnsafeAddress, match="not a public address"):
        addresses_of(target, resolve=resolver(address), allow_private=False)
    literal = f"[{address}]" if ":" in address else address
    with pytest.raises(UnsafeAddress):
        check_url(f"https://{literal}/hook", allow_private=False)


@pytest.mark.parametrize("address", PUBLIC)
def test_addresses_of_the_open_internet_are_taken(address: str):
    target = check_url("https://example.org/", allow_private=False)
    assert addresses_of(target, resolve=resolver(address), allow_private=False) == (address,)


def test_one_private_address_among_public_ones_refuses_them_all():
    target = check_url("https://example.org/", allow_private=False)
    with pytest.raises(UnsafeAddress, match=r"10\.0\.0\.1"):
        addresses_of(target, resolve=resolver("1.1.1.1", "10.0.0.1"), allow_private=False)


@settings(max_examples=40, deadline=None)
@given(st.ip_addresses(v=4))
def test_wrapping_an_address_changes_nothing_about_it(address: ipaddress.IPv4Address):
    number = int(address)
    mapped = ipaddress.IPv6Address((0xFFFF << 32) | number)
    nat64 = ipaddress.IPv6Address((0x64FF9B << 96) | number)
    six_to_four = ipaddress.IPv6Address((0x2002 << 112) | (number << 80))
    for wrapped in (mapped, nat64, six_to_four):
        assert is_public(wrapped) == is_public(address)


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("http://example.org/", "not https"),
        ("ftp://example.org/", "not https"),
        ("example.org", "not https"),
        ("file:///etc/passwd", "not https"),
        ("https://", "no host"),
        ("https:///path", "no host"),
        ("https://user@example.org/", "name or password"),
        ("https://user:secret@example.org/", "name or password"),
        ("https://example.org:22/", "port 22"),
        ("https://example.org:0/", "port 0"),
        ("https://example.org:99999/", "cannot be read"),
        ("https://example.org/#part", "fragment"),
        ("https://exa mple.org/", "spaces"),
        ("https://example.org/\r\nX-Header: 1", "control"),
        ("https://example.org\\@127.0.0.1/", "backslash"),
        ("https://[fe80::1%25eth0]/", "zone"),
        ("https://[::1/", "cannot be read"),
        ("https://localhost/", "private network"),
        ("https://LOCALHOST./", "private network"),
        ("https://metadata.google.internal/", "private network"),
        ("https://" + "a" * 70 + ".org/", "no host"),
    ],
)
def test_addresses_whose_text_is_enough_to_refuse_them(url: str, word: str):
    with pytest.raises(UnsafeAddress, match=word) as refused:
        check_url(url, allow_private=False)
    assert "secret" not in refused.value.message


def test_numbers_in_odd_spellings_are_caught_where_they_are_resolved():
    for spelling in ("2130706433", "0x7f.1", "127.1"):
        target = check_url(f"https://{spelling}/", allow_private=False)
        with pytest.raises(UnsafeAddress):
            addresses_of(target, resolve=resolver("127.0.0.1"), allow_private=False)


@pytest.mark.parametrize(
    ("url", "target", "header"),
    [
        (
            "https://Example.ORG",
            Target(scheme="https", host="example.org", port=443, path="/"),
            "example.org",
        ),
        (
            "https://example.org.:8443/a/ü?b=c%20d",
            Target(scheme="https", host="example.org", port=8443, path="/a/%C3%BC?b=c%20d"),
            "example.org:8443",
        ),
        (
            "https://bücher.example/",
            Target(scheme="https", host="xn--bcher-kva.example", port=443, path="/"),
            "xn--bcher-kva.example",
        ),
        (
            "https://[2606:4700:4700::1111]/x",
            Target(scheme="https", host="2606:4700:4700::1111", port=443, path="/x"),
            "[2606:4700:4700::1111]",
        ),
    ],
)
def test_good_addresses_are_taken_apart(url: str, target: Target, header: str):
    assert check_url(url, allow_private=False) == target
    assert target.host_header == header


def test_allowing_private_lifts_https_ports_and_addresses():
    target = check_url("http://127.0.0.1:81/x", allow_private=True)
    assert addresses_of(target, resolve=resolver("127.0.0.1"), allow_private=True)
    with pytest.raises(UnsafeAddress, match="password"):
        check_url("http://a:b@127.0.0.1/", allow_private=True)


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=40))
def test_any_text_is_taken_apart_or_refused_by_name(text: str):
    for url in (text, f"https://{text}", f"https://example.org/{text}"):
        try:
            found = check_url(url, allow_private=False)
        except UnsafeAddress:
            continue
        assert found.host.isascii()
        assert found.path.isascii()
        assert found.path.startswith("/")
