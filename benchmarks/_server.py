"""A Prefect server of a benchmark's own, for commands of `mgd` in this process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PATIENCE = 1800.0
"""Seconds that it may take to answer, on a machine that is busy with other things."""


@contextmanager
def own_server(directory: Path) -> Iterator[dict[str, str]]:
    """Inside, commands take the server below ``directory`` for the user's; it is stopped at the end. Yields the
    variables by which other processes do."""
    from flows.runtime import ensure_server, prepare_environment, stop_server
    from flows.runtime.environment import CLIENT_AUTH, password, prefect_home

    prepare_environment(directory)
    url = ensure_server(directory, timeout=PATIENCE)
    said = {"PREFECT_API_URL": url, CLIENT_AUTH: password(prefect_home(directory))}
    os.environ.update(said)
    try:
        yield said
    finally:
        for name in said:
            os.environ.pop(name)
        stop_server(directory)
