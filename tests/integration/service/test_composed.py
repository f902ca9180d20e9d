"""docker-compose.yml once from end to end, without docker: one job merged from s3://, with
secrets from files, scraped, traced, and its logs read. What is true of it is a test each.
"""

import json
import re
import signal
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import httpx2
import promql_parser
import pytest
import yaml
from botocore.config import Config
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from api.auth.service import create_key
from api.db.session import Database, open_engine
from fda_core.contract.rest.keys import KeyRequest
from fda_core.contract.service import names
from tests.support.checkpoints import RecipeFile
from tests.support.collector import Collector, Spoken, collector
from tests.support.composed import ROOT, Composed, composed
from tests.support.postgres import postgres_binaries
from tests.support.seaweed import weed_binary
from tests.support.service import wait_for
from tests.support.workers import save_models

OURS = ("api", "scheduler", "worker-cpu")
PROCESS = {"api": "api", "scheduler": "controller", "worker-cpu": "worker"}
CHECKED = (*OURS, "redis", "s3")
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

pytestmark = pytest.mark.skipif(
    weed_binary() is None or postgres_binaries() is None, reason="no weed or no Postgres here"
)


@dataclass(kw_only=True)
class Life:
    """What was seen of one job's whole life."""

    key: str = ""
    job: dict[str, Any] = field(default_factory=dict)
    request_id: str = ""
    health: dict[str, str] = field(default_factory=dict)
    pages: dict[str, str] = field(default_factory=dict)
    """What Prometheus reads, by service."""
    told: str = ""
    """Events, logs, attempts and units of the job as the api tells them; reports in Redis."""
    signed: list[str] = field(default_factory=list)
    merged: bytes = b""
    exits: dict[str, int] = field(default_factory=dict)
    logs: dict[str, str] = field(default_factory=dict)
    spans: list[Spoken] = field(default_factory=list)
    secrets: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    folder = tmp_path_factory.mktemp("composed")
    with composed(folder) as made, collector() as heard:
        yield _lived(made, heard)


def _lived(made: Composed, heard: Collector) -> Life:
    more = {"FDA_OTLP_ENDPOINT": heard.url, "FDA_LOG_LEVEL": "debug"}
    for name in OURS:
        made.start(name, made.command(name), made.environment(name, **more))
    _upload(made)
    made.wait_until("api", lambda: made.answers("api", "/readyz"))
    life = Life(key=_key(made))
    with httpx2.Client(
        base_url=f"http://127.0.0.1:{made.ports['api']}",
        headers={"Authorization": f"Bearer {life.key}"},
        timeout=30,
    ) as http:
        _merge(made, http, life)
        for name in CHECKED:
            life.health[name] = _health(made, name)
        for name in OURS:
            path = f"http://127.0.0.1:{made.ports[name]}/metrics"
            life.pages[name] = urllib.request.urlopen(path).read().decode()
    life.exits = made.stop(*OURS)
    life.logs = {name: made.log(name) for name in OURS}
    life.spans = heard.spans()
    life.secrets = [
        life.key,
        *(made.secret(name) for name in ("redis_password", "postgres_password", "fda_secret")),
        *re.findall(r"aws_secret_access_key = (\S+)", made.secret("aws_credentials")),
        *(re.search(r"X-Amz-Signature=(\w+)", url)[1] for url in life.signed),  # type: ignore[index]
    ]
    return life


def _key(made: Composed) -> str:
    database = Database(open_engine(made.secret("fda_database_url")))
    try:
        request = KeyRequest(name="test", role="submitter", owner="me", team="us")
        return create_key(database, request).key
    finally:
        database.close()


def _health(made: Composed, name: str) -> str:
    """Return what a health check said if it does not come to be well: as Compose, ask again."""
    done = made.run(name, made.check(name))
    for _ in range(made.services[name]["healthcheck"]["retries"]):
        if done.returncode == 0:
            return ""
        done = made.run(name, made.check(name))
    return f"{done.returncode}: {done.stdout}{done.stderr}"


def _upload(made: Composed) -> None:
    """Put a tiny base and two experts into the bucket."""
    made.wait_until("s3", lambda: made.answers("s3", "/status"))
    (login,) = json.loads(made.secret("s3_identities"))["identities"][0]["credentials"]
    client = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{made.ports['s3']}",
        region_name="us-east-1",
        aws_access_key_id=login["accessKey"],
        aws_secret_access_key=login["secretKey"],
        config=Config(signature_version="s3v4", retries={"total_max_attempts": 10}),
    )
    models = made.folder / "models"
    models.mkdir()
    save_models(models)
    for file in sorted(path for path in models.rglob("*") if path.is_file()):
        client.put_object(
            Bucket="fda", Key=f"models/{file.relative_to(models)}", Body=file.read_bytes()
        )
    client.close()


def _merge(made: Composed, http: httpx2.Client, life: Life) -> None:
    recipe = RecipeFile(
        base="s3://fda/models/base",
        experts={name: f"s3://fda/models/{name}" for name in "ab"},
        output="s3://fda/merged/first",
        method={
            "name": "fda",
            "construct": {"anchors": 4, "steps": 2, "tokens": 3},
            "adapt": {"epochs": 1, "learning_rate": 1e-3},
        },
    ).document()
    answer = http.post("/v1/jobs", json={"recipe": recipe}, headers={"traceparent": PARENT})
    assert answer.status_code == 202, answer.text
    job = answer.json()["id"]
    life.request_id = answer.headers["x-request-id"]

    def over() -> Any:
        found = http.get(f"/v1/jobs/{job}").json()
        return found if found["state"] in ("succeeded", "failed") else None

    life.job = wait_for(over, seconds=60)
    listed = http.get(f"/v1/jobs/{job}/artifacts").json()
    life.signed = re.findall(r'"(http[^"]*X-Amz-Signature=[^"]*)"', json.dumps(listed))
    url = next(url for url in life.signed if "model.safetensors?" in url)
    life.merged = urllib.request.urlopen(url).read()
    told = [http.get(f"/v1/jobs/{job}/{part}").text for part in ("logs", "units", "attempts")]
    with http.stream("GET", f"/v1/jobs/{job}/events") as stream:
        for line in stream.iter_lines():
            told.append(line)
            if '"succeeded"' in line or '"failed"' in line:
                break
    with Redis.from_url(made.secret("fda_redis_url"), decode_responses=True) as redis:
        told += [fields["report"] for _, fields in redis.xrange(names.EVENTS)]
    life.told = "\n".join(told)


def test_a_job_is_merged_from_and_to_object_storage(life: Life) -> None:
    assert life.job["error"] is None
    assert life.job["state"] == "succeeded"
    assert len(life.merged) > 1000


def test_every_health_check_says_well(life: Life) -> None:
    assert life.health == dict.fromkeys(CHECKED, "")


def test_everything_ends_in_time_when_it_is_told_to(life: Life) -> None:
    # The api ends with the signal itself once it has ended all else: so do all of uvicorn.
    assert life.exits == {"api": -signal.SIGTERM, "scheduler": 0, "worker-cpu": 0}
    assert "Application shutdown complete." in life.logs["api"]
    assert '"event": "controller_stopped"' in life.logs["scheduler"]


# Logs


def _lines(life: Life, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in life.logs[name].splitlines()]


@pytest.mark.parametrize("name", OURS)
def test_every_line_of_a_log_is_json_that_says_what_when_and_who(life: Life, name: str) -> None:
    for line in _lines(life, name):
        assert {"event", "level", "time", "process"} <= set(line), line
        assert line["process"] == PROCESS[name]


def test_a_jobs_id_is_in_all_three_logs(life: Life) -> None:
    mine = {
        name: [line for line in _lines(life, name) if line.get("job") == life.job["id"]]
        for name in OURS
    }
    submitted = [line for line in mine["api"] if line["event"] == "job_submitted"]
    assert [line["request_id"] for line in submitted] == [life.request_id]
    led = {line["event"]: line for line in mine["scheduler"]}
    assert (led["job_planned"]["outcome"], led["job_planned"]["attempt"]) == ("planned", 1)
    assert led["job_ended"]["state"] == "succeeded"
    tried = {line["unit"] for line in mine["worker-cpu"] if line["event"] == "unit_tried"}
    assert "publish" in tried
    assert len(tried) == life.job["progress"]["units_total"]


def test_nothing_that_is_told_has_a_secret(life: Life) -> None:
    assert len(life.secrets) > 6
    assert len(set(life.secrets)) == len(life.secrets)
    for where, text in {**life.logs, "events and reports": life.told, **life.pages}.items():
        for secret in life.secrets:
            assert len(secret) >= 16
            assert secret not in text, where
    assert life.job["id"] in life.told


# Traces


def test_one_trace_spans_request_planning_and_units(life: Life) -> None:
    trace = PARENT.split("-")[1]
    mine = [span for span in life.spans if span.trace == trace]
    (request,) = [span for span in mine if span.service == "fda-api"]
    assert request.name == "POST /v1/jobs"
    assert request.parent == PARENT.split("-")[2]
    plans = [span for span in mine if span.service == "fda-controller"]
    assert [(span.name, span.parent) for span in plans] == [("plan", request.id)]
    units = [span for span in mine if span.service == "fda-worker"]
    assert len(units) >= life.job["progress"]["units_total"]
    assert {span.parent for span in units} == {request.id}
    assert {span.attributes["fda.job"] for span in (*plans, *units)} == {life.job["id"]}


# Metrics


def _exported(life: Life) -> dict[str, tuple[str, frozenset[str]]]:
    """Return our metrics by the name people use, with type and labels."""
    found: dict[str, tuple[str, frozenset[str]]] = {}
    for page in life.pages.values():
        for family in text_string_to_metric_families(page):
            if not family.name.startswith("fda_") or family.name.endswith("_created"):
                continue
            name = family.name + ("_total" if family.type == "counter" else "")
            labels = {key for sample in family.samples for key in sample.labels} - {"le"}
            before = found.get(name, (family.type, frozenset()))
            found[name] = (family.type, before[1] | labels)
    return found


def _documented() -> dict[str, tuple[str, frozenset[str]]]:
    text = (ROOT / "docker" / "README.md").read_text()
    rows = re.findall(r"^\| `(fda_\w+)` \| (\w+) \|([^|]*)\|[^|]+\|", text, re.MULTILINE)
    return {name: (kind, frozenset(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


def test_the_table_of_metrics_has_all_there_are_and_no_others(life: Life) -> None:
    documented, exported = _documented(), _exported(life)
    assert set(documented) == set(exported)
    for name, (kind, labels) in exported.items():
        assert documented[name][0] == kind, name
        assert labels <= documented[name][1], name


def test_the_figures_tell_of_the_job(life: Life) -> None:
    def value(service: str, sample: str) -> float:
        (found,) = re.findall(rf"^{re.escape(sample)} (\S+)$", life.pages[service], re.MULTILINE)
        return float(found)

    assert value("api", 'fda_jobs{state="succeeded"}') == 1
    assert value("api", 'fda_workers{state="idle"}') == 1
    assert value("scheduler", 'fda_jobs_ended_total{code="",state="succeeded"}') == 1
    assert value("scheduler", 'fda_loop_leader{loop="courier"}') == 1
    assert value("scheduler", 'fda_loop_failures_total{loop="planner"}') == 0
    assert value("worker-cpu", 'fda_units_total{kind="publish",outcome="done"}') == 1
    assert value("worker-cpu", 'fda_bytes_total{direction="write"}') > len(life.merged)
    assert value("worker-cpu", 'fda_memory_used_bytes{where="host"}') > 0


def _asked() -> Mapping[str, list[str]]:
    """Return every expression of the dashboard and the alerts, by where it is."""
    board = json.loads((ROOT / "docker" / "grafana" / "fda.json").read_text())
    alerts = yaml.safe_load((ROOT / "docker" / "alerts.yml").read_text())
    found = {
        panel["title"]: [target["expr"] for target in panel["targets"]]
        for panel in board["panels"]
        if panel["type"] != "row"
    }
    for group in alerts["groups"]:
        found |= {rule["alert"]: [rule["expr"]] for rule in group["rules"]}
    return found


def _selected(expression: str) -> dict[str, set[str]]:
    """Return the names that a query selects, with the labels it matches."""
    found: dict[str, set[str]] = {}

    def visit(node: Any) -> bool:
        if isinstance(node, promql_parser.MatrixSelector):
            node = node.vector_selector
        if isinstance(node, promql_parser.VectorSelector):
            labels = {matcher.name for matcher in node.matchers.matchers}
            found.setdefault(node.name, set()).update(labels)
        return True

    promql_parser.walk(promql_parser.parse(expression.replace("$__rate_interval", "5m")), visit)
    return found


def test_dashboard_and_alerts_ask_for_what_is_exported(life: Life) -> None:
    known = {"up": {"job", "instance"}, "process_resident_memory_bytes": {"job", "instance"}}
    for page in life.pages.values():
        assert "process_resident_memory_bytes" in page
    for name, (kind, labels) in _exported(life).items():
        wide = _documented()[name][1] | labels | {"job", "instance"}
        if kind == "histogram":
            known |= {f"{name}_bucket": wide | {"le"}, f"{name}_count": wide, f"{name}_sum": wide}
        else:
            known[name] = wide
    asked = 0
    for where, expressions in _asked().items():
        for expression in expressions:
            for name, labels in _selected(expression).items():
                asked += 1
                assert name in known, (where, name)
                assert labels <= known[name], (where, expression)
    assert asked > 40


def test_the_table_of_alerts_has_all_there_are() -> None:
    text = (ROOT / "docker" / "README.md").read_text()
    alerts = yaml.safe_load((ROOT / "docker" / "alerts.yml").read_text())
    there = {rule["alert"] for group in alerts["groups"] for rule in group["rules"]}
    assert set(re.findall(r"^\| (Fda\w+) \|", text, re.MULTILINE)) == there


def test_every_job_that_is_scraped_is_a_service_with_that_port() -> None:
    document = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    scraped = yaml.safe_load((ROOT / "docker" / "prometheus.yml").read_text())
    for job in scraped["scrape_configs"]:
        (found,) = job["dns_sd_configs"]
        for name in found["names"]:
            told = document["services"][name]["environment"]
            port = told.get("FDA_METRICS_PORT") or told["FDA_PORT"]
            assert str(found["port"]) == port
            assert told.get("FDA_METRICS_HOST") or told["FDA_HOST"] == "0.0.0.0"
    mounted = {config["target"] for config in document["services"]["prometheus"]["configs"]}
    assert set(scraped["rule_files"]) <= mounted
    providers = yaml.safe_load((ROOT / "docker" / "grafana" / "dashboards.yml").read_text())
    boards = {Path(c["target"]).parent for c in document["services"]["grafana"]["configs"]}
    assert {Path(p["options"]["path"]) for p in providers["providers"]} <= boards
