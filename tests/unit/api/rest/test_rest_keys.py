"""API keys: made once, kept hashed, with roles, an end and a last use."""

import hashlib
import os
import subprocess
import sys
from datetime import datetime, timedelta

import pytest

from api.auth.service import authenticate, bootstrap_key
from api.db.session import Database, open_engine
from api.db.tables import KeyRow
from api.db.types import now
from tests.support.rest import Rest, problem

WANTED = {"name": "nightly", "role": "viewer", "owner": "bob", "team": "red"}


def make(rest: Rest, **changes: object) -> dict[str, str]:
    answer = rest.admin.post("/v1/keys", json={**WANTED, **changes})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def works(rest: Rest, key: str) -> bool:
    headers = {"Authorization": f"Bearer {key}"}
    return bool(rest.nobody.get("/v1/jobs", headers=headers).status_code == 200)


def test_a_key_is_shown_once_and_kept_as_a_hash(either: Rest):
    answer = either.admin.post("/v1/keys", json=WANTED)
    made = answer.json()
    assert answer.headers["location"] == f"/v1/keys/{made['id']}"
    assert answer.headers["cache-control"] == "no-store"
    assert made["key"].startswith("fda_")
    assert len(made["key"]) == 4 + 43, "256 bits in base64"
    assert made["key"].startswith(made["prefix"])
    assert works(either, made["key"])
    shown = either.admin.get(f"/v1/keys/{made['id']}")
    assert made["key"] not in shown.text
    assert made["key"] not in either.admin.get("/v1/keys").text
    with either.database.read() as session:
        row = session.get_one(KeyRow, made["id"])
        assert row.hash == hashlib.sha256(made["key"].encode()).hexdigest()


def test_a_revoked_key_is_refused_from_then_on(either: Rest):
    made = make(either)
    assert either.admin.delete(f"/v1/keys/{made['id']}").status_code == 204
    assert not works(either, made["key"])
    problem(either.admin.get(f"/v1/keys/{made['id']}"), 404, "unknown_resource")
    problem(either.admin.delete(f"/v1/keys/{made['id']}"), 404)
    assert made["id"] not in either.admin.get("/v1/keys").text


def test_a_key_ends_when_it_says(rest: Rest):
    made = make(rest, expires_at=(now() + timedelta(hours=1)).isoformat())
    assert works(rest, made["key"])
    rest.clock.forward(hours=1)
    assert not works(rest, made["key"])
    yesterday = (now() - timedelta(days=1)).isoformat()
    problem(rest.admin.post("/v1/keys", json={**WANTED, "expires_at": yesterday}), 422)


def test_the_last_use_is_kept_at_most_once_a_minute(rest: Rest):
    made = make(rest)

    def last_use() -> datetime | None:
        found = rest.admin.get(f"/v1/keys/{made['id']}").json()["last_used_at"]
        return None if found is None else datetime.fromisoformat(found)

    assert last_use() is None
    works(rest, made["key"])
    first = last_use()
    assert first is not None
    rest.clock.forward(seconds=50)
    works(rest, made["key"])
    assert last_use() == first
    rest.clock.forward(seconds=20)
    works(rest, made["key"])
    later = last_use()
    assert later is not None
    assert later > first + timedelta(seconds=60)


def test_a_key_can_be_changed(either: Rest):
    made = make(either)
    path = f"/v1/keys/{made['id']}"
    changed = either.admin.patch(path, json={"role": "submitter", "name": "other"}).json()
    assert (changed["role"], changed["name"]) == ("submitter", "other")
    headers = {"Authorization": f"Bearer {made['key']}"}
    answer = either.nobody.post("/v1/jobs", json={"recipe": {}}, headers=headers)
    problem(answer, 422)
    problem(either.admin.patch(path, json={"role": None}), 422)
    assert either.admin.patch(path, json={"expires_at": None}).status_code == 200


def test_the_last_admin_stays_one(rest: Rest):
    admins = [key for key in rest.admin.get("/v1/keys").json()["data"] if key["role"] == "admin"]
    path = f"/v1/keys/{admins[0]['id']}"
    problem(rest.admin.delete(path), 409, "conflict")
    problem(rest.admin.patch(path, json={"role": "viewer"}), 409, "conflict")
    make(rest, role="admin")
    assert rest.admin.patch(path, json={"role": "viewer"}).status_code == 200
    problem(rest.admin.get("/v1/keys"), 403, "not_allowed")


def test_keys_are_listed_in_pages(rest: Rest):
    made = [make(rest)["id"] for _ in range(5)]
    first = rest.admin.get("/v1/keys?limit=2").json()
    assert first["has_more"]
    rest_of_it = rest.admin.get(f"/v1/keys?limit=100&cursor={first['next_cursor']}").json()
    found = [key["id"] for key in first["data"] + rest_of_it["data"]]
    assert sorted(found, reverse=True) == found
    assert set(made) < set(found)


@pytest.mark.parametrize(
    "change",
    [
        {"role": "root"},
        {"name": ""},
        {"team": "a\0b"},
        {"x": 1},
        {"expires_at": "9999-12-31T23:59:59-23:00"},
        {"expires_at": "0001-01-01T00:00:00+23:00"},
    ],
)
def test_an_odd_key_is_refused(rest: Rest, change: dict[str, object]):
    problem(rest.admin.post("/v1/keys", json={**WANTED, **change}), 422, "invalid_request")


def test_the_first_key_is_an_admins(rest: Rest):
    key = bootstrap_key(rest.database)
    assert authenticate(rest.database, key).is_admin
    assert bootstrap_key(rest.database) != key


def admin(*arguments: str, url: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "api.admin", *arguments],
        env={**os.environ, "FDA_DATABASE_URL": url},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_command_makes_a_key_on_an_empty_database(rest: Rest):
    url = f"sqlite:///{rest.folder / 'new.db'}"
    done = admin("create-key", "--role", "submitter", "--team", "t", url=url)
    assert done.returncode == 0, done.stderr
    database = Database(open_engine(url))
    found = authenticate(database, done.stdout.strip())
    assert (found.role, found.team) == ("submitter", "t")
    database.close()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://me:hunter2@127.0.0.1:1/x", "Connection refused"),
        ("sqlite:////no/such/folder/fda.db", "unable to open database file"),
        ("nonsense", "Could not parse"),
    ],
)
def test_the_command_says_in_a_line_what_is_wrong_with_the_database(url: str, said: str):
    done = admin("migrate", url=url)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("FDA_DATABASE_URL cannot be used: ")
    assert said in done.stderr
    assert "hunter2" not in done.stderr


@pytest.mark.parametrize("odd", [("--role", "root"), ("--name", "")])
def test_the_command_makes_no_odd_key(rest: Rest, odd: tuple[str, str]):
    url = f"sqlite:///{rest.folder / 'new.db'}"
    done = admin("create-key", *odd, url=url)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
