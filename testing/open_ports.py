"""Which sockets of some processes can be reached from other machines, by the kernel's own tables."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

LISTENING = {"tcp": "0A", "tcp6": "0A", "udp": "07", "udp6": "07"}
"""Tables of /proc/net, and the state of a socket in them that takes what comes."""
LOCALHOST_6 = "00000000000000000000000001000000"
AS_IPV6 = "0000000000000000FFFF0000"


def open_ports(marked: str) -> set[str]:
    """Sockets beyond the loopback of the processes that have ``marked`` in their environment: table, address and port
    in hexadecimals, as /proc/net has them, and the process."""
    found = set()
    owners = _sockets_of(marked)
    for table, state in LISTENING.items():
        path = Path("/proc/net", table)
        for line in path.read_text().splitlines()[1:] if path.exists() else ():
            cells = line.split()
            if cells[3] == state and cells[9] in owners and not on_loopback(cells[1].partition(":")[0]):
                found.add(f"{table} {cells[1]} {owners[cells[9]]}")
    return found


def on_loopback(address: str) -> bool:
    """Whether an address of /proc/net is 127.x.x.x, written as IPv6 perhaps, or ::1."""
    as_ipv4 = address.removeprefix(AS_IPV6)
    return address == LOCALHOST_6 or (len(as_ipv4) == 8 and as_ipv4.endswith("7F"))


def _sockets_of(marked: str) -> dict[str, str]:
    """Inodes of sockets, and the command that has each open."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if marked.encode() in (process / "environ").read_bytes():
                for descriptor in (process / "fd").iterdir():
                    with suppress(OSError):
                        name = str(descriptor.readlink())
                        if name.startswith("socket:["):
                            found[name[8:-1]] = (process / "comm").read_text().strip()
    return found
