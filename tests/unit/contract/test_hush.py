import pytest

from fda_core.contract.hush import hushed


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://:hunter2@redis:6379/0", "redis://***@redis:6379/0"),
        ("at postgresql://fda:a%40b@db/fda?x=1 now", "at postgresql://***@db/fda?x=1 now"),
        (
            "GET http://s3/b/k?X-Amz-Date=2026&X-Amz-Signature=0af3&X-Amz-Expires=9",
            "GET http://s3/b/k?X-Amz-Date=2026&X-Amz-Signature=***&X-Amz-Expires=9",
        ),
        ("'http://x/?a=1&sig=abc' is", "'http://x/?a=1&sig=***' is"),
        ("Authorization: Bearer fda_0123456789", "Authorization: Bearer ***"),
        ("http://user@host/path:with@signs", "http://user@host/path:with@signs"),
        ("s3://bucket/a:b/c@d", "s3://bucket/a:b/c@d"),
        ("12:30 mail@host", "12:30 mail@host"),
    ],
)
def test_secrets_are_taken_out_and_nothing_else(text: str, shown: str) -> None:
    assert hushed(text) == shown
