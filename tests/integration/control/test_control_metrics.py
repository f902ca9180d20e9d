"""What a controller counts, and what it shows when it is asked."""

import os
import subprocess
import sys
import time
import urllib.request

from api.control.metrics import ControlMetrics
from fda_core.contract.service import names
from fda_core.processes.figures import serve_figures
from tests.support.control import Bench, HandWorker


def value(bench: Bench, name: str, **labels: str) -> float | None:
    return bench.controller.metrics.registry.get_sample_value(name, labels)


def test_a_whole_job_is_counted(bench: Bench) -> None:
    job = bench.planned()
    assert value(bench, "fda_jobs", state="running") == 1
    assert value(bench, "fda_jobs", state="succeeded") == 0
    assert value(bench, "fda_planning_seconds_count", outcome="planned") == 1
    assert bench.settle(job, HandWorker(bench)) == "succeeded"
    reports = bench.client.xlen(names.EVENTS)
    assert value(bench, "fda_reports_folded_total") == reports
    assert value(bench, "fda_jobs_ended_total", state="succeeded", code="") == 1
    assert value(bench, "fda_jobs", state="succeeded") == 1
    bench.step()
    assert value(bench, "fda_jobs_ended_total", state="succeeded", code="") == 1


def test_a_refused_job_is_counted_by_its_code(bench: Bench) -> None:
    bench.submit(bench.folder.recipe(method="no_such_method"))
    bench.step()
    assert value(bench, "fda_planning_seconds_count", outcome="refused") == 1
    assert value(bench, "fda_jobs_ended_total", state="failed", code="unknown_method") == 1


def test_a_lost_worker_counts_as_an_expired_lease_and_a_lost_message_as_resent(
    bench: Bench,
) -> None:
    bench.planned()
    trial = HandWorker(bench).take()
    assert trial is not None
    trial.start().die()
    bench.step(2)
    assert value(bench, "fda_leases_expired_total") == 1
    before = value(bench, "fda_units_resent_total", queue="cpu")
    for key in bench.client.keys("*"):
        if bench.client.type(key) == "list":
            bench.client.delete(key)
    bench.clock.advance(12)
    bench.step()
    after = value(bench, "fda_units_resent_total", queue="cpu")
    assert before is not None
    assert after is not None
    assert after > before


def test_lag_is_the_age_of_the_oldest_report_that_is_not_folded(bench: Bench) -> None:
    bench.planned()
    assert value(bench, "fda_projector_lag_seconds") == 0
    trial = HandWorker(bench).take()
    assert trial is not None
    trial.start()
    time.sleep(0.05)
    lag = value(bench, "fda_projector_lag_seconds")
    assert lag is not None
    assert 0.05 <= lag < 5
    bench.step()
    assert value(bench, "fda_projector_lag_seconds") == 0


def test_who_leads_is_shown(bench: Bench) -> None:
    assert value(bench, "fda_loop_leader", loop="planner") == 0
    bench.controller.leader.renew()
    assert value(bench, "fda_loop_leader", loop="planner") == 1
    bench.clock.advance(60)
    assert value(bench, "fda_loop_leader", loop="planner") == 0


def test_a_scrape_without_redis_shows_the_rest(bench: Bench) -> None:
    bench.redis._client.connection_pool.reset()
    bench.redis._client.connection_pool.connection_kwargs["port"] = 1
    assert value(bench, "fda_loop_leader", loop="planner") == 0
    assert value(bench, "fda_jobs", state="queued") == 0
    assert value(bench, "fda_projector_lag_seconds") is None


def test_a_port_that_is_taken_is_refused_by_name() -> None:
    metrics = ControlMetrics()
    port = serve_figures(metrics.registry, host="127.0.0.1", port=0)
    page = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
    assert 'fda_webhook_deliveries_total{outcome="retried"} 0.0' in page
    done = subprocess.run(
        [sys.executable, "-m", "api.control"],
        env={**os.environ, "FDA_METRICS_PORT": str(port), "FDA_DATABASE_URL": "sqlite://"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert f"FDA_METRICS_PORT: 127.0.0.1:{port}" in done.stderr
    assert "Traceback" not in done.stderr
