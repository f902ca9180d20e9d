"""The commands that speak to a service, from the shell's side: what they send, say and end with."""

import json
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from sqlalchemy import make_url

from fda_core.cli.profile import data_folder, database_url
from fda_core.cli.remote import deadline_of
from fda_core.contract.rest.jobs import JobRequest, LogLine
from fda_core.contract.service.messages import ErrorReport
from fda_core.contract.service.states import JobState
from fda_core.errors import BadParameter
from fda_core.supervise.lock import note
from tests.support.command import fda, succeed
from tests.support.fake_service import FILLED, KEY, NOW, FakeService, World, progress
from tests.support.stand_in_processes import until

TEXT = """\
# mine
base: /m/base
experts:
  - {name: a, model: /m/a}
  - {name: b, model: /m/b}
method: linear
output: /m/out
"""


@pytest.fixture(autouse=True)
def _told(service: FakeService, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FDA_URL", service.url)
    monkeypatch.setenv("FDA_KEY", KEY)
    monkeypatch.setenv("FDA_DATA_DIR", str(tmp_path / "nothing"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(TEXT)
    return path


@pytest.fixture
def job(world: World) -> str:
    return world.add(JobRequest(recipe=TEXT, labels={"run": "7"})).id


def sent(world: World) -> str:
    found = world.jobs["job-1"].recipe
    assert isinstance(found, str)
    return found


def test_a_recipe_is_sent_as_it_is_written(world: World, recipe: Path):
    told = succeed("submit", recipe, "--label", "run=7", "--label", "by=me", "--priority", 8)
    assert sent(world) == TEXT
    job = world.jobs[told["id"]]
    assert (job.labels, job.priority) == ({"run": "7", "by": "me"}, 8)


def test_relative_folders_are_taken_from_where_you_are(world: World, recipe: Path, tmp_path: Path):
    recipe.write_text(TEXT.replace("/m/", "m/"))
    succeed("submit", recipe, "--set", "seed=5", "--output", "../merged")
    found = yaml.safe_load(sent(world))
    assert found["base"] == f"{tmp_path}/m/base"
    assert [expert["model"] for expert in found["experts"]] == [
        f"{tmp_path}/m/a",
        f"{tmp_path}/m/b",
    ]
    assert (found["seed"], found["output"]) == (5, f"{tmp_path.parent}/merged")


def test_a_recipe_with_a_typo_is_refused_before_it_is_sent(world: World, recipe: Path):
    recipe.write_text(TEXT + "sed: 1\n")
    outcome = fda("submit", recipe, "--json")
    assert (outcome.code, outcome.error["code"]) == (2, "unknown_key")
    assert not world.requests


def test_what_the_service_refuses_ends_like_a_merge_here(world: World, recipe: Path):
    body = {
        "type": "t",
        "title": "t",
        "status": 422,
        "detail": "b: layer 3 has NaN",
        "instance": "/",
        "code": "non_finite",
        "hint": "Look at b.",
        "request_id": "r9",
    }
    world.script("POST", "/v1/jobs", 422, body=body)
    outcome = fda("submit", recipe, "--json")
    assert outcome.code == 5
    assert outcome.error["context"]["request_id"] == "r9"
    world.script("POST", "/v1/jobs", 422, body=body)
    assert "hint: Look at b." in fda("submit", recipe).err


def test_waiting_for_success_ends_with_0_and_names_the_output(world: World, recipe: Path):
    world.finish_at_once = True
    outcome = fda("submit", recipe, "--wait")
    assert outcome.code == 0
    assert "succeeded" in outcome.out
    assert "output  /m/out" in outcome.out
    assert succeed("submit", recipe, "--wait")["state"] == "succeeded"


def test_watching_shows_progress_and_ends_with_the_outcome(world: World, job: str):
    world.move(job, JobState.RUNNING)
    told = progress(2, 4, layer=3, expert="b", step=5, steps=9, alignment=0.75, seconds_left=70)
    world.say(job, "progress", **told.model_dump())

    def end() -> None:
        until(lambda: world.count("GET", f"/v1/jobs/{job}/events"), "it follows")
        error = ErrorReport(code="out_of_disk", message="the disk is full", hint="Free some.")
        world.move(job, JobState.FAILED, error=error)

    thread = threading.Thread(target=end)
    thread.start()
    outcome = fda("watch", job)
    thread.join()
    assert outcome.code == 6, "resources, as the error's class has it"
    assert "running  units 0/4" in outcome.err
    assert "error out_of_disk: the disk is full" in outcome.err
    assert "hint: Free some." in outcome.err


def test_progress_is_told_in_words():
    from fda_core.cli.watch import doing

    told = progress(2, 4, layer=3, expert="b", step=5, steps=9, alignment=0.75)
    assert doing(told) == "layer 3 · b · step 5 of 9 · alignment 0.750"


@pytest.mark.parametrize(
    ("state", "code"), [(JobState.CANCELLED, 7), (JobState.EXPIRED, 7), (JobState.SUCCEEDED, 0)]
)
def test_watching_what_is_over_tells_how_it_ended(
    world: World, job: str, state: JobState, code: int
):
    world.move(job, state)
    outcome = fda("watch", job, "--json")
    assert (outcome.code, outcome.data["state"]) == (code, state)


def test_ctrl_c_leaves_the_job_running_and_says_so(world: World, job: str):
    process = subprocess.Popen(
        [sys.executable, "-m", "fda_core.cli", "watch", job],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until(lambda: world.count("GET", f"/v1/jobs/{job}/events"), "it follows")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert f"job {job} goes on" in err
    assert world.jobs[job].state is JobState.QUEUED


def test_jobs_are_listed_and_filtered(world: World, job: str):
    world.move(world.add(JobRequest(recipe={})).id, JobState.RUNNING)
    assert [found["id"] for found in succeed("jobs")] == ["job-2", "job-1"]
    assert [found["id"] for found in succeed("jobs", "--state", "queued")] == [job]
    table = fda("jobs").out
    assert "run=7" in table
    assert "running" in table


def test_no_jobs_say_what_to_do():
    assert "fda submit" in fda("jobs").err


def test_cancel_and_retry(job: str):
    assert succeed("cancel", job)["state"] == "cancelled"
    refused = fda("cancel", job, "--json")
    assert (refused.code, refused.error["code"]) == (7, "already_finished")
    assert fda("retry", job).out == f"job {job} is queued, attempt 1\n"


def test_files_are_fetched(world: World, job: str, tmp_path: Path):
    world.finish(job, {"config.json": b"{}"})
    told = succeed("fetch", job, tmp_path / "out")
    assert told == {
        "status": "fetched",
        "job_id": job,
        "folder": str(tmp_path / "out"),
        "files": 1,
        "bytes": 2,
        "bytes_resumed": 0,
    }
    assert (tmp_path / "out" / "config.json").read_bytes() == b"{}"
    assert fda("fetch", job, tmp_path / "out", "--json").error["code"] == "output_exists"


def test_logs_are_followed_to_the_end(world: World, job: str):
    def line(number: int) -> LogLine:
        return LogLine(
            id=number,
            at=NOW,
            level="info",
            unit="merge-0",
            worker="w",
            text=f"line {number} [bold]",
            fields={"n": number},
        )

    world.logs[job] = [line(1), line(2)]
    assert [one["id"] for one in succeed("logs", job)] == [1, 2]

    def grow() -> None:
        until(lambda: world.count("GET", f"/v1/jobs/{job}/logs") > 1, "it follows")
        world.logs[job] += [line(3)]
        world.move(job, JobState.SUCCEEDED)

    thread = threading.Thread(target=grow)
    thread.start()
    outcome = fda("logs", job, "--follow", "--json")
    thread.join()
    assert [json.loads(one)["id"] for one in outcome.out.splitlines()] == [1, 2, 3]
    assert "merge-0 line 3 [bold] n=3" in fda("logs", job).out


def test_schedules_are_made_listed_paused_and_deleted(tmp_path: Path):
    (tmp_path / "nightly.yaml").write_text("{name: nightly, cron: 0 2 * * *}")
    made = succeed("schedules", "create", "nightly.yaml")
    assert made["name"] == "nightly"
    assert "nightly" in fda("schedules", "list").out
    assert succeed("schedules", "pause", made["id"])["did"] == "pause schedules"
    assert succeed("schedules", "resume", made["id"])["did"] == "resume schedules"
    assert succeed("schedules", "trigger", made["id"])["did"] == "trigger schedules"
    assert fda("schedules", "delete", made["id"]).out == f"{made['id']} is removed\n"
    assert fda("schedules", "list").err == "no schedules\n"


ROW = {
    **{"index": 0, "id": "job-9", "state": "running", "values": {}, "method": "ties"},
    **{"output": "/out", "ratio": 0.5, "url": "/v1/jobs/job-9", "seconds": 1.5432},
    **dict.fromkeys(
        ["alignment", "drift", "compute_seconds", "read_bytes", "write_bytes", "error"]
    ),
}


def test_batches_are_made_shown_and_cancelled(world: World, tmp_path: Path):
    (tmp_path / "sweep.json").write_text('{"recipe": "x", "sweep": {"seed": [1, 2]}}')
    made = succeed("batches", "create", "sweep.json")
    world.records["batches"][0]["table"] = [ROW]
    shown = fda("batches", "show", made["id"]).out
    assert "job-9" in shown
    assert "1.5 s" in shown
    assert [one["id"] for one in succeed("batches", "list")] == [made["id"]]
    assert succeed("batches", "cancel", made["id"])["did"] == "cancel batches"


def test_a_new_key_is_printed_alone_and_can_be_revoked(world: World):
    world.script("POST", "/v1/keys", 201, body={**FILLED["keys"], "id": "k1", "key": "fda_new"})
    assert fda("keys", "create", "ci", "--role", "viewer").out == "fda_new\n"
    world.records["keys"] = [{**FILLED["keys"], "id": "k1"}]
    assert [(key["id"], key["name"]) for key in succeed("keys", "list")] == [("k1", "ci")]
    assert fda("keys", "revoke", "k1").out == "k1 is revoked\n"
    assert succeed("keys", "list") == []


def test_workers_and_queues(world: World):
    worker = {
        "id": "w1",
        "host": "h",
        "version": "1",
        "device": "cpu",
        "device_kind": "cpu",
        "device_memory_bytes": None,
        "device_used_bytes": None,
        "host_memory_bytes": 1,
        "host_used_bytes": 1,
        "queues": ["cpu"],
        "state": "idle",
        "job": None,
        "unit": None,
        "unit_seconds": None,
        "units_done": 3,
        "units_failed": 0,
        "started_at": "2026-11-22T00:00:00Z",
        "heartbeat_age_seconds": 0.5,
    }
    world.records["workers"] = [worker]
    assert succeed("workers")[0]["id"] == "w1"
    assert "w1" in fda("workers").out
    assert succeed("workers", "drain", "w1")["did"] == "drain workers"
    assert fda("queues").err == "no queues\n"


def test_without_a_service_it_is_said_how_to_have_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("FDA_URL")
    outcome = fda("jobs", "--json")
    assert (outcome.code, outcome.error["code"]) == (7, "no_service")
    assert "fda up" in outcome.error["hint"]


def test_the_service_that_runs_here_is_found(
    service: FakeService, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, job: str
):
    for name in ("FDA_URL", "FDA_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("FDA_DATA_DIR", str(tmp_path))
    (tmp_path / "admin.key").write_text(KEY + "\n")
    note(tmp_path, {"url": service.url, "key_file": str(tmp_path / "admin.key")})
    assert [found["id"] for found in succeed("jobs")] == [job]


def test_the_data_folder_is_as_told_or_the_users():
    assert data_folder(None, {"FDA_DATA_DIR": "/d"}) == Path("/d")
    assert data_folder(Path("/e"), {"FDA_DATA_DIR": "/d"}) == Path("/e")
    assert data_folder(None, {"XDG_DATA_HOME": "/x"}) == Path("/x/fda")
    assert data_folder(None, {}) == Path.home() / ".local/share/fda"


@pytest.mark.parametrize("name", ["a b", "a?x=1", "a#b", "a%20b", "ü@:1"])
def test_the_database_lies_in_the_data_folder_whatever_its_name(name: str):
    folder = Path("/srv") / name
    assert make_url(database_url(folder)).database == str(folder / "fda.db")


def test_deadlines_are_spans_or_times_with_a_zone():
    now = datetime(2026, 11, 22, tzinfo=UTC)
    assert deadline_of("90m", now=now) == now + timedelta(minutes=90)
    assert deadline_of("2026-11-22T02:00:00+02:00") == now
    for wrong in ("soon", "2026-11-22T02:00:00", "2", "9999999d", "99999999999999d"):
        with pytest.raises(BadParameter, match="no time with a zone"):
            deadline_of(wrong)


def test_admin_runs_the_apis_own_command():
    done = subprocess.run(
        [sys.executable, "-m", "fda_core.cli", "admin", "no-such-command"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "api.admin" in done.stderr
