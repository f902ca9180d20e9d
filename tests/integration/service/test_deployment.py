"""What is deployed with containers, looked at without an engine to run them."""

import json
import re
import shlex
import stat
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from tests.support.composed import COMPOSE, ROOT, resolved

OURS = {"api", "scheduler", "worker-cpu", "worker-gpu"}


@pytest.mark.parametrize("profile", ["cpu", "gpu", "monitoring"])
def test_compose_accepts_the_file_without_a_word(profile: str) -> None:
    done = subprocess.run(
        [COMPOSE, "--file", ROOT / "docker-compose.yml", "--profile", profile, "config", "-q"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_security_lint_finds_nothing_high() -> None:
    lint = Path(sys.executable).with_name("compose-lint")
    done = subprocess.run(
        [lint, "check", "docker-compose.yml"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", sorted(resolved()["services"]))
def test_every_service_is_bounded_watched_and_without_rights(name: str) -> None:
    service = resolved()["services"][name]
    assert service["healthcheck"]["test"]
    assert service["restart"] == "unless-stopped"
    assert int(service["mem_limit"]) > 0
    assert float(service["cpus"]) > 0
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["user"].split(":")[0] not in ("0", "root")


def test_what_keeps_data_keeps_it_in_named_volumes() -> None:
    services = resolved()["services"]
    keepers = {"redis", "postgres", "s3", "prometheus", "grafana"}
    for name in keepers:
        assert [v["source"] for v in services[name]["volumes"] if v["type"] == "volume"] == [name]
    assert set(resolved()["volumes"]) == keepers


def test_secrets_come_from_files_alone() -> None:
    for name, service in resolved()["services"].items():
        for key, value in service.get("environment", {}).items():
            lowered = key.lower()
            if any(word in lowered for word in ("password", "secret", "credentials", "_key")):
                assert str(value).startswith("/run/secrets/"), (name, key)
    for secret in resolved()["secrets"].values():
        assert Path(secret["file"]).parent.name == "secrets"


def test_the_gpu_worker_reserves_one_gpu_and_the_cpu_worker_none() -> None:
    services = resolved()["services"]
    devices = services["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert [(d["driver"], d["count"], d["capabilities"]) for d in devices] == [
        ("nvidia", 1, ["gpu"])
    ]
    assert services["worker-gpu"]["deploy"].get("replicas", 1) == 1, "all would get the same GPU"
    assert not services["worker-cpu"].get("deploy", {}).get("resources")


def test_a_second_gpu_is_a_service_like_the_first() -> None:
    files = [("--file", ROOT / name) for name in ("docker-compose.yml", "docker/two-gpus.yml")]
    done = subprocess.run(
        [COMPOSE, *(w for f in files for w in f), "--profile", "gpu", "config", "--format", "json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    services = json.loads(done.stdout)["services"]
    first, second = (services[name] for name in ("worker-gpu", "worker-gpu-1"))
    (device,) = second.pop("deploy")["resources"]["reservations"]["devices"]
    assert device["device_ids"] == ["1"]
    assert first.pop("deploy") is not None
    assert second == first


def test_workers_are_given_longer_to_stop_than_they_take_to_hand_back() -> None:
    for name in ("worker-cpu", "worker-gpu"):
        service = resolved()["services"][name]
        stop = int(re.sub(r"\D", "", service["stop_grace_period"].replace("1m0s", "60s")))
        assert stop >= 2 * float(service["environment"]["FDA_GRACE_SECONDS"])


@pytest.mark.parametrize("name", sorted(OURS))
def test_our_commands_and_checks_name_modules_that_exist(name: str) -> None:
    service = resolved()["services"][name]
    for command in (service["command"], service["healthcheck"]["test"][1:]):
        assert command[:2] == ["python", "-m"]
        assert find_spec(command[2]) is not None, command


@pytest.mark.parametrize("name", ["api", "worker"])
def test_images_copy_what_exists_and_run_without_root(name: str) -> None:
    text = (ROOT / "docker" / f"{name}.Dockerfile").read_text().replace("\\\n", " ")
    lines = text.splitlines()
    orders = [shlex.split(line) for line in lines if re.match(r"[A-Z]+ ", line)]
    copied = [o[1:-1] for o in orders if o[0] == "COPY" and not o[1].startswith("--from")]
    allowed = (ROOT / ".dockerignore").read_text().split()
    for source in (path for paths in copied for path in paths):
        assert (ROOT / source).exists()
        assert f"!{source.removeprefix('./')}" in allowed
    users = [o[1] for o in orders if o[0] == "USER"]
    assert users == ["10001:10001"]
    commands = [o for o in orders if o[0] == "CMD"]
    assert len(commands) == 1


def test_the_api_image_installs_nothing_that_brings_torch() -> None:
    text = (ROOT / "docker" / "api.Dockerfile").read_text()
    (extras,) = re.findall(r'pip install "\.\[([a-z0-9,]+)\]"', text)
    assert not {"engine", "service", "test"} & set(extras.split(","))


def test_secrets_are_random_made_once_and_hidden(tmp_path: Path) -> None:
    script = tmp_path / "docker" / "make-secrets.sh"
    script.parent.mkdir()
    script.write_bytes((ROOT / "docker" / "make-secrets.sh").read_bytes())
    subprocess.run(["sh", script], check=True, capture_output=True, timeout=30)
    folder = script.parent / "secrets"
    made = {path.name: path.read_bytes() for path in folder.iterdir()}
    wanted = {Path(s["file"]).name for s in resolved()["secrets"].values()}
    assert set(made) == wanted
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert made["postgres_password"] in made["fda_database_url"]
    assert made["redis_password"] in made["fda_redis_url"]
    assert len({made[n] for n in ("postgres_password", "redis_password", "fda_secret")}) == 3
    identity = json.loads(made["s3_identities"])["identities"][0]["credentials"][0]
    assert identity["secretKey"].encode() in made["aws_credentials"]
    subprocess.run(["sh", script], check=True, capture_output=True, timeout=30)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == made


def test_the_file_names_no_image_without_a_version() -> None:
    document = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    for service in document["services"].values():
        _, _, tag = service["image"].partition(":")
        assert tag
        assert tag != "latest"
