"""Files passed over: what lies in a pool's directory, looks like data, and is not read; to be told, never silent."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from fnmatch import fnmatch

from tasks.remotes import RemoteOptions, address, list_files

SHOWN = 5


def passed_over(
    folder: str, taken: Collection[str], looks: Sequence[str], options: RemoteOptions | None = None
) -> list[str]:
    """Names of the files directly in `folder` that match one of `looks`, in any case, and whose address is not among
    `taken`. Costs one listing."""
    found = []
    for entry in list_files(folder, options):
        name = str(entry["name"]).rpartition("/")[2]
        is_like = any(fnmatch(name.lower(), look) for look in looks)
        if entry["type"] != "directory" and is_like and address(folder, str(entry["name"])) not in taken:
            found.append(name)
    return found


def told_passed_over(folder: str, names: Sequence[str], read: Sequence[str]) -> str:
    """The sentence on files that were passed over; `read`: what is read of a directory."""
    shown = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
    files = f"{len(names):,} file{'s' * (len(names) != 1)}"
    return f"{folder}: {files} there passed over: {shown}. Of a directory {', '.join(read)} are read; name others"
