from pathlib import Path

import pytest
import torch

from fda_core.errors import BadParameter, NoDevice
from worker.devices import Devices, host_memory, queues_for
from worker.settings import Settings, visible_devices


def devices(kind: str) -> Devices:
    return Devices(main=torch.device(kind), cpu=torch.device("cpu"), name="x")


def test_settings_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FDA_QUEUES", "gpu, cpu")
    monkeypatch.setenv("FDA_ROOTS", '["s3://models/", "here"]')
    monkeypatch.setenv("FDA_WORKSPACE", "/work/space/")
    monkeypatch.setenv("FDA_METRICS_PORT", "")
    settings = Settings()
    assert settings.queues == ("gpu", "cpu")
    assert settings.allowed == ("s3://models", str(tmp_path / "here"), "/work/space")
    assert settings.metrics_port is None


@pytest.mark.parametrize(
    ("device", "visible", "expected"),
    [
        ("auto", None, ("auto", None)),
        ("cuda", "3", ("cuda", None)),
        ("cpu", "0,1", ("cpu", "")),
        ("cuda:1", None, ("cuda:0", "1")),
        ("cuda:1", "4, 7", ("cuda:0", "7")),
    ],
)
def test_a_process_sees_its_own_gpu_alone(
    device: str, visible: str | None, expected: tuple[str, str | None]
) -> None:
    assert visible_devices(device, visible) == expected


def test_a_gpu_that_is_not_shown_is_refused_with_the_count() -> None:
    with pytest.raises(BadParameter, match="shows 1 devices"):
        visible_devices("cuda:1", "7")


@pytest.mark.parametrize(("name", "torch_name"), [("gpu", "cuda"), ("gpu-large", "cuda")])
def test_the_names_of_queues_are_understood_as_devices(name: str, torch_name: str) -> None:
    assert Settings(device=name).torch_device == torch_name


def test_queues_follow_the_device() -> None:
    assert queues_for(devices("cpu"), ()) == ("cpu",)
    assert queues_for(devices("cuda"), ()) == ("gpu", "cpu")
    assert queues_for(devices("cuda"), ("gpu-large", "gpu", "gpu")) == ("gpu-large", "gpu")
    with pytest.raises(NoDevice):
        queues_for(devices("cpu"), ("cpu", "gpu"))


def test_a_jobs_layers_are_computed_on_its_kind_of_device() -> None:
    assert devices("cuda").of("cpu").type == "cpu"
    assert devices("cuda").of("gpu").type == "cuda"
    assert devices("cpu").of("cpu").type == "cpu"


def test_host_memory_is_that_of_the_container_where_it_is_limited(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "memory.max").write_text("1048576\n")
    (tmp_path / "memory.current").write_text("4096\n")
    monkeypatch.setattr("worker.devices._CGROUP", tmp_path)
    assert host_memory() == (1048576, 4096)
    (tmp_path / "memory.max").write_text("max\n")
    total, used = host_memory()
    assert total > used > 4096
