"""Homes elsewhere: what is published comes there whole and in order, what is there comes here, and one works at a time.

The stores are real: a directory by `file://`, which fsspec writes bit by bit, and an S3 server on loopback.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from tasks.files.artefacts import digest, publish_bytes, publish_json, read_json
from tasks.homes import leases
from tasks.homes.leases import Lease, LeaseHeld, LeaseLost
from tasks.homes.opening import opened, own, own_home
from tasks.homes.stores import Store, StoreRefuses
from tasks.homes.syncing import SMALL, HomeGone, pull, push
from tasks.homes.working_copies import CACHE, NoHome, WorkingCopy, at_hand, elsewhere, removed, run_of, working_copy
from testing.loopback_s3 import loopback_s3, speaking_to

LARGE = b"x" * (SMALL + 1)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with loopback_s3() as where:
        yield "http://{}:{}".format(*where)


@pytest.fixture
def bucket(server: str) -> Iterator[str]:
    name = f"b{secrets.token_hex(4)}"
    with speaking_to(server):
        fsspec.filesystem("s3").mkdir(name)
        yield name


@pytest.fixture(params=["file", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"file://{tmp_path}/there" if request.param == "file" else f"s3://{request.getfixturevalue('bucket')}/a home"


@pytest.fixture
def there(tmp_path: Path) -> str:
    return f"file://{tmp_path}/there"


def machine(monkeypatch: pytest.MonkeyPatch, place: Path, url: str) -> WorkingCopy:
    monkeypatch.setenv(CACHE, str(place))
    return working_copy(url)


def everything(run: str) -> bool:
    return True


def test_a_home_is_the_same_on_another_machine(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (machine(monkeypatch, tmp_path / name, url) for name in "ab")
    publish_bytes(first.root / "tables/counts/run=x/round=0/ä b.parquet", LARGE)
    publish_json(first.root / "tables/_manifests/x.json", {"n": 1})
    for local in (".locks/a", ".staging/b", "cache/c", "pools/p/decoded-1.npy", "runs/x/work/r/states/s", "t/x.lock"):
        publish_bytes(first.root / local, b"here only")
    assert push(first, everything, last=True).files == 2 and push(first, everything, last=True).files == 0
    pull(second)
    part = second.root / "tables/counts/run=x/round=0/ä b.parquet"
    assert read_json(second.root / "tables/_manifests/x.json") == {"n": 1} and not part.exists()
    assert [one.size for one in elsewhere(second.root)] == [len(LARGE)]
    at_hand(part)
    assert part.read_bytes() == LARGE and elsewhere(second.root) == []
    assert push(second, everything, last=True).files == 0
    publish_json(second.root / "tables/_manifests/x.json", {"n": 2})
    assert push(second, everything, last=True).files == 1
    pull(first)
    assert read_json(first.root / "tables/_manifests/x.json") == {"n": 2}
    removed(second.root / "tables")
    shutil.rmtree(second.root / "tables")
    push(second, everything)
    assert Store(url).list() == {}


def test_a_cache_that_was_emptied_in_part_takes_nothing_from_the_home(
    there: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = machine(monkeypatch, tmp_path / "a", there)
    publish_json(copy.root / "runs/x/run.json", {})
    publish_bytes(copy.root / "runs/x/model", LARGE)
    push(copy, everything, last=True)
    shutil.rmtree(copy.root / "runs")
    push(copy, everything, last=True)
    pull(copy)
    assert (copy.root / "runs/x/run.json").exists() and set(Store(there).list()) == {"runs/x/run.json", "runs/x/model"}


def test_what_was_written_elsewhere_meanwhile_is_taken_and_records_beside_it_go(
    there: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (machine(monkeypatch, tmp_path / name, there) for name in "ab")
    for copy, data in ((first, b"one"), (second, b"two")):
        publish_bytes(copy.root / "runs/x/work/data", data)
    publish_json(first.root / "runs/x/work/record.json", {"of": "one"})
    push(second, everything, last=True)
    pull(first)
    assert (first.root / "runs/x/work/data").read_bytes() == b"two"
    assert not (first.root / "runs/x/work/record.json").exists()


def test_a_run_that_was_removed_elsewhere_goes_here_too(
    there: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (machine(monkeypatch, tmp_path / name, there) for name in "ab")
    publish_json(first.root / "runs/x/run.json", {})
    publish_json(first.root / "runs/y/run.json", {})
    push(first, everything, last=True)
    pull(second)
    removed(second.root / "runs/x")
    shutil.rmtree(second.root / "runs/x")
    push(second, everything)
    publish_bytes(first.root / "runs/x/work/not sent", b"")
    pull(first)
    assert [path.name for path in (first.root / "runs").iterdir()] == ["y"]


def test_an_empty_place_where_a_home_was_is_told(there: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = machine(monkeypatch, tmp_path / "a", there)
    publish_json(copy.root / "runs/x/run.json", {})
    push(copy, everything, last=True)
    shutil.rmtree(tmp_path / "there")
    with pytest.raises(HomeGone, match="Is it the right store"):
        pull(copy)
    assert (copy.root / "runs/x/run.json").exists()


def test_names_that_lead_out_of_the_home_are_not_followed(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("../../../evil", "runs/../../../evil", "/evil", "good"):
        fsspec.filesystem("s3").pipe_file(f"{bucket}/home/{name}", b"")
    copy = machine(monkeypatch, tmp_path / "a", f"s3://{bucket}/home")
    pull(copy)
    assert (copy.root / "good").exists() and not [path for path in tmp_path.rglob("evil")]


@pytest.mark.parametrize("wrong", ["https://host/x", "memory://x", "s3:/bucket/x", "s3://"])
def test_places_that_can_hold_no_home(wrong: str) -> None:
    with pytest.raises(NoHome, match="no home can be there"):
        working_copy(wrong)


def test_a_bucket_that_is_not_there(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path))
    with (
        speaking_to(server),
        pytest.raises(StoreRefuses, match=r"s3://nobody/x: the store refuses to list it .*bucket does not exist"),
        opened("s3://nobody/x"),
    ):
        pass


def test_of_what_run_a_file_is() -> None:
    paths = ("runs/a/x", "studies/a/x", "tables/counts/run=a/round=0/x", "tables/_manifests/a.json")
    assert {run_of(path) for path in paths} == {"a"}
    assert run_of("pools/a/pool.json") is None and run_of("tables/views") is None


def test_files_of_a_run_are_sent_under_its_lease_only(
    there: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = machine(monkeypatch, tmp_path / "a", there)
    publish_json(copy.root / "runs/x/run.json", {})
    publish_json(copy.root / "pools/p/pool.json", {})
    assert push(copy, lambda run: False, last=True).left == {"x"}
    assert set(Store(there).list()) == {"pools/p/pool.json"}
    with opened(there) as home:
        claims = [path for path in Store(there).list() if path.startswith(".leases")]
        assert len(claims) == 1 and claims[0].endswith(".shared")
        own(home, "y")
        assert len(Store(there).list(".leases/run-y")) == 1
        with pytest.raises(LeaseHeld, match="the home is in use by process"):
            monkeypatch.setattr("tasks.homes.opening.DEAD", 0.1)
            monkeypatch.setattr(leases, "LOOK", 0.1)
            Lease(copy, "home", "the home").take(0.2)
    assert set(Store(there).list()) == {"pools/p/pool.json", "runs/x/run.json"}
    with opened(there) as home:
        assert own_home(home) and not own_home(tmp_path)


CHILD = """
import sys, time
from tasks.homes.opening import opened, own
with opened(sys.argv[1]) as home:
    own(home, "x")
    print("has it", flush=True)
    time.sleep(60)
"""


def holder(there: str, cache: Path) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, there], env={**os.environ, CACHE: str(cache)}, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None and child.stdout.readline() == "has it\n"
    return child


def test_the_lease_of_a_killed_process_is_free_here_at_once_and_elsewhere_after_a_silence(
    there: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "LOOK", 0.05)
    child = holder(there, tmp_path / "a")
    here, other = (machine(monkeypatch, tmp_path / name, there) for name in "ab")
    for copy in (here, other):
        with pytest.raises(LeaseHeld, match=f"run x is in use by process {child.pid} of"):
            Lease(copy, "run-x", "run x").take(0.1)
    child.send_signal(signal.SIGKILL)
    child.wait()
    with pytest.raises(LeaseHeld):
        Lease(other, "run-x", "run x").take(0.1)
    monkeypatch.setattr(leases, "DEAD", 0.5)
    began = time.monotonic()
    lease = Lease(other, "run-x", "run x")
    lease.take()
    assert time.monotonic() - began >= 0.5
    lease.drop()
    child = holder(there, tmp_path / "a")
    child.send_signal(signal.SIGKILL)
    child.wait()
    monkeypatch.setattr(leases, "DEAD", 180.0)
    lease = Lease(here, "run-x", "run x")
    lease.take(0.1)
    lease.drop()


def test_a_lease_that_was_taken_away_or_not_renewed_is_lost(
    there: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = machine(monkeypatch, tmp_path / "a", there)
    lease = Lease(copy, "run-x", "run x")
    lease.take()
    lease.renew()
    Store(there).remove(lease.path)
    with pytest.raises(LeaseLost, match="taken for dead"):
        lease.renew()
    monkeypatch.setattr(leases, "SURE", 0.0)
    monkeypatch.setattr(Store, "list", _refused)
    with pytest.raises(LeaseLost, match="could not be told"):
        lease.renew()


def _refused(*_: object) -> dict[str, object]:
    raise StoreRefuses("no")


def test_no_two_ever_have_a_lease(there: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "LOOK", 0.02)
    copies = [machine(monkeypatch, tmp_path / name, there) for name in "abcd"]
    inside, most, turns = [0], [0], [0]

    def work(copy: WorkingCopy) -> None:
        for _ in range(3):
            lease = Lease(copy, "run-x", "run x")
            lease.take()
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.01)
            inside[0] -= 1
            turns[0] += 1
            lease.drop()

    threads = [threading.Thread(target=work, args=(copy,)) for copy in copies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] and turns == [12]


WRITER = """
import sys
from pathlib import Path
from tasks.files.artefacts import digest, publish_bytes, publish_json
from tasks.homes import opening
opening.EVERY = 0.01
with opening.opened(sys.argv[1]) as home:
    opening.own(home, "x")
    for number in range(10**6):
        data = number.to_bytes(4, "big") * 20_000
        place = home / f"runs/x/work/unit-{number % 7}"
        publish_bytes(place / f"{digest(data)}.data", data)
        publish_json(place / "record.json", {"digest": digest(data)})
        print(number, flush=True)
"""


def test_whoever_is_killed_when_the_home_never_holds_a_record_without_its_data(there: str, tmp_path: Path) -> None:
    seen = 0
    for kill in range(2):
        child = subprocess.Popen(
            [sys.executable, "-c", WRITER, there], env={**os.environ, CACHE: str(tmp_path / "a")},
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert child.stdout is not None
        for _ in range(20 + 17 * kill):
            child.stdout.readline()
        child.kill()
        child.wait()
        for record in (tmp_path / "there").rglob("record.json"):
            content = json.loads(record.read_text())["digest"]
            assert digest((record.parent / f"{content}.data").read_bytes()) == content
            seen += 1
    assert seen > 1


def test_a_store_that_refuses_stops_the_work_in_words_and_the_same_command_goes_on(
    there: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path / "a"))
    monkeypatch.setattr("tasks.homes.opening.EVERY", 0.05)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    send, stopped = Store.send, []

    def refusing(self: Store, path: str, content: Path | bytes) -> object:
        if path.startswith("pools"):
            raise StoreRefuses("the store is full")
        return send(self, path, content)

    with monkeypatch.context() as refused:
        refused.setattr(Store, "send", refusing)
        with pytest.raises(StoreRefuses, match="full"), opened(there) as home:
            publish_bytes(home / "pools/p", b"work")
            try:
                time.sleep(30)
            except KeyboardInterrupt:
                stopped.append(True)
                raise
    signal.signal(signal.SIGINT, before)
    assert stopped
    with opened(there):
        pass
    assert (tmp_path / "there/pools/p").read_bytes() == b"work"
