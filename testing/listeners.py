"""Who listens where, as the kernel has it in /proc/net."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

LOOPBACK = {("tcp", "0100007F"), ("tcp6", "00000000000000000000000001000000"), ("udp", "0100007F")}


def listening(pid: int) -> list[tuple[str, str]]:
    """Family and address of each socket on which a process or one of its children listens."""
    held = set()
    for process in [pid, *below(pid)]:
        with suppress(OSError):
            held |= {os.readlink(one) for one in Path(f"/proc/{process}/fd").iterdir() if one.is_symlink()}
    found = []
    for family, waits in (("tcp", "0A"), ("tcp6", "0A"), ("udp", "07"), ("udp6", "07")):
        for line in Path(f"/proc/{pid}/net/{family}").read_text().splitlines()[1:]:
            _, place, _, state, *_, inode = line.split()[:10]
            if state == waits and f"socket:[{inode}]" in held:
                found.append((family, place.partition(":")[0]))
    return found


def below(pid: int) -> list[int]:
    """A process's children, and theirs."""
    own = [int(one) for task in Path(f"/proc/{pid}/task").iterdir() for one in (task / "children").read_text().split()]
    return own + [one for child in own for one in below(child)]
