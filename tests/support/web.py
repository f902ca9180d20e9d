"""A browser without JavaScript for tests of pages, and what reads their markup."""

from html.parser import HTMLParser
from typing import Any

from tests.support.rest import Rest

ORIGIN = {"Origin": "http://testserver"}


class Browser:
    """A browser without JavaScript: it keeps cookies and says where its forms come from."""

    def __init__(self, rest: Rest) -> None:
        self.rest = rest
        self.client = rest.client

    def sign_in(self, who: str = "submitter") -> "Browser":
        self.client.cookies.clear()
        answer = self.send("/sign-in", key=self.rest.keys[who])
        assert (answer.status_code, answer.headers["location"]) == (303, "/"), answer.text
        return self

    def look(self, path: str, **headers: str) -> Any:
        return self.client.get(path, headers=headers, follow_redirects=False)

    def send(self, path: str, *, headers: dict[str, str] | None = None, **fields: str) -> Any:
        more = ORIGIN if headers is None else headers
        return self.client.post(path, data=fields, headers=more, follow_redirects=False)


class Reader(HTMLParser):
    """Gathers what a page's markup has, to be checked."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inline: list[str] = []
        self._in = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._in = tag

    def handle_endtag(self, tag: str) -> None:
        if tag == self._in:
            self._in = ""

    def handle_data(self, data: str) -> None:
        if self._in in ("script", "style") and data.strip():
            self.inline.append(data)


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    return reader
