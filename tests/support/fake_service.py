"""A small service that follows the REST contract, over real HTTP: what clients are tested with.

`World` is what it knows; tests change it while requests come in. As a program
(`python -m tests.support.fake_service`) it is told by FDA_HOST and FDA_PORT, finishes every
job at once and leaves files; with STANDIN_NEVER_DONE it finishes none.
"""

import asyncio
import hashlib
import json
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from fda_core.contract.rest.base import Problem
from fda_core.contract.rest.jobs import (
    Artifact,
    EventView,
    Job,
    JobProgress,
    JobRequest,
    JobUrls,
    LogLine,
)
from fda_core.contract.service.messages import ErrorReport
from fda_core.contract.service.states import TERMINAL, JobState

KEY = "fda_test"
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


class World:
    """What the service knows. Only replaced or appended to, so threads need no lock."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.events: dict[str, list[EventView]] = {}
        self.logs: dict[str, list[LogLine]] = {}
        self.files: dict[str, dict[str, bytes]] = {}
        self.lies: dict[str, Any] = {}
        """Fields of artifacts by path that are told otherwise than they are."""
        self.submitted: dict[str, tuple[Any, str]] = {}
        self.requests: list[tuple[str, str]] = []
        self.answers: list[tuple[str, str, int, dict[str, str], Any]] = []
        self.link_version = 1
        self.finish_at_once = False
        self.records: dict[str, list[dict[str, Any]]] = {}

    def script(
        self, method: str, path: str, status: int, *, body: Any = None, **headers: str
    ) -> None:
        """Answer the next request of a kind so; headers with _ for -."""
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        self.answers.append((method, path, status, named, body))

    def count(self, method: str, path: str) -> int:
        return sum(m == method and p.startswith(path) for m, p in self.requests)

    def add(self, request: JobRequest, *, state: JobState = JobState.QUEUED) -> Job:
        name = f"job-{len(self.jobs) + 1}"
        document = request.recipe if isinstance(request.recipe, dict) else {}
        job = Job(
            id=name,
            state=state,
            attempt=1,
            priority=request.priority,
            owner="o",
            team="t",
            labels=request.labels,
            method=str(document.get("method", "linear")),
            base="/m/base",
            output="/m/out",
            experts=["a", "b"],
            progress=progress(0, 4),
            recipe=request.recipe,
            deadline=request.deadline,
            created_at=NOW,
            timestamps={str(state): NOW},
            updated_at=NOW,
            version=1,
            urls=JobUrls(self="", cancel="", events="", artifacts="", page=""),
        )
        self.jobs[name] = job
        self.events[name] = []
        self.say(name, "job.state", state=str(state))
        return job

    def say(self, job: str, kind: str, **data: Any) -> None:
        """Add an event."""
        event = EventView(id=len(self.events[job]) + 1, job=job, at=NOW, type=kind, data=data)
        self.events[job].append(event)

    def move(self, job: str, state: JobState, *, error: ErrorReport | None = None) -> None:
        """Bring a job to a state."""
        now = self.jobs[job]
        self.jobs[job] = now.model_copy(
            update={
                "state": state,
                "error": error,
                "version": now.version + 1,
                "timestamps": {**now.timestamps, str(state): NOW},
            }
        )
        self.say(job, "job.state", state=str(state))

    def finish(self, job: str, files: dict[str, bytes] | None = None) -> None:
        """Let a job succeed with files."""
        if files is not None:
            self.files[job] = files
        self.move(job, JobState.SUCCEEDED)


def progress(done: int, total: int, **more: Any) -> JobProgress:
    return JobProgress(
        units_done=done,
        units_total=total,
        bytes_done=done * 100,
        bytes_total=total * 100,
        ratio=done / total,
        **more,
    )


def problem(status: int, code: str, detail: str, **more: Any) -> JSONResponse:
    told = Problem(
        type=f"/docs#{code}",
        title=code,
        status=status,
        detail=detail,
        instance="/",
        code=code,
        request_id="req-1",
        **more,
    )
    return JSONResponse(told.model_dump(mode="json"), status, media_type="application/problem+json")


def page(items: list[Any], request: Request) -> dict[str, Any]:
    """Return a page of at most `limit`, with the index of the next item as cursor."""
    start = int(request.query_params.get("cursor", 0))
    limit = int(request.query_params.get("limit", 20))
    end = start + limit
    more = end < len(items)
    return {
        "data": [i if isinstance(i, dict) else i.model_dump(mode="json") for i in items[start:end]],
        "next_cursor": str(end) if more else None,
        "has_more": more,
    }


_MADE = {
    "owner": "ann",
    "team": "red",
    "created_at": "2026-01-01T00:00:00Z",
}
_BATCH = {"recipes": [{"base": "/m/base"}]}
FILLED: dict[str, dict[str, Any]] = {
    "schedules": {
        **_MADE,
        "zone": "UTC",
        "overlap": "skip",
        "missed": "run_once",
        "batch": _BATCH,
        "paused": False,
        "next_fires": [],
        "last_fire_at": None,
        "updated_at": "2026-01-01T00:00:00Z",
        "version": 1,
        "urls": dict.fromkeys(["self", "trigger", "pause", "resume", "fires", "batches"], "/"),
    },
    "batches": {
        **_MADE,
        "name": "",
        "labels": {},
        "jobs": 1,
        "counts": {"queued": 1},
        "over": False,
        "schedule": None,
        "request": _BATCH,
        "urls": dict.fromkeys(["self", "cancel", "jobs"], "/"),
    },
    "keys": {
        **_MADE,
        "name": "ci",
        "prefix": "fda_abc",
        "role": "viewer",
        "expires_at": None,
        "last_used_at": None,
    },
}
"""What the service says of a new resource beside what was sent."""


def application(worlds: list[World]) -> FastAPI:
    """Return the service of the last world of a list."""
    app = FastAPI()

    def world() -> World:
        return worlds[-1]

    @app.middleware("http")
    async def _scripted(request: Request, following: Any) -> Response:
        here, path = world(), request.url.path
        here.requests.append((request.method, path))
        for answer in list(here.answers):
            method, prefix, status, headers, body = answer
            if method == request.method and path.startswith(prefix):
                here.answers.remove(answer)
                return JSONResponse(body, status, headers=headers)
        if path.startswith("/v1/") and request.headers.get("authorization") != f"Bearer {KEY}":
            return problem(401, "unauthorized", "the API key is not valid")
        done: Response = await following(request)
        return done

    @app.get("/readyz")
    async def _ready() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/v1/keys")
    async def _keys(request: Request) -> Any:
        return page(world().records.get("keys", []), request)

    @app.post("/v1/jobs")
    async def _submit(request: Request) -> Any:
        here, body = world(), await request.json()
        key = request.headers["idempotency-key"]
        if key in here.submitted:
            known, name = here.submitted[key]
            if known != body:
                return problem(422, "idempotency_key_reused", "another body")
            return JSONResponse(
                here.jobs[name].model_dump(mode="json"), 202, {"Idempotent-Replayed": "true"}
            )
        job = here.add(JobRequest.model_validate(body))
        here.submitted[key] = (body, job.id)
        if here.finish_at_once:
            here.finish(job.id, {"config.json": b"{}", "merge_metrics.json": METRICS})
        return JSONResponse(job.model_dump(mode="json"), 202)

    @app.get("/v1/jobs")
    async def _list(request: Request) -> Any:
        state = request.query_params.get("state")
        found = [j for j in reversed(world().jobs.values()) if state in (None, j.state)]
        return page(found, request)

    @app.get("/v1/jobs/{name}")
    async def _get(name: str, request: Request) -> Any:
        here = world()
        if name not in here.jobs:
            return problem(404, "unknown_job", f"there is no job {name}", hint="See the list.")
        seen = request.headers.get("if-none-match")
        until = time.monotonic() + min(0.5, float(request.query_params.get("wait", 0)))
        while seen == f'W/"{here.jobs[name].version}"' and time.monotonic() < until:
            await asyncio.sleep(0.005)
        job = here.jobs[name]
        tag = f'W/"{job.version}"'
        if seen == tag:
            return Response(status_code=304, headers={"ETag": tag})
        return JSONResponse(job.model_dump(mode="json"), headers={"ETag": tag})

    @app.patch("/v1/jobs/{name}")
    async def _patch(name: str, request: Request) -> Any:
        here = world()
        wanted = request.headers.get("if-match")
        if wanted not in (None, f'W/"{here.jobs[name].version}"'):
            return problem(412, "stale_job", "changed since")
        here.jobs[name] = here.jobs[name].model_copy(update=await request.json())
        return here.jobs[name].model_dump(mode="json")

    @app.post("/v1/jobs/{name}/{action}")
    async def _act(name: str, action: str) -> Any:
        here = world()
        if action == "cancel":
            if here.jobs[name].state in TERMINAL:
                return problem(409, "already_finished", f"{name} is over")
            here.move(name, JobState.CANCELLED)
        else:
            here.move(name, JobState.QUEUED)
        return JSONResponse(here.jobs[name].model_dump(mode="json"), 202)

    @app.delete("/v1/jobs/{name}")
    async def _delete(name: str) -> Response:
        del world().jobs[name]
        return Response(status_code=204)

    @app.get("/v1/jobs/{name}/logs")
    async def _logs(name: str, request: Request) -> Any:
        return page(world().logs.get(name, []), request)

    @app.get("/v1/jobs/{name}/artifacts")
    async def _artifacts(name: str, request: Request) -> Any:
        here = world()
        found = []
        for path, data in here.files.get(name, {}).items():
            told = Artifact(
                path=path,
                size_bytes=len(data),
                sha256=hashlib.sha256(data).hexdigest(),
                url=f"/files/{here.link_version}/{name}/{path}",
                expires_at=NOW,
                uri=f"/m/out/{path}",
            )
            found.append(told.model_copy(update=here.lies.get(path, {})))
        return page(found, request)

    @app.get("/files/{version}/{name}/{path:path}")
    async def _file(version: int, name: str, path: str, request: Request) -> Response:
        here = world()
        if request.headers.get("authorization") is not None:
            return problem(400, "key_sent", "a link needs no key")
        if version != here.link_version:
            return problem(410, "link_expired", "the link is too old")
        data, said = here.files[name][path], request.headers.get("range")
        if said is None:
            return Response(data)
        start = int(said.removeprefix("bytes=").rstrip("-"))
        if start >= len(data):
            return problem(416, "range_not_satisfiable", "nothing there")
        span = f"bytes {start}-{len(data) - 1}/{len(data)}"
        return Response(data[start:], 206, {"Content-Range": span})

    @app.get("/v1/jobs/{name}/events")
    async def _events(name: str, request: Request) -> Any:
        here = world()
        if name not in here.jobs:
            return problem(404, "unknown_job", f"there is no job {name}")
        after = int(request.headers.get("last-event-id", 0))

        async def stream() -> AsyncIterator[str]:
            sent = after
            yield ": hello\n\n"
            while True:
                over = here.jobs[name].state in TERMINAL
                for event in here.events[name][sent:]:
                    sent = event.id
                    data = event.model_dump_json()
                    yield f"id: {event.id}\nevent: {event.type}\ndata: {data}\n\n"
                if over:
                    return
                await asyncio.sleep(0.005)

        return StreamingResponse(stream(), media_type="text/event-stream")

    @app.get("/v1/{kind}")
    async def _collection(kind: str, request: Request) -> Any:
        return page(world().records.get(kind, []), request)

    @app.post("/v1/{kind}")
    async def _make(kind: str, request: Request) -> Any:
        body = await request.json()
        name = f"{kind}-{len(world().records.get(kind, [])) + 1}"
        made = {**FILLED.get(kind, {}), **body, "id": name}
        world().records.setdefault(kind, []).append(made)
        return JSONResponse(made, 201)

    @app.get("/v1/{kind}/{name}")
    async def _one(kind: str, name: str) -> Any:
        found = [r for r in world().records.get(kind, []) if r["id"] == name]
        return found[0] if found else problem(404, "unknown", f"no {name}")

    @app.post("/v1/{kind}/{name}/{action}")
    async def _do(kind: str, name: str, action: str) -> Any:
        return {"id": name, "did": f"{action} {kind}"}

    @app.delete("/v1/{kind}/{name}")
    async def _remove(kind: str, name: str) -> Response:
        here = world()
        here.records[kind] = [r for r in here.records.get(kind, []) if r["id"] != name]
        return Response(status_code=204)

    return app


class FakeService:
    """A running service; `world` is fresh for every test."""

    def __init__(self) -> None:
        self.worlds = [World()]
        config = uvicorn.Config(
            application(self.worlds), port=0, log_level="critical", ws="none", lifespan="off"
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, name="fake-service")

    @property
    def world(self) -> World:
        return self.worlds[-1]

    @property
    def port(self) -> int:
        port: int = self._server.servers[0].sockets[0].getsockname()[1]
        return port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @contextmanager
    def running(self) -> Iterator["FakeService"]:
        self._thread.start()
        until = time.monotonic() + 20
        while not self._server.started:
            assert time.monotonic() < until, "the fake service did not start"
            time.sleep(0.01)
        try:
            yield self
        finally:
            self._server.should_exit = self._server.force_exit = True
            self._thread.join()


METRICS = json.dumps(
    {
        "job_id": "job-1",
        "method": "fda",
        "start": "tsvm",
        "family": "bert",
        "layers": 1,
        "experts": ["a", "b"],
        "construction": [],
        "adaptation": [
            {
                "layer": 0,
                "epochs": 1,
                "variables": "elements",
                "loss": {"steps": [0], "values": [1.0]},
                "drift": {"a": {"start": 0.875, "result": 0.125}},
                "seconds": 1.5,
            }
        ],
        "task_vectors": [],
        "units": [],
        "totals": {
            "seconds": 1,
            "peak_memory_bytes": 1,
            "flops": 1,
            "read_bytes": 1,
            "write_bytes": 1,
        },
    }
).encode()


def main() -> None:
    """Serve until told to stop."""
    world = World()
    world.finish_at_once = not os.environ.get("STANDIN_NEVER_DONE")
    uvicorn.run(
        application([world]),
        host=os.environ["FDA_HOST"],
        port=int(os.environ["FDA_PORT"]),
        ws="none",
        lifespan="off",
    )


if __name__ == "__main__":
    main()
