"""POST /v1/plans: real headers, nothing queued or written; and what the api never loads."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from api.db.tables import UnitRow
from tests.support.models import build_model, save_expert
from tests.support.rest import Rest, problem


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rest-models")
    torch.manual_seed(0)
    base = build_model("bert")
    base.save_pretrained(root / "base")
    for seed, name in enumerate("ab"):
        save_expert(base, root / name, seed=seed)
    return root


def document(rest: Rest, models: Path, **changes: Any) -> dict[str, Any]:
    storage = rest.folder / "storage"
    storage.mkdir(exist_ok=True)
    for name in ("base", "a", "b"):
        target = storage / name
        if not target.exists():
            target.mkdir()
            for file in (models / name).iterdir():
                (target / file.name).write_bytes(file.read_bytes())
    return {
        "base": str(storage / "base"),
        "experts": [{"name": n, "model": str(storage / n)} for n in "ab"],
        "method": "fda",
        "output": str(storage / "merged"),
        **changes,
    }


def test_a_plan_shows_what_a_merge_takes_and_leaves_no_trace(rest: Rest, models: Path):
    sent = document(rest, models)
    answer = rest.viewer.post("/v1/plans", json={"recipe": sent})
    assert answer.status_code == 200, answer.text
    plan = answer.json()
    assert (plan["family"], plan["method"], plan["experts"]) == ("bert", "fda", ["a", "b"])
    layers = plan["layers"]
    assert plan["units_by_kind"]["construct"] == 2 * layers
    assert plan["units"] == len(plan["plan"]) == sum(plan["units_by_kind"].values())
    assert plan["read_bytes"] > 0
    assert plan["flops"] > 0
    assert plan["seconds_estimate"] is None
    stages = {row["name"]: row for row in plan["stages"]}
    assert list(stages) == ["construct", "adapt", "merge", "publish", "all"]
    assert stages["all"]["flops"] == plan["flops"]
    assert stages["all"]["seconds"]["h100"]["likely"] > 0
    assert [row["name"] for row in plan["other_methods"]] == ["task_arithmetic", "tsvm", "wudi"]
    assert plan["recipe"]["method"]["parameters"]["construct"]["tokens"] is not None
    assert rest.viewer.get("/v1/jobs").json()["data"] == []
    assert not (rest.folder / "workspace").exists()


def test_the_time_is_reckoned_from_units_done_here(rest: Rest, models: Path):
    job = rest.submitter.submit()
    kinds = ("construct", "merge", "publish")
    with rest.database.write() as session:
        for place, kind in enumerate(kinds):
            session.add(
                UnitRow(
                    job_id=job["id"],
                    id=kind,
                    place=place,
                    kind=kind,
                    state="done",
                    source="run",
                    flops=1e6 if kind == "construct" else 0,
                    read_bytes=1000,
                    write_bytes=1000,
                    seconds=2.0,
                )
            )
    plan = rest.viewer.post("/v1/plans", json={"recipe": document(rest, models)}).json()
    units = plan["plan"]

    def reckoned(unit: dict[str, Any]) -> float:
        flops = unit["flops"] * 2.0 / 1e6 if unit["kind"] == "construct" else 0.0
        return float(max(flops, (unit["read_bytes"] + unit["write_bytes"]) * 2.0 / 2000))

    assert plan["seconds_estimate"] == pytest.approx(sum(map(reckoned, units)))


def test_what_headers_show_is_refused_by_name(rest: Rest, models: Path):
    gone = document(rest, models, base=str(rest.folder / "storage" / "nothing"))
    found = problem(rest.viewer.post("/v1/plans", json={"recipe": gone}), 422)
    assert "nothing" in found["detail"]
    sent = document(rest, models)
    Path(sent["output"]).mkdir()
    (Path(sent["output"]) / "file").write_text("mine")
    problem(rest.viewer.post("/v1/plans", json={"recipe": sent}), 409, "output_exists")
    outside = document(rest, models, base="/etc")
    problem(rest.viewer.post("/v1/plans", json={"recipe": outside}), 403, "forbidden")


def test_a_link_out_of_the_roots_is_refused(rest: Rest, models: Path):
    sent = document(rest, models)
    link = rest.folder / "storage" / "link"
    link.symlink_to(models / "a")
    experts = [{"name": "a", "model": str(link)}]
    answer = rest.viewer.post("/v1/plans", json={"recipe": {**sent, "experts": experts}})
    problem(answer, 403, "forbidden")


def test_the_api_never_loads_torch():
    code = (
        "import sys, api.main, api.__main__, api.admin\n"
        "from fda_core.methods.registry import METHODS, describe\n"
        "from api.recipes import read_recipe\n"
        "read_recipe({'base': '/m/b', 'experts': [{'name': 'a', 'model': '/m/a'}],"
        " 'method': 'fda', 'output': '/m/o'}, roots=('/m',), workspace='/w')\n"
        "[describe(name) for name in METHODS]\n"
        "print([m for m in ('torch', 'transformers', 'safetensors') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
