"""A server of one explorer on the loopback address, until Ctrl-C."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from mgd_core.errors import UserError
from tasks.explore.explorer import Explorer
from tasks.explore.service import app

ADDRESS = "127.0.0.1"


class PortTaken(UserError, OSError):
    """No server can listen at a port."""


@contextmanager
def listening(port: int | None) -> Iterator[socket.socket]:
    """A socket at a port of this machine alone, or at any that is free; raises PortTaken."""
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind((ADDRESS, port or 0))
        except (OSError, OverflowError) as error:
            told = f"--port {port}: {error}; give another, or leave it out to take any that is free"
            raise PortTaken(told) from error
        yield one


def server(explorer: Explorer, port: int, token: str) -> uvicorn.Server:
    """The server; `run(sockets=[...])` answers until it is told to end. What is asked is logged nowhere: an address
    with the token is a password."""
    return uvicorn.Server(
        uvicorn.Config(app(explorer, port, token), log_level="warning", access_log=False, lifespan="off")
    )
