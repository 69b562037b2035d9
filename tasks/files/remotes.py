"""Remote stores: reading from whatever fsspec reaches, each request with a deadline, and again where that can help.

A fault is lasting (no such file, no permission, a request that the store will never like) or passing (a reset, a 503,
a timeout, a short answer, anything unknown). Lasting ones are raised at once; passing ones are tried again after
waits that double, with jitter, and end as RemoteFault with what was asked, where, how often and what came back. Only
the ranges that failed are asked for again.

Costs one request a look-up, and one a range of at most `chunk_mib`. Local files and `memory://` go the same way,
without deadlines. The stores' own settings (endpoint, keys, profile) are theirs: the environment variables of s3fs
and gcsfs, or fsspec's configuration.
"""

from __future__ import annotations

import asyncio
import errno
import os
import random
import re
import time
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any, TypeVar
from urllib.parse import urlsplit

from fsspec import AbstractFileSystem
from fsspec.asyn import sync
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from pydantic import Field

from mgd_core.errors import UserError
from tasks.files.local_files import followed
from tasks.files.option_types import Section

T = TypeVar("T")
Range = tuple[int, int]
"""Bytes [start, end) of a file."""

# The store answered, and would give the same answer again. EINVAL is what s3fs makes of most refusals.
LASTING_ERRNO = {
    errno.EINVAL,
    errno.ENOSYS,
    errno.EPERM,
    errno.EACCES,
    errno.ENAMETOOLONG,
    errno.ENOTDIR,
    errno.ENOSPC,
    errno.ELOOP,
}
LASTING = (
    FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ImportError, ValueError, MemoryError,
)  # fmt: skip
# Statuses below 500 that ask for patience: timeout, too early, too many requests.
PATIENT_STATUS = {408, 425, 429}
ALLOWED_URLS = "MGD_ALLOWED_URLS"
"""Environment variable of a deployment: what may be read, `scheme://host` each, with * and ?; unset: any place."""
AT_ONCE = 32
"""Requests of one call that are under way together."""
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}
"""Extras of this package that bring a protocol's file system."""


class NotAllowed(UserError, PermissionError):
    """An address that this deployment does not let anyone read."""


class StoreMissing(UserError, ImportError):
    """A URL's protocol needs a package that is not installed; names it."""


class WrongAnswer(UserError, ValueError):
    """A server that answers something else than it was asked, and always will."""


class RemoteFault(UserError, OSError):
    """A store did not give what it has, however often it was asked."""


class RemoteOptions(Section):
    """How patiently remote stores are read, and how much of them is kept here. None of it changes a result."""

    attempts: int = Field(default=8, ge=1, le=10_000, description="times a request is made before it has failed")
    timeout_s: float = Field(default=60.0, gt=0, description="seconds in which one request must have answered")
    first_wait_s: float = Field(default=0.2, ge=0, description="seconds before the second attempt; each wait doubles")
    longest_wait_s: float = Field(default=20.0, ge=0, description="seconds that no wait exceeds")
    chunk_mib: int = Field(default=8, ge=1, le=512, description="MiB asked for at once when a file is read through")
    cache_gib: float = Field(default=4.0, ge=0, description="GiB of remote shards kept below <home>/cache; 0: none")

    @property
    def chunk(self) -> int:
        """Bytes asked for at once."""
        return self.chunk_mib << 20


def store_of(url: str) -> tuple[AbstractFileSystem, str]:
    """File system and path of a URL or local path; raises StoreMissing naming what to install for its protocol."""
    _check_allowed(url)
    if "://" not in url:  # `::` in it is no chain of stores, but part of a name
        return LocalFileSystem(), str(LocalFileSystem._strip_protocol(url))
    try:
        fs, path = url_to_fs(url)
    except ImportError as error:
        extra = EXTRAS.get(url.partition("://")[0])
        how = f"; install it with: pip install 'mgd[{extra}]'" if extra else ""
        raise StoreMissing(f"{url}: {error}{how}") from error
    except UserError:
        raise
    except Exception as error:  # a file system of somebody's may ask its server what the address means
        if str(error).startswith("Protocol not known"):
            known = f"{url.partition('://')[0]}:// is no kind of address that is known here. Check the spelling"
            raise StoreMissing(f"{url}: {known}, or install the fsspec file system for it") from error
        what = f"{type(error).__name__}: {error}".rstrip(": ")
        raise RemoteFault(f"{url}: its store cannot be asked ({what}). Check the address and the network") from error
    return fs, str(path)


def _check_allowed(url: str) -> None:
    """Raise NotAllowed for an address that the environment's list, where there is one, does not have."""
    listed = os.environ.get(ALLOWED_URLS)
    if listed is None or "://" not in url:
        return
    parts = urlsplit(url)
    place = f"{parts.scheme}://{parts.hostname or ''}".lower()
    # A chain of stores, or signs that parsers of addresses read in two ways, could mean another place than this one.
    plain = "::" not in url and not re.search(r"[\\\s\0-\x1f]", url.partition("?")[0])
    if not (plain and (is_local(url) or any(fnmatchcase(place, one.lower().rstrip("/")) for one in listed.split()))):
        raise NotAllowed(
            f"{url}: {place} is not among the places that may be read here ({ALLOWED_URLS}={listed!r}). Copy the files "
            "to one of them, or have it added by whoever runs this"
        )


def is_local(url: str) -> bool:
    """Whether a URL or path is a file of this machine."""
    return "://" not in url or url.startswith(("file://", "local://"))


def split_query(url: str) -> tuple[str, str]:
    """A web address without its query (a signed one carries its key there), and the query with its `?`; what another
    address, or a `?` among file names, is: nothing."""
    head, mark, query = url.partition("?") if url.startswith(("http://", "https://")) else (url, "", "")
    return (head, mark + query) if "=" in query or "." not in query else (url, "")


def file_info(url: str, options: RemoteOptions | None = None, fresh: bool = True) -> dict[str, Any]:
    """What the store says of a file (`size`, stamps): now, or, not `fresh`, when its directory was last listed.

    Raises FileNotFoundError.
    """
    fs, path = store_of(url)
    if fresh:  # some stores (hf://) ask their server what to forget
        patiently(url, "look it up", options, lambda: fs.invalidate_cache(path))
    return followed(dict(patiently(url, "look it up", options, lambda: fs.info(path, **deadline(fs, options)))))


def list_files(url: str, options: RemoteOptions | None = None) -> list[dict[str, Any]]:
    """What lies directly in a directory, `name` in full, links followed; empty when there is no such directory, or the
    web server lists none."""
    fs, path = store_of(url)
    try:
        patiently(url, "list it", options, lambda: fs.invalidate_cache(path))
        entries = patiently(url, "list it", options, lambda: fs.ls(path, detail=True, **deadline(fs, options)))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except Exception as error:
        if url.startswith(("http://", "https://")) and is_lasting(error):
            return []  # a signed address is good for its file only
        raise
    return sorted((followed(dict(entry)) for entry in entries), key=lambda entry: str(entry["name"]))


def address(url: str, name: str) -> str:
    """The address of a file that a listing of `url` calls `name`: a path where local, else a URL."""
    fs, _ = store_of(url)
    return name if isinstance(fs, LocalFileSystem) else str(fs.unstrip_protocol(name))


def read_ranges(url: str, ranges: Sequence[Range], options: RemoteOptions | None = None) -> list[bytes]:
    """The bytes of every range, in their order. A range past the file's end comes back short, never padded."""
    fs, path = store_of(url)
    found: dict[int, bytes] = {}

    def ask() -> None:
        waiting = [i for i in range(len(ranges)) if i not in found]
        answers = _ask_ranges(fs, path, [ranges[i] for i in waiting], options)
        for i, answer in zip(waiting, answers, strict=True):
            if isinstance(answer, bytes):
                found[i] = answer
        _raise_worst(answers)

    patiently(
        url, f"read {len(ranges)} ranges from byte {min((start for start, _ in ranges), default=0):,}", options, ask
    )
    return [found[i] for i in range(len(ranges))]


def patiently(url: str, what: str, options: RemoteOptions | None, call: Callable[[], T]) -> T:
    """What `call` returns, made again after passing faults.

    Raises lasting faults as they are, and RemoteFault when the attempts are used up.
    """
    options = options or RemoteOptions()
    for attempt in range(1, options.attempts + 1):
        try:
            return call()
        except Exception as error:
            if is_lasting(error):
                if isinstance(error, (OSError, *LASTING)):
                    raise
                raise RemoteFault(  # what botocore and aiohttp call it
                    f"{url}: could not {what}: {type(error).__name__}: {error}. Asking again would be in vain: check "
                    "the address, and the keys that it wants"
                ) from error
            if attempt == options.attempts:
                raise RemoteFault(
                    f"{url}: could not {what} in {attempt} attempts of at most {options.timeout_s:g} s each; the last "
                    f"ended with {type(error).__name__}: {error}. Is the store up and reachable? Then give the same "
                    "command again: finished work is kept. Slow stores want a larger pool.remote.timeout_s"
                ) from error
        # Jitter, so that many readers that failed together do not come back together.
        wait = min(options.longest_wait_s, options.first_wait_s * 2.0 ** min(attempt - 1, 60))
        time.sleep(wait * (0.5 + random.random() / 2))
    raise AssertionError("attempts are at least 1")


def is_lasting(error: BaseException) -> bool:
    """Whether asking again is in vain."""
    cause = error.__cause__
    if isinstance(error, FileNotFoundError) and cause is not None and not hasattr(cause, "response"):
        return is_lasting(cause)  # fsspec's http calls any failed look-up "not found"; its cause tells
    status = getattr(error, "status", None)
    if isinstance(status, int):
        return 400 <= status < 500 and status not in PATIENT_STATUS
    if isinstance(error, OSError) and error.errno in LASTING_ERRNO:
        return True
    # botocore without keys: NoCredentialsError, PartialCredentialsError, ...
    return isinstance(error, LASTING) or "Credentials" in type(error).__name__


def _ask_ranges(
    fs: AbstractFileSystem, path: str, ranges: list[Range], options: RemoteOptions | None
) -> list[bytes | BaseException]:
    """Each range's bytes, or what went wrong with it; an answer longer than was asked for is a lasting fault."""
    if getattr(fs, "async_impl", False):
        timeout = (options or RemoteOptions()).timeout_s
        answers = sync(fs.loop, _gather, fs, path, ranges, timeout)
    else:
        starts, ends = [start for start, _ in ranges], [end for _, end in ranges]
        answers = fs.cat_ranges([path] * len(ranges), starts, ends, on_error="return")
    return [_fitting(path, *asked, answer) for asked, answer in zip(ranges, answers, strict=True)]


async def _gather(fs: Any, path: str, ranges: list[Range], timeout: float) -> list[bytes | BaseException]:
    """All ranges of a file, `AT_ONCE` at a time, each with a deadline of its own."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(start: int, end: int) -> bytes:
        async with gate:
            return bytes(await asyncio.wait_for(fs._cat_file(path, start=start, end=end), timeout))

    return await asyncio.gather(*(one(*asked) for asked in ranges), return_exceptions=True)


def _fitting(path: str, start: int, end: int, answer: Any) -> bytes | BaseException:
    """The answer, unless it is more than was asked for."""
    if isinstance(answer, BaseException):
        return answer
    if len(answer) > end - start:
        return WrongAnswer(
            f"{path}: asked for {end - start:,} bytes, the server sent {len(answer):,}. It ignores ranges, so single "
            "samples cannot be read from it: copy the files, or serve them with one that takes Range requests"
        )
    return bytes(answer)


def _raise_worst(answers: Sequence[bytes | BaseException]) -> None:
    """Raise a lasting fault if there is one, else a passing one if there is one."""
    faults = [answer for answer in answers if isinstance(answer, BaseException)]
    for fault in sorted(faults, key=lambda fault: not is_lasting(fault))[:1]:
        raise fault


def deadline(fs: AbstractFileSystem, options: RemoteOptions | None) -> dict[str, float]:
    """fsspec's asynchronous file systems take a timeout with every call; it covers the whole of it."""
    return {"timeout": (options or RemoteOptions()).timeout_s} if getattr(fs, "async_impl", False) else {}
