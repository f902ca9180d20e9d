"""The courier against a real receiver."""

import random
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from standardwebhooks import Webhook

from api.db.session import Database
from api.db.tables import DeliveryRow
from api.jobs.transitions import move
from api.webhooks.courier import WAITS_SECONDS, Courier
from api.webhooks.routes import router
from api.webhooks.service import WebhookService
from api.webhooks.transport import Transport
from fda_core.contract.rest.jobs import JobRequest
from fda_core.contract.service.states import JobState
from tests.support.receiver import Receiver, certificate, receiver, status
from tests.support.stand_in_processes import until
from tests.support.stand_ins import GATE, Caller, Clock, client_of, recipe, submit

NAME = "hooks.example.org"


@pytest.fixture
def target() -> Iterator[Receiver]:
    with receiver() as running:
        yield running


@pytest.fixture
def clock() -> Clock:
    return Clock(datetime.now(UTC))


@pytest.fixture
def client(database: Database, clock: Clock) -> TestClient:
    return client_of(router(GATE, WebhookService(database, allow_private=True, clock=clock)))


@pytest.fixture
def courier(database: Database, clock: Clock) -> Courier:
    return Courier(
        database,
        allow_private=True,
        transport=Transport(seconds=5),
        clock=clock,
        chance=random.Random(0),
    )


def hook(client: TestClient, url: str) -> tuple[str, str]:
    """Make a webhook; return its path and its secret."""
    made = client.post("/v1/webhooks", json={"url": url}).json()
    return f"/v1/webhooks/{made['id']}", made["secret"]


def only(database: Database) -> DeliveryRow:
    with database.read() as session:
        return session.query(DeliveryRow).one()


def test_a_message_arrives_signed_as_the_standard_says(
    client: TestClient, database: Database, courier: Courier, target: Receiver
):
    path, secret = hook(client, target.url("/hook?x=1"))
    sent = client.post(f"{path}/test").json()
    assert courier.step() == 1
    (message,) = target.got
    assert message.path == "/hook?x=1"
    assert message.headers["Host"] == f"127.0.0.1:{target.port}"
    assert message.headers["webhook-id"] == sent["id"]
    payload = Webhook(secret).verify(message.body, message.headers)
    assert payload == sent["payload"]
    with pytest.raises(Exception, match="No matching signature"):
        Webhook(secret).verify(message.body + b" ", message.headers)
    row = only(database)
    assert (row.state, row.tries, row.last_status) == ("delivered", 1, 204)
    assert courier.step() == 0


def test_failures_are_tried_again_with_growing_waits_until_one_works(
    client: TestClient, database: Database, courier: Courier, target: Receiver, clock: Clock
):
    path, _ = hook(client, target.url())
    client.post(f"{path}/test")
    target.answers += [status(500), status(503), status(429)]
    for tries, wait in enumerate(WAITS_SECONDS[:3], start=1):
        assert courier.step() == 1
        row = only(database)
        assert (row.state, row.tries) == ("waiting", tries)
        assert row.next_try_at is not None
        planned = (row.next_try_at - clock()).total_seconds()
        assert wait <= planned <= 1.2 * wait
        clock.forward(seconds=wait - 0.1)
        assert courier.step() == 0
        clock.moment = row.next_try_at
    assert courier.step() == 1
    assert only(database).state == "delivered"
    assert len({message.headers["webhook-id"] for message in target.got}) == 1
    assert len(target.got) == 4


def test_it_is_given_up_after_the_last_wait(
    client: TestClient, database: Database, courier: Courier, target: Receiver, clock: Clock
):
    path, _ = hook(client, target.url())
    client.post(f"{path}/test")
    target.answers += [status(500)] * 20
    for _ in range(20):
        courier.step()
        clock.forward(hours=13)
    row = only(database)
    assert (row.state, row.tries, row.last_status) == ("failed", 8, 500)
    assert len(target.got) == 8


def test_410_switches_the_webhook_off_and_cancels_what_waits(
    client: TestClient, database: Database, courier: Courier, target: Receiver, clock: Clock
):
    path, _ = hook(client, target.url())
    first = client.post(f"{path}/test").json()["id"]
    clock.forward(milliseconds=1)
    target.answers += [status(500)]
    assert courier.step() == 1
    client.post(f"{path}/test")
    target.answers += [status(410)]
    assert courier.step() == 1
    shown = client.get(path).json()
    assert (shown["enabled"], shown["disabled_reason"]) == (False, "the receiver answered 410 Gone")
    with database.read() as session:
        states = {row.id == first: row.state for row in session.query(DeliveryRow)}
    assert states == {True: "cancelled", False: "failed"}


def test_410_to_a_jobs_own_webhook_ends_its_messages(database: Database, target: Receiver):
    webhook = {"url": target.url(), "events": ["job.running", "job.failed"]}
    request = JobRequest.model_validate({"recipe": recipe(), "webhook": webhook})
    with database.write() as session:
        job = submit(session, request, Caller(), None, None)
        for state in ("validating", "running"):
            move(session, job, JobState(state))
        session.add(
            DeliveryRow(
                id="msg_later",
                job_id=job,
                team="red",
                url=target.url(),
                type="job.failed",
                payload={},
                next_try_at=datetime.now(UTC) + timedelta(hours=1),
            )
        )
    target.answers += [status(410)]
    assert Courier(database, allow_private=True).step() == 1
    with database.read() as session:
        states = {row.type: row.state for row in session.query(DeliveryRow)}
    assert states == {"job.running": "failed", "job.failed": "cancelled"}


def test_a_jobs_own_webhook_is_signed_with_the_teams_secret(
    client: TestClient, database: Database, target: Receiver
):
    secret = client.post("/v1/webhooks/job-secret").json()["secret"]
    request = JobRequest.model_validate({"recipe": recipe(), "webhook": {"url": target.url()}})
    with database.write() as session:
        for team in ("red", "blue"):
            job = submit(session, request, Caller(team=team), None, None)
            move(session, job, JobState.FAILED)
    assert Courier(database, allow_private=True).step() == 2
    red = [message for message in target.got if b'"team":"red"' in message.body]
    blue = [message for message in target.got if b'"team":"blue"' in message.body]
    assert Webhook(secret).verify(red[0].body, red[0].headers)["data"]["state"] == "failed"
    with pytest.raises(Exception, match="No matching signature"):
        Webhook(secret).verify(blue[0].body, blue[0].headers)


def test_redirects_are_not_followed(
    client: TestClient, database: Database, courier: Courier, target: Receiver
):
    with receiver() as inner:
        path, _ = hook(client, target.url())
        client.post(f"{path}/test")
        target.answers += [status(307, headers={"Location": inner.url()})]
        courier.step()
        assert inner.got == []
    row = only(database)
    assert (row.state, row.last_status) == ("waiting", 307)
    assert "redirects are not followed" in (row.last_error or "")


def endless(handler: BaseHTTPRequestHandler) -> None:
    """Answer, then send a body that does not end."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(10**12))
    handler.end_headers()
    while True:
        handler.wfile.write(b"x" * 65536)


def test_a_long_answer_is_not_read(
    client: TestClient, database: Database, courier: Courier, target: Receiver
):
    path, _ = hook(client, target.url())
    client.post(f"{path}/test")
    target.answers.append(endless)
    courier.step()
    assert only(database).state == "delivered"


def silent(target: Receiver) -> Callable[[BaseHTTPRequestHandler], None]:
    return lambda _handler: target.stop.wait(20) and None


def dripping(target: Receiver) -> Callable[[BaseHTTPRequestHandler], None]:
    """Send one byte of a header that never ends again and again: no single wait is long."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while not target.stop.wait(0.02):
            handler.wfile.write(b"x")

    return answer


@pytest.mark.parametrize("kind", [silent, dripping])
@pytest.mark.parametrize("secure", [False, True])
def test_slow_receivers_are_left_in_time(
    database: Database,
    tmp_path: Path,
    kind: Callable[[Receiver], Callable[[BaseHTTPRequestHandler], None]],
    secure: bool,
):
    server, trusting = certificate(tmp_path, NAME) if secure else (None, None)
    transport = Transport(seconds=0.3, tls=trusting)
    with receiver(server) as target:
        client = client_of(router(GATE, WebhookService(database, allow_private=True)))
        path, _ = hook(client, target.url(host=NAME))
        client.post(f"{path}/test")
        target.answers.append(kind(target))
        began = time.monotonic()
        Courier(
            database, allow_private=True, transport=transport, resolve=lambda *_: ["127.0.0.1"]
        ).step()
        assert time.monotonic() - began < 3
    row = only(database)
    assert row.state == "waiting"
    assert "Timeout: no answer within 0.3 s" in (row.last_error or "")


def test_a_receiver_that_is_not_there_is_tried_again(
    client: TestClient, database: Database, courier: Courier
):
    with receiver() as gone:
        url = gone.url()
    path, _ = hook(client, url)
    client.post(f"{path}/test")
    courier.step()
    row = only(database)
    assert row.state == "waiting"
    assert "ConnectionRefusedError" in (row.last_error or "")


class Rebinding:
    """A name server that gives a good address when asked first, a private one after."""

    def __init__(self, first: str, then: str) -> None:
        self._first, self._then = first, then
        self.asked = 0

    def __call__(self, *_: object) -> list[str]:
        self.asked += 1
        return [self._first if self.asked == 1 else self._then]


def test_https_goes_to_the_checked_address_with_the_right_name(
    client: TestClient, database: Database, tmp_path: Path
):
    server, trusting = certificate(tmp_path, NAME)
    names: list[str | None] = []
    server.sni_callback = lambda _socket, name, _context: names.append(name)
    resolve = Rebinding("127.0.0.1", "127.0.0.9")
    with receiver(server) as target:
        path, _ = hook(client, target.url(host=NAME))
        client.post(f"{path}/test")
        transport = Transport(seconds=5, tls=trusting)
        Courier(database, allow_private=True, transport=transport, resolve=resolve).step()
        assert only(database).state == "delivered", only(database).last_error
        assert target.got[0].headers["Host"] == f"{NAME}:{target.port}"
    assert names == [NAME]
    assert resolve.asked == 1


def test_a_certificate_of_another_name_is_refused(
    client: TestClient, database: Database, tmp_path: Path
):
    server, trusting = certificate(tmp_path, "other.example.org")
    with receiver(server) as target:
        path, _ = hook(client, target.url(host=NAME))
        client.post(f"{path}/test")
        transport = Transport(seconds=5, tls=trusting)
        Courier(
            database,
            allow_private=True,
            transport=transport,
            resolve=lambda *_: ["127.0.0.1"],
        ).step()
        assert target.got == []
    assert "certificate is not valid" in (only(database).last_error or "")


def test_a_name_that_turns_private_is_refused_when_it_is_used(
    database: Database,
):
    with receiver() as target:
        strict = client_of(router(GATE, WebhookService(database, allow_private=False)))
        path, _ = hook(strict, f"https://{NAME}:{target.port}/")
        strict.post(f"{path}/test")
        Courier(database, allow_private=False, resolve=lambda *_: ["127.0.0.1"]).step()
        assert target.got == []
    row = only(database)
    assert row.state == "waiting"
    assert "127.0.0.1, which is not a public address" in (row.last_error or "")


def test_two_couriers_at_once_deliver_each_message_once(either: Database, target: Receiver):
    client = client_of(router(GATE, WebhookService(either, allow_private=True)))
    paths = [hook(client, target.url(f"/{number}"))[0] for number in range(3)]
    sent = {client.post(f"{path}/test").json()["id"] for path in paths for _ in range(4)}
    couriers = [Courier(either, allow_private=True) for _ in range(4)]
    ready = threading.Barrier(len(couriers))
    tries: list[int] = []

    def run(courier: Courier) -> None:
        ready.wait()
        tries.append(courier.step())

    threads = [threading.Thread(target=run, args=(courier,)) for courier in couriers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(tries) == len(sent)
    assert sorted(message.headers["webhook-id"] for message in target.got) == sorted(sent)


def test_a_couriers_death_delays_a_message_but_loses_none(
    client: TestClient, database: Database, courier: Courier, target: Receiver, clock: Clock
):
    path, _ = hook(client, target.url())
    client.post(f"{path}/test")
    assert len(courier._claim()) == 1  # and then it dies
    assert courier.step() == 0
    clock.forward(seconds=121)
    assert courier.step() == 1
    assert only(database).state == "delivered"


def test_what_a_late_courier_says_does_not_count(
    client: TestClient, database: Database, courier: Courier, target: Receiver, clock: Clock
):
    path, _ = hook(client, target.url())
    client.post(f"{path}/test")
    (late,) = courier._claim()
    clock.forward(seconds=121)
    courier.step()
    target.answers.append(status(500))
    courier._deliver(late)
    assert only(database).state == "delivered"


def test_a_webhook_deleted_meanwhile_gets_nothing(
    client: TestClient, database: Database, courier: Courier, target: Receiver
):
    path, _ = hook(client, target.url())
    client.post(f"{path}/test")
    (claimed,) = courier._claim()
    client.delete(path)
    courier._deliver(claimed)
    assert target.got == []
    assert only(database).state == "cancelled"


def test_one_slow_receiver_leaves_places_for_others(
    client: TestClient, courier: Courier, target: Receiver
):
    slow, _ = hook(client, target.url("/slow"))
    quick, _ = hook(client, target.url("/quick"))
    for _ in range(30):
        client.post(f"{slow}/test")
    client.post(f"{quick}/test")
    courier.step()
    assert sorted(message.path for message in target.got) == ["/quick", *["/slow"] * 4]


def test_a_dead_receivers_backlog_takes_no_turn_of_others(
    either: Database, target: Receiver, clock: Clock
):
    client = client_of(router(GATE, WebhookService(either, allow_private=True, clock=clock)))
    with receiver() as gone:
        dead = gone.url()
    path, _ = hook(client, dead)
    with either.write() as session:
        session.add_all(
            DeliveryRow(
                id=f"msg_{number}",
                webhook_id=path.rpartition("/")[2],
                team="red",
                url=dead,
                type="job.failed",
                payload={},
                next_try_at=clock() - timedelta(hours=1),
            )
            for number in range(500)
        )
    path, _ = hook(client, target.url("/well"))
    client.post(f"{path}/test")
    Courier(either, allow_private=True, clock=clock).step()
    assert [message.path for message in target.got] == ["/well"]


def test_signed_with_the_moment_of_the_try(
    client: TestClient, courier: Courier, target: Receiver, clock: Clock
):
    path, secret = hook(client, target.url())
    client.post(f"{path}/test")
    target.answers.append(status(500))
    courier.step()
    clock.forward(seconds=60)
    courier.step()
    first, second = target.got
    assert int(second.headers["webhook-timestamp"]) - int(first.headers["webhook-timestamp"]) == 60
    Webhook(secret).verify(second.body, second.headers)


def test_transport_never_looks_a_name_up(monkeypatch: pytest.MonkeyPatch, target: Receiver):
    from api.webhooks import transport as module
    from api.webhooks.addresses import check_url

    real = module.socket.getaddrinfo
    asked: list[object] = []

    def noted(host: str, *args: object, **options: object) -> object:
        asked.append(host)
        return real(host, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(module.socket, "getaddrinfo", noted)
    wanted = check_url(target.url(host=NAME), allow_private=True)
    answer = Transport(seconds=5, tls=ssl.create_default_context()).post(
        wanted, ["127.0.0.1"], headers={}, body=b"{}"
    )
    assert answer.status == 204
    assert asked == ["127.0.0.1"]


def test_every_try_is_counted_by_how_it_ended(database: Database, target: Receiver, clock: Clock):
    counted: list[str] = []
    courier = Courier(database, allow_private=True, clock=clock, on_outcome=counted.append)
    client = client_of(router(GATE, WebhookService(database, allow_private=True, clock=clock)))
    path, _ = hook(client, target.url())
    client.post(f"{path}/test")
    target.answers += [status(503), status(200), status(410)]
    assert courier.step() == 1
    clock.forward(minutes=1)
    assert courier.step() == 1
    client.post(f"{path}/test")
    assert courier.step() == 1
    assert counted == ["retried", "delivered", "failed"]


def test_a_receiver_that_hangs_holds_up_nobody_else(database: Database, target: Receiver):
    client = client_of(router(GATE, WebhookService(database, allow_private=True)))
    with receiver() as hanging:
        hanging.answers += [silent(hanging)] * 9
        slow, _ = hook(client, hanging.url())
        well, _ = hook(client, target.url())
        for path in [slow] * 9 + [well] * 9:
            client.post(f"{path}/test")
        courier = Courier(
            database, allow_private=True, transport=Transport(seconds=60), patience_seconds=0.05
        )

        def step() -> bool:
            courier.step()
            return len(target.got) == 9

        until(step, "everybody else was told")
        with database.read() as session:
            rows = session.query(DeliveryRow).filter_by(url=hanging.url()).all()
        assert [row.last_error for row in rows] == [None] * 9
        assert sorted(row.tries for row in rows) == [0] * 5 + [1] * 4, "four have begun"
    courier.close()
    with database.read() as session:
        rows = session.query(DeliveryRow).filter_by(url=hanging.url()).all()
    assert sum(row.last_error is not None for row in rows) == 4, "their ends are written down"
