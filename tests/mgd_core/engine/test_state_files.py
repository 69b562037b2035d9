"""Files of states: what is written comes back, and what was changed, cut off, foreign or too large is told."""

import errno
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mgd_core.engine.background import Background
from mgd_core.engine.disk_store import DiskStore
from mgd_core.engine.state_files import PARTIAL, CorruptState, ForeignState, NoRoom, StateFiles
from mgd_core.engine.store import HostStore, MemoryStore, Peaks, Store, Tier
from mgd_core.training.optimizers import State


def state(value: float, n: int = 3, dtype: torch.dtype = torch.float32) -> State:
    return State(torch.full((n,), value, dtype=dtype), (torch.zeros(n), torch.arange(n).double()))


def same(first: State, second: State) -> bool:
    return all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(first.tensors, second.tensors, strict=True))


@pytest.fixture
def files(tmp_path: Path) -> StateFiles:
    return StateFiles(tmp_path / "states", "key-1")


@pytest.fixture
def disk(files: StateFiles) -> Iterator[DiskStore]:
    writer = Background()
    store = DiskStore(files, writer)
    yield store
    writer.close()
    store.close()


def test_tensors_and_facts_come_back(files: StateFiles):
    tensors = {"a": torch.randn(3, 4), "b": torch.arange(5), "c": torch.tensor(1.5), "d": torch.zeros(0)}
    files.write("one", tensors | {"e": torch.randn(4, 3).T.bfloat16()}, step="7")
    found, facts = files.read("one")
    assert facts == {"step": "7"} and files.names() == ["one"]
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    assert found["e"].dtype == torch.bfloat16 and set(load_file(files.path("one"))) == set("abcde")


def test_what_is_read_lies_as_torch_lays_it(files: StateFiles):
    """Bits may depend on alignment, and a file's mapping has any."""
    files.write("one", {"a": torch.randn(3), "b": torch.randn(1001)})
    assert all(tensor.data_ptr() % 64 == 0 for tensor in files.read("one")[0].values())


def test_a_newer_file_replaces_the_older_whole(files: StateFiles):
    files.write("one", {"a": torch.zeros(3)}, step="1")
    files.write("one", {"b": torch.ones(3)}, step="2")
    assert files.read("one")[0].keys() == {"b"}
    files.remove("one")
    files.remove("one")
    assert files.names() == []
    with pytest.raises(FileNotFoundError):
        files.read("one")


def test_what_a_killed_writer_left_is_swept(files: StateFiles):
    (files.directory / PARTIAL / "one").write_bytes(b"half")
    again = StateFiles(files.directory, files.key)
    assert again.names() == [] and not list((files.directory / PARTIAL).iterdir())


def test_a_foreign_file_is_refused_with_both_keys(files: StateFiles):
    files.write("one", {"a": torch.zeros(3)})
    with pytest.raises(ForeignState, match=r"one.safetensors: belongs to key-1, this run is key-2.*remove "):
        StateFiles(files.directory, "key-2")


@pytest.mark.parametrize("at", range(-1, -220, -6))
def test_any_changed_byte_is_noticed(files: StateFiles, at: int):
    files.write("one", {"a": torch.randn(20)}, step="7")
    path = files.path("one")
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(data)
    with pytest.raises((CorruptState, ForeignState), match=r"one\.safetensors.*emove"):
        files.read("one")


@pytest.mark.parametrize("length", [0, 7, 100, -1])
def test_a_cut_off_file_is_noticed(files: StateFiles, length: int):
    files.write("one", {"a": torch.randn(20)})
    files.path("one").write_bytes(files.path("one").read_bytes()[:length])
    with pytest.raises(CorruptState, match=r"one\.safetensors: not readable.*Remove it and give the same"):
        StateFiles(files.directory, files.key)


def test_room_is_checked_ahead(files: StateFiles):
    files.write("one", {"a": torch.zeros(1000)})
    free = shutil.disk_usage(files.directory).free
    files.check_room(free // 2, "the states")
    with pytest.raises(NoRoom, match=r"the states need [\d,]+ bytes in .*, where 4,\d+ are in use.*are free"):
        files.check_room(2 * free + 10**9, "the states")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Room for 1 MiB: a file system of its own where one may be mounted, else a limit on file sizes."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    mounted = shutil.which("mount") and subprocess.run(mount, capture_output=True).returncode == 0
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    if not mounted:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    yield place
    if mounted:
        subprocess.run(["umount", "-l", str(place)], check=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_told_and_what_was_there_stays(small_disk: Path):
    files = StateFiles(small_disk / "states", "key")
    files.write("one", {"a": torch.zeros(1000)})
    with pytest.raises(NoRoom, match=r"one needs 8,000,000 bytes, and [\d,]+ are free.*give the same command") as error:
        files.write("one", {"a": torch.randn(2_000_000)})
    assert error.value.errno in (errno.ENOSPC, errno.EFBIG)
    assert torch.equal(files.read("one")[0]["a"], torch.zeros(1000))
    assert not list((files.directory / PARTIAL).iterdir())


def test_after_a_failed_write_nothing_more_is_written_or_removed(small_disk: Path):
    files, writer = StateFiles(small_disk / "states", "key"), Background()
    store = DiskStore(files, writer)
    store.save(1, state(1.0))
    store.save(2, state(2.0, 2_000_000))
    with pytest.raises(NoRoom):
        store.free(1)
        writer.flush()
    with pytest.raises(NoRoom):
        store.save(3, state(3.0))
        writer.flush()
    writer.close()
    store.close()
    assert files.names() == ["state-00000001"]


def test_states_come_back_from_every_tier(disk: DiskStore):
    store = Store(disk)
    kept = {step: state(step, n, torch.bfloat16 if step == 2 else torch.float32) for step, n in ((0, 3), (2, 40_000))}
    for tier in Tier:
        for step, one in kept.items():
            store.save(step, one, tier)
        assert store.kept(tier) == [0, 2]
    disk.writer.flush()
    for tier in Tier:
        store.prefetch(2, tier)
        store.prefetch(9, tier)
        assert same(store.load(2, tier), kept[2]) and same(store.load(0, tier, torch.device("cpu")), kept[0])
        assert same(store.load(2, tier), kept[2])
        store.free(0, tier)
        assert store.kept(tier) == [2]
        with pytest.raises((KeyError, FileNotFoundError)):
            disk.writer.flush()
            store.load(0, tier)


def test_memory_costs_a_reference():
    one = state(1.0)
    for store in (MemoryStore(), HostStore()):
        store.save(3, one)
        assert store.load(3) is one


def test_a_state_on_its_way_to_disk_is_there_at_once(disk: DiskStore):
    one = state(1.0, 100_000)
    disk.save(4, one)
    assert same(disk.load(4), one)
    disk.writer.flush()
    assert not disk._leaving, "what is written is not held any longer"
    again = DiskStore(disk.files, disk.writer)
    assert list(again.kept) == [4] and same(again.load(4), one)
    again.close()


def test_peaks_count_each_tier():
    peaks = Peaks()
    for step in range(3):
        peaks.save(step, Tier.DEVICE)
    peaks.free(1, Tier.DEVICE)
    peaks.save(7, Tier.DISK)
    peaks.free(3, Tier.DISK)
    peaks.save(5, Tier.DEVICE)
    assert peaks.states == {Tier.DEVICE: 3, Tier.DISK: 1}
