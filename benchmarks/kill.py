"""Does a killed round lose anything? SIGKILL at random instants, a damaged state, and a disk that fills up.

`python -m benchmarks.kill` trains and differentiates one round of a small curation (the demo's CLIP on 240 of its
pairs, by `tasks.curation.rounds` as `mgd curate` does it: forward sweep, reverse sweep with states on disk, probes
shard by shard) in child processes, and ends them by SIGKILL at instants drawn from a seed: in each phase, in the
middle of steps, of writes and of replays. The next child goes on; the last one ends by itself.

* `kills`: processes killed;  `mismatches`: rounds whose final bytes differ from an uninterrupted one's;
* `lost`: steps of progress that a kill lost beyond the stated interval (`checkpoint_steps`), summed over the kills;
* a state file with one changed bit, and a full disk (a tmpfs that is filled up while the child runs; where none can be
  mounted, a limit on file sizes): how many ended with a clear message, and then with the same bytes.

It also measures what the disk tier costs: MiB a second of writing (flushed to the disk), reading and fingerprints.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import random
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import NamedTuple

from safetensors import safe_open

from benchmarks._envelope import emit
from testing.children import CHILDREN

STEPS, START, SHARDS = 20, 6, 3
WINDOW = STEPS - START
INTERVAL = 4
RECIPE = [
    ("steps = 8", f"steps = {STEPS}"),
    ("window_start = 4", f"window_start = {START}"),
    ("batch = 32", "batch = 16"),
    ("probe_steps = [4, 6]", "probe_steps = [7, 14]"),
    ("rounds = 2", f'plan = "segments"\nslots = 2\ndisk_states = 4\ncheckpoint_steps = {INTERVAL}\nrounds = 2'),
]
PHASES = {  # units of progress: steps forward, then steps in reverse, then shards
    "forward": (1, STEPS),
    "reverse": (STEPS + 1, STEPS + WINDOW),
    "probe": (STEPS + WINDOW + 1, STEPS + WINDOW + SHARDS),
}
PATIENCE = 300.0  # seconds for a child to get anywhere
KILLS, QUICK_KILLS = 36, 5


def prepare(place: str) -> None:
    """In a child: build the pool and begin the run."""
    from tasks.catalog.catalogs import load_catalog
    from tasks.curation import estimate
    from tasks.curation.begin import begin_run
    from tasks.pool import pools
    from testing.small_catalog import small_catalog

    path = small_catalog(Path(place), *RECIPE)
    home, options = Path(place) / "home", load_catalog(path)
    pool = pools.build_pool(str(options.pool.source), home, options.pool.build_options())
    estimate.prepare(begin_run(home, path, pool).directory)


def work(directory: str, log: str, room: int | None) -> None:
    """In a child: do the round, writing each unit of work to ``log``. ``room``: limit on file sizes from step 10 on."""
    from tasks.curation import rounds
    from tasks.files import progress

    lines = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(what: str, done: int, total: int) -> None:
        if total:
            os.write(lines, f"{what.split(': ')[1]} {done}\n".encode())
        if room is not None and "train" in what and done == 10:
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))

    progress.watch(note)
    try:
        rounds.train_round(Path(directory), 0, True)
        for number, shard in enumerate(rounds.shard_names(Path(directory)), start=1):
            note("0: probe", number, SHARDS)
            rounds.probe_shard(Path(directory), 0, shard)
    except Exception as error:
        os.write(lines, f"error {type(error).__name__}: {error}\n".encode())
        os._exit(1)


@dataclass
class Round:
    """A round in a home of its own, and the child that works on it."""

    home: Path
    begun: int = 0
    children: int = 0

    @property
    def directory(self) -> Path:
        """The run's directory."""
        return next((self.home / "runs").iterdir())

    @property
    def states(self) -> Path:
        """Where its states and records lie."""
        return self.directory / "work" / "round-000" / "states"

    @property
    def log(self) -> Path:
        """What the last child wrote."""
        return self.home / f"log-{self.children}"

    def start(self, room: int | None = None) -> ForkServerProcess:
        """A child that goes on with the round."""
        self.begun, self.children = self.durable(), self.children + 1
        self.log.touch()
        child = CHILDREN.Process(target=work, args=(str(self.directory), str(self.log), room))
        child.start()
        return child

    def finish(self) -> str:
        """A child that is let alone; returns the error it ended with, if it did."""
        child = self.start()
        child.join(PATIENCE)
        return self.error()

    def error(self) -> str:
        """What the last child ended with."""
        return next((line for line in self.log.read_text().splitlines() if line.startswith("error")), "")

    def reached(self) -> int:
        """Units of progress of the last child and of those before it."""
        units = self.begun
        for line in self.log.read_text().splitlines():
            what, _, done = line.partition(" ")
            if what == "train" and self.begun < STEPS:  # else it is a replay
                units = max(units, int(done))
            elif what in ("reverse", "probe"):
                units = max(units, (STEPS if what == "reverse" else STEPS + WINDOW) + int(done))
        return units

    def durable(self) -> int:
        """Units that a child started now need not do again, by what lies on the disk (shards are not counted)."""
        if self.states.with_name("replayed.json").exists():
            return STEPS + WINDOW
        found = {path.stem: path for path in self.states.glob("*.safetensors")}
        if {"turn", "reverse"} <= found.keys():
            return STEPS + (STEPS - int(_facts(found["reverse"])["position"]))
        return int(_facts(found["forward"])["step"]) if "forward" in found else 0

    def digest(self) -> str:
        """Digest of the round's final bytes."""
        files = sorted((self.directory / "work" / "round-000").glob("*.safetensors"))
        assert len(files) == 1 + SHARDS, f"{self.home}: unfinished: {self.error()}"
        return hashlib.blake2b(b"".join(path.read_bytes() for path in files)).hexdigest()


class Kill(NamedTuple):
    """A kill: the phase, units of progress done before it, and those that were kept."""

    phase: str
    reached: int
    kept: int

    @property
    def beyond(self) -> int:
        """Units lost beyond the stated interval."""
        return max(0, min(self.reached, STEPS + WINDOW) - self.kept - INTERVAL)


def wait_for(round: Round, child: ForkServerProcess, ready: Callable[[], bool]) -> bool:
    """Whether ``ready`` came true while the child ran."""
    deadline = time.monotonic() + PATIENCE
    while not ready():
        if not child.is_alive():
            return False
        assert time.monotonic() < deadline, f"{round.home}: nothing happens after {round.log.read_text()[-80:]}"
        time.sleep(0.002)
    return True


def kill_in(round: Round, phase: str, draw: random.Random, unit_seconds: float) -> Kill | None:
    """Start a child and kill it at a random instant of a phase; None where it was through before."""
    low, high = PHASES[phase]
    target = draw.randint(min(max(low, round.durable() + 1), high), high)
    child = round.start()
    wait_for(round, child, lambda: round.reached() >= target)
    time.sleep(draw.uniform(0, 1.5 * unit_seconds))
    child.kill()
    child.join()
    return Kill(phase, round.reached(), round.durable()) if child.exitcode == -9 else None


@contextlib.contextmanager
def full_disk(round: Round) -> Iterator[Callable[[bool], None] | None]:
    """A small file system for the round's states and a switch that fills it up; None where none may be mounted."""
    round.states.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(round.states)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        yield None
        return
    ballast = round.states / "ballast"

    def fill(full: bool) -> None:
        if not full:
            ballast.unlink()
        else:
            with contextlib.suppress(OSError), open(ballast, "wb", buffering=0) as file:
                while file.write(bytes(4096)):
                    pass

    yield fill
    subprocess.run(["umount", "-l", str(round.states)], check=True)


def stop_by_full_disk(round: Round) -> bool:
    """Fill the disk in the middle of a round; whether the message was clear. The disk has room again at the end."""
    with full_disk(round) as fill:
        if fill is None:
            child = round.start(room=1 << 16)
            child.join(PATIENCE)
        else:
            child = round.start()
            wait_for(round, child, lambda: round.reached() >= 10)
            fill(True)
            child.join(PATIENCE)
            fill(False)
        error = round.error()
        print(f"full disk ({'file size limit' if fill is None else 'tmpfs'}): {error}", flush=True)
        clear = "NoRoom" in error and "free some space and give the same command again" in error
        return clear and not round.finish()


def stop_by_damage(round: Round) -> bool:
    """Change a bit of a state that is needed; whether the message was clear. The file is removed, as it says."""
    child = round.start()
    wait_for(round, child, lambda: round.reached() > STEPS + INTERVAL)  # recorded once, and steps are left
    child.kill()
    child.join()
    needed = sorted(round.states.glob("state-*"))[0]
    data = bytearray(needed.read_bytes())
    data[len(data) // 2] ^= 1
    needed.write_bytes(data)
    error = round.finish()
    print(f"damaged state: {error}", flush=True)
    needed.unlink()
    return "CorruptState" in error and needed.name in error and not round.finish()


def disk_rates(place: Path, mib: int) -> dict[str, float]:
    """MiB a second: files written and flushed, read and checked, and fingerprints alone. Best of three."""
    import torch

    from mgd_core.engine.fingerprints import fingerprint
    from mgd_core.engine.state_files import StateFiles
    from mgd_core.engine.store import named
    from mgd_core.training.optimizers import State

    torch.set_num_threads(1)
    draw = torch.Generator().manual_seed(0)
    state = State(*(lambda x: (x[0], (x[1], x[2])))(torch.randn(3, mib << 18, generator=draw).div(3).unbind()))
    files, seconds = StateFiles(place / "rates", "key"), []
    for _ in range(3):
        began = time.perf_counter()
        fingerprint(state)
        printed = time.perf_counter()
        files.write("state", named(state))
        written = time.perf_counter()
        files.read("state")
        seconds.append((printed - began, written - printed, time.perf_counter() - written))
    best = [3 * mib / min(column) for column in zip(*seconds, strict=True)]
    return dict(zip(("fingerprint_mib_s", "write_mib_s", "read_mib_s"), best, strict=True))


def main() -> None:
    """Print a line for each round, the messages, and the rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer kills: under 45 s")
    parser.add_argument("--seed", type=int, default=0, help="of the instants")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory(prefix="mgd-kill-") as place:
        emit("kill", measure(Path(place), options.quick, random.Random(options.seed)))


def measure(place: Path, quick: bool, draw: random.Random) -> dict[str, object]:
    """All figures."""
    maker = CHILDREN.Process(target=prepare, args=(str(place),))
    maker.start()
    maker.join()
    assert maker.exitcode == 0, "the run could not be prepared"

    def fresh(name: str) -> Round:
        return Round(shutil.copytree(place / "home", place / name))

    whole = fresh("whole")
    began = time.monotonic()
    assert not whole.finish(), whole.error()
    seconds, expected = time.monotonic() - began, whole.digest()
    unit = seconds / (STEPS + WINDOW + SHARDS)
    print(f"uninterrupted: {seconds:.1f} s; {STEPS} steps forward, {WINDOW} in reverse, {SHARDS} shards", flush=True)
    kills: list[Kill] = []
    lives = mismatches = 0
    while len(kills) < (QUICK_KILLS if quick else KILLS):
        round = fresh(f"life-{lives}")
        found = [kill_in(round, phase, draw, unit) for phase in PHASES]
        error = round.finish()
        same = not error and round.digest() == expected
        mismatches += not same
        kills += [kill for kill in found if kill is not None]
        told = ", ".join(f"{kill.phase} at {kill.reached} (kept {kill.kept})" for kill in found if kill is not None)
        lives += 1
        print(f"round {lives}: killed in {told}: {'same bytes' if same else error or 'OTHER BYTES'}", flush=True)
    damaged, filled = fresh("damaged"), fresh("filled")
    stops = {
        "corrupted_stops": int(stop_by_damage(damaged)),
        "full_disk_stops": int(stop_by_full_disk(filled)),
    }
    mismatches += (damaged.digest() != expected) + (filled.digest() != expected)
    rates = disk_rates(place, 16 if quick else 128)
    print("disk tier, MiB/s: " + ", ".join(f"{name.split('_')[0]} {value:,.0f}" for name, value in rates.items()))
    lost = sum(kill.beyond for kill in kills)
    return {
        "kills": len(kills),
        "rounds": lives,
        "mismatches": mismatches,
        "lost": lost,
        "interval": INTERVAL,
        **stops,
        **rates,
    }


def _facts(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return dict(file.metadata())


if __name__ == "__main__":
    main()
