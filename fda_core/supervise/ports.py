"""Ports: is one free, and which is."""

import errno
import socket

from fda_core.errors import PortTaken, ProcessFailed


def check_free(host: str, port: int) -> int:
    """Return the port, or a free one for 0. Raises `PortTaken` if another program has it."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as problem:
        raise _bad_host(host, problem) from problem
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As servers do: a port whose last connections are still closing is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as problem:
            if problem.errno in (errno.EADDRINUSE, errno.EACCES):
                raise PortTaken(
                    f"port {port} of {host} is taken or not allowed: {problem.strerror}",
                    hint="Give another --port; 0 takes any free one.",
                    port=port,
                ) from problem
            raise _bad_host(host, problem) from problem
        return int(probe.getsockname()[1])


def _bad_host(host: str, problem: OSError) -> ProcessFailed:
    return ProcessFailed(
        f"{host} is no address of this machine: {problem.strerror or problem}",
        hint="Give --host 127.0.0.1, 0.0.0.0 or a name of this machine.",
        host=host,
    )
