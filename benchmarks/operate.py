"""Does it run by itself? A Prefect server, a worker and deployments of every stage, operated for real on the loopback.

`python -m benchmarks.operate` starts a server with all of its services, deploys `prefect.yaml`, and starts a worker as
an operator would; then it runs every stage by its deployment on a small pool, and looks at what came of it through
Prefect's API: a curation has the bytes of plain calls, a cron fires, a run that is cancelled in its middle stops within
30 s and the next one resumes it, a store's fault is retried and a mistake is not, the second of two runs waits, a night
skips what has not changed, `mgd serve` ends within seconds of SIGTERM with its schedule paused, a headless Chromium
signs in and reads the pages, whose pictures are left in --pictures, and nothing listens beyond the loopback.

* `steps`: what was tried;  `failed`: steps whose outcome was not what it has to be;  `quick`: the first few of them.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._envelope import emit
from flows.runtime.environment import TELEMETRY_OFF
from flows.runtime.server import ensure_server, server_status, stop_server
from testing import browser
from testing.eval_lines import lines, written
from testing.eval_set_files import png, write_set
from testing.listeners import LOOPBACK, listening
from testing.small_catalog import curate_plainly, published, small_catalog

ROOT = Path(__file__).parents[1]
FLOWS = {"nightly", "curate", "census", "evaluate", "reshard", "export", "submit-folder"}
METHOD = """
name = "Metagradient descent"
author = "A. Nonymous"
email = "a@example.org"
track = "filtering"
hf_username = "nobody"
hf_repo_name = "mgd-small"
text = "Counts by *metagradients*."
"""
PATIENCE = 600.0  # seconds for a run of the small pool to end on a busy machine
CANCELLED_WITHIN, ENDED_WITHIN = 30.0, 15.0
QUICK = 4
LONG = {"learner.steps": 1500, "descent.window_start": 1490, "descent.probe_steps": [1492], "descent.rounds": 1}
LONG |= {"descent.checkpoint_steps": 50, "comparison.subsets": ["mgd"]}


class Site:
    """A place with a server, a worker, a catalog and a home; `api` asks the server."""

    def __init__(self, place: Path) -> None:
        self.place, self.home, self.catalog = place, place / "home", small_catalog(place / "pool")
        self.url = ensure_server(place / "server", services={})
        self.password = server_status(place / "server").password
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")},
            **TELEMETRY_OFF,
            "PREFECT_API_URL": self.url,
            "PREFECT_API_AUTH_STRING": self.password,
            "PREFECT_HOME": str(place / "client"),
            "PREFECT_CLI_PROMPT": "false",
            "PYTHONPATH": str(ROOT),
            "PWD": str(ROOT),
            "OMP_NUM_THREADS": "1",
        }
        self.log = place / "worker.log"
        self.pictures = place / "pictures"
        self.worker: subprocess.Popen[bytes] | None = None

    def prefect(self, *arguments: str) -> str:
        """Prefect's own command line; raises where it fails."""
        command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
        how = {"cwd": ROOT, "env": self.environment, "stdin": subprocess.DEVNULL}
        ended = subprocess.run(command, capture_output=True, text=True, check=False, **how)  # type: ignore[call-overload]
        assert ended.returncode == 0, f"prefect {' '.join(arguments)}: {ended.stdout[-2000:]}{ended.stderr[-2000:]}"
        return ended.stdout

    def mgd(self, *arguments: str) -> subprocess.Popen[str]:
        """A command of ours."""
        command = [sys.executable, "-m", "flows.cli", *arguments]
        return subprocess.Popen(
            command, cwd=self.place, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def start_worker(self) -> None:
        """`prefect worker start`, in a session of its own."""
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "mgd"]
        with self.log.open("ab") as log:
            self.worker = subprocess.Popen(
                command, cwd=ROOT, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )

    def end(self) -> None:
        """Stop the worker with what it runs, and the servers."""
        if self.worker is not None:
            os.killpg(self.worker.pid, signal.SIGKILL)
            self.worker.wait()
        stop_server(self.place / "server")
        stop_server(self.home)

    def api(self, path: str, content: object = None, method: str = "POST") -> Any:
        """An answer of the server."""
        data = None if content is None else json.dumps(content).encode()
        word = base64.b64encode(self.password.encode()).decode()
        headers = {"content-type": "application/json", "authorization": f"Basic {word}"}
        request = urllib.request.Request(f"{self.url}{path}", data, headers, method=method if data else "GET")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or b"null")

    def deployment(self, flow: str) -> dict[str, Any]:
        """The deployment of a flow that prefect.yaml describes."""
        found: dict[str, Any] = self.api(f"/deployments/name/{flow}/{flow}")
        return found

    def begin(self, flow: str, **parameters: Any) -> str:
        """Start a run by its deployment; returns its id."""
        content = {"parameters": {"home": str(self.home), **parameters}, "state": {"type": "SCHEDULED"}}
        return str(self.api(f"/deployments/{self.deployment(flow)['id']}/create_flow_run", content)["id"])

    def run(self, id: str) -> dict[str, Any]:
        """A run as the server knows it."""
        found: dict[str, Any] = self.api(f"/flow_runs/{id}")
        return found

    def wait(self, id: str, *states: str, patience: float = PATIENCE) -> dict[str, Any]:
        """The run, once its state is one of some; raises where it ends otherwise or takes too long."""
        deadline = time.monotonic() + patience
        while True:
            run = self.run(id)
            if run["state_name"] in states:
                return run
            ended = run["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
            assert not ended and time.monotonic() < deadline, (
                f"{run['name']} is {run['state_name']}, not {' or '.join(states)}: {run['state']['message']}; "
                f"{self.logs(id)[-3:]}"
            )
            time.sleep(0.25)

    def completed(self, flow: str, **parameters: Any) -> dict[str, Any]:
        """A run by a deployment, completed."""
        return self.wait(self.begin(flow, **parameters), "Completed")

    def logs(self, id: str) -> list[str]:
        """What a run and its tasks said in Prefect's log."""
        asked = {"logs": {"flow_run_id": {"any_": [id]}}, "limit": 200, "sort": "TIMESTAMP_ASC"}
        return [line["message"] for line in self.api("/logs/filter", asked)]

    def tasks(self, id: str) -> list[dict[str, Any]]:
        """Task runs of a run."""
        found: list[dict[str, Any]] = self.api("/task_runs/filter", {"flow_runs": {"id": {"any_": [id]}}})
        return found

    def artifacts(self, id: str) -> dict[str, dict[str, Any]]:
        """The latest artifacts of a run, by key."""
        found = self.api("/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [id]}}, "limit": 200})
        return {one["key"]: one for one in sorted(found, key=lambda one: one["created"])}

    def called(self, id: str) -> list[dict[str, Any]]:
        """The flow runs that a run called."""
        asked = {"flow_runs": {"parent_flow_run_id": {"any_": [id]}}}
        return list(self.api("/flow_runs/filter", asked))

    def children(self, id: str) -> list[str]:
        """Names of the flows that a run called."""
        return [run["name"].split()[0] for run in self.called(id)]

    def below(self, id: str) -> list[list[str]]:
        """What the flows that a run called said in Prefect's log."""
        return [self.logs(run["id"]) for run in self.called(id)]


def deployed(site: Site) -> str:
    """prefect.yaml describes every stage, with typed parameters that say what they are."""
    site.prefect("work-pool", "create", "mgd", "--type", "process")
    site.prefect("deploy", "--all")
    found = {flow: site.deployment(flow) for flow in FLOWS}
    for flow, one in found.items():
        fields = one["parameter_openapi_schema"]["properties"]
        silent = [name for name, field in fields.items() if not field.get("description")]
        assert not silent, f"{flow}: {silent} say nothing in the run form"
    catalogs = found["curate"]["parameter_openapi_schema"]["properties"]["catalog"]["anyOf"][0]["enum"]
    assert "fashion" in catalogs and found["curate"]["concurrency_options"]["collision_strategy"] == "ENQUEUE"
    site.start_worker()
    return f"{len(found)} flows; curate's form offers {', '.join(catalogs)}"


def curated(site: Site) -> str:
    """A curation by a worker has the bytes of plain calls, its catalog's runner, tags, log, rounds and report."""
    done = site.completed("curate", catalog=str(site.catalog))
    (directory,) = (site.home / "runs").iterdir()
    plain = curate_plainly(site.catalog, site.place / "plain")
    assert published(directory) == published(plain), "other bytes than plain calls"
    assert {directory.name, "small"} <= set(done["tags"]) and "mgd.session" in done["labels"]
    tasks = site.tasks(done["id"])
    names = {task["name"] for task in tasks}
    assert {"round 1: train and replay", "compare mgd, seed 1"} <= names, names
    spans = sorted((task["start_time"], task["end_time"]) for task in tasks)
    assert all(one[1] <= other[0] for one, other in pairwise(spans)), "more tasks at a time than runtime.workers"
    assert any("each differentiated round" in line for line in site.logs(done["id"])), site.logs(done["id"])
    shown = site.artifacts(done["id"])
    rounds = json.loads(shown["rounds"]["data"])
    assert len(rounds) == 3 and {"heldout_loss", "kept", "raised", "lowered", "seconds"} <= rounds[0].keys()
    link = shown["report"]["data"].partition("](")[2].rstrip(")")
    with urllib.request.urlopen(link, timeout=30) as page:
        assert b"<html" in page.read(), link
    noise = [line for line in site.log.read_text().splitlines() if "Task run" in line]
    assert not noise, f"the worker's console has {len(noise)} lines of tasks"
    return f"{len(tasks)} tasks one at a time; report at {link}"


def cancelled(site: Site) -> str:
    """A run that is cancelled while it trains stops, and the next one of the same parameters goes on from there."""
    parameters = {"catalog": str(site.catalog), "overrides": LONG}
    id = site.begin("curate", **parameters)
    deadline = time.monotonic() + PATIENCE
    while not any(key.startswith("progress-") for key in site.artifacts(id)):
        assert time.monotonic() < deadline and site.run(id)["state_type"] != "FAILED", "no bar of progress"
        time.sleep(0.25)
    (states,) = (site.home / "runs").glob("*/work/round-000/states")
    began = time.monotonic()
    site.api(f"/flow_runs/{id}/set_state", {"state": {"type": "CANCELLING"}})
    site.wait(id, "Cancelled", patience=CANCELLED_WITHIN)
    pid = int(site.run(id)["labels"]["mgd.pid"])
    while Path(f"/proc/{pid}").exists() and time.monotonic() - began < CANCELLED_WITHIN:
        time.sleep(0.1)
    seconds = time.monotonic() - began
    assert seconds < CANCELLED_WITHIN, f"its process goes on after {seconds:.0f} s"
    kept = len(list(states.iterdir()))
    assert kept, "nothing was kept to go on from"
    site.completed("curate", **parameters)
    return f"stopped after {seconds:.1f} s with {kept} states kept; resumed to the end"


def queued(site: Site) -> str:
    """Of two runs of a deployment, the second begins when the first has ended; so does a command beside them."""
    changed = {"catalog": str(site.catalog), "seed": 7}
    first, second = site.begin("curate", **changed), site.begin("curate", **changed)
    site.wait(first, "Running", "Completed")
    beside = site.mgd("curate", str(site.catalog), "--set", "descent.seed=7", "--home", str(site.home))
    one, two = site.wait(first, "Completed"), site.wait(second, "Completed")
    earlier, later = sorted((one, two), key=lambda run: run["start_time"])
    assert earlier["end_time"] <= later["start_time"], "both ran at once"
    said = beside.communicate(timeout=PATIENCE)[0]
    assert beside.returncode == 0, said
    (directory,) = {Path(line.split()[-1]).parent for line in said.splitlines() if line.startswith("report ")}
    assert "worked on by process" in said or "metagradient descent" in said, said
    return f"the second waited; the command beside them ended with {directory.name}"


def fired(site: Site) -> str:
    """A cron fires, and the worker does what it says."""
    deployment = site.deployment("census")
    content = [{"schedule": {"cron": "* * * * *"}, "active": True, "parameters": {}}]
    parameters = {"parameters": {"catalog": str(site.catalog), "home": str(site.home)}}
    site.api(f"/deployments/{deployment['id']}", parameters, "PATCH")
    (made,) = site.api(f"/deployments/{deployment['id']}/schedules", content)
    try:
        deadline = time.monotonic() + PATIENCE
        asked = {
            "deployments": {"id": {"any_": [deployment["id"]]}},
            "flow_runs": {"state": {"name": {"any_": ["Completed"]}}},
        }
        while not (done := site.api("/flow_runs/filter", asked)):
            assert time.monotonic() < deadline, "no scheduled run has completed"
            time.sleep(0.5)
    finally:
        site.api(f"/deployments/{deployment['id']}/schedules/{made['id']}", {"active": False}, "PATCH")
    assert "auto-scheduled" in done[0]["tags"]
    return f"{done[0]['name']}, scheduled for {done[0]['expected_start_time'][11:19]}"


def retried(site: Site) -> str:
    """Of a pool in a store that fails once, the task is tried again; of a mistake, none is."""
    with store(site, failures=1) as (url, failed):
        overrides = {
            "pool.source": url,
            "pool.remote": {"attempts": 1},
            "descent.rounds": 1,
            "comparison.subsets": ["mgd"],
        }
        done = site.completed("curate", catalog=str(site.catalog), overrides=overrides)
        tries = {task["name"]: task["run_count"] for task in site.tasks(done["id"])}
        assert len(failed) == 1 and sorted(tries[name] for name in tries if name.startswith("shard "))[-1] == 2, tries
    mistaken = site.begin("curate", catalog=str(site.catalog), overrides={"learner.learning_rate": 1e30})
    wrong = site.wait(mistaken, "Failed")
    assert "Lower the learning rate" in wrong["state"]["message"], wrong["state"]["message"]
    again = {task["name"]: task["run_count"] for task in site.tasks(mistaken) if task["run_count"] > 1}
    assert not again, f"a mistake was tried again: {again}"
    return f"{failed[0]} failed once and was read at the second try; the mistake at the first"


def nights(site: Site) -> str:
    """The first night does everything, the second nothing, one whose pool has grown indexes what is new and goes on
    from the last; after one that failed at its last stage, that stage alone is left."""
    folder = site.place / "growing"
    folder.mkdir()
    tars = sorted(next((site.home / "pools").glob("sheet-*/shards")).glob("*.tar"))
    for tar in tars[:2]:
        shutil.copy(tar, folder)
    overrides = {"pool.source": f"{folder}/*.tar", "descent.rounds": 1, "comparison.subsets": ["mgd"]}
    parameters = {"catalog": str(site.catalog), "overrides": overrides}
    first = site.completed("nightly", **parameters)
    second = site.completed("nightly", **parameters)
    assert set(site.children(first["id"])) == {"census", "curate", "export"}, site.children(first["id"])
    said = " ".join(site.logs(second["id"]))
    assert "curate" not in site.children(second["id"]) and "stands" in said and "nothing changed" in said, said
    shutil.copy(tars[2], folder)
    third = site.completed("nightly", **parameters)
    said = " ".join(site.logs(third["id"]))
    assert "going on from the counts of" in said and "40 new samples" in said, said
    assert "of its 3 files, 2 were indexed before" in said, said
    assert "2 of the pool's 3 shards were looked at before" in " ".join(map(" ".join, site.below(third["id"]))), said
    samples = [{"png": png(np.full((32, 32, 3), 20 * i, np.uint8)), "cls": str(i % 2).encode()} for i in range(5)]
    tar = write_set(site.place / "wds_own_test", samples, ("light", "dark")) / "test" / "0.tar"
    whole = tar.read_bytes()
    tar.write_bytes(whole[:700])
    parameters["evaluation_sets"] = [str(tar.parents[1])]
    site.wait(site.begin("nightly", **parameters), "Failed")
    tar.write_bytes(whole)
    last = site.completed("nightly", **parameters)
    said = " ".join(site.logs(last["id"]))
    assert set(site.children(last["id"])) == {"census", "export", "evaluate"} and "stands" in said, said
    return "did all; skipped all; indexed 1 of 3 files, went on with 40 new samples; after a failed stage did that one"


def others(site: Site) -> str:
    """The other stages by their deployments: export, reshard with a task a shard, a submission that is accepted, and
    one that is not."""
    site.completed("export", form="parquet", out=str(site.place / "subset.parquet"))
    pool = next((site.home / "pools").glob("sheet-*"))
    done = site.completed("reshard", pool=str(pool), out=str(site.place / "shards"), shard_size=50)
    assert (site.place / "subset.parquet").exists() and len(list((site.place / "shards").glob("*.tar"))) == 5
    names = {task["name"] for task in site.tasks(done["id"])}
    assert names == {f"shard {number}" for number in range(5)}, names
    inputs = site.place / "inputs"
    inputs.mkdir()
    (inputs / "method.toml").write_text(METHOD)
    given = {"results": str(written(inputs / "eval_results.jsonl", lines())), "method": str(inputs / "method.toml")}
    site.completed("submit-folder", out=str(site.place / "accepted"), scale="small", **given)
    assert (site.place / "accepted/small_scale/samples/subset.npy").exists()
    empty = site.place / "none.jsonl"
    empty.touch()
    method = ROOT / "pyproject.toml"
    folder = {"out": str(site.place / "submission"), "results": str(empty), "method": str(method), "scale": "small"}
    refused = site.wait(site.begin("submit-folder", **folder), "Failed")
    assert not (site.place / "submission").exists()
    return f"written, a submission as well; another refused: {refused['state']['message'].splitlines()[0][:100]}"


def served(site: Site) -> str:
    """`mgd serve` of a path fires; SIGTERM in the middle of a run ends both within seconds, the schedule paused."""
    catalog = small_catalog(site.place / "served", ('name = "small"', 'name = "served"'), ("steps = 8", "steps = 4000"))
    serving = site.mgd("serve", str(catalog), "--cron", "* * * * *", "--home", str(site.home))
    try:
        deadline = time.monotonic() + PATIENCE
        while not list((site.home / "runs").glob("served-*/work/round-000")):
            ended = serving.poll()
            assert ended is None, f"ended with {ended}: {serving.communicate()[0][-2000:]}"
            assert time.monotonic() < deadline, "nothing was run"
            time.sleep(0.5)
        heard = listening(serving.pid)
        began = time.monotonic()
        serving.send_signal(signal.SIGTERM)
        status = serving.wait(ENDED_WITHIN)
        seconds = time.monotonic() - began
    finally:
        serving.kill()
    deployment = site.api("/deployments/name/curate/served")
    assert set(heard) <= LOOPBACK, heard
    assert status == 0 and deployment["paused"], (status, deployment["paused"])
    return f"ended after {seconds:.1f} s, paused"


def listened(site: Site) -> str:
    """Neither server, nor worker, nor the server of the reports listens beyond the loopback."""
    assert site.worker is not None
    records = [site.place / "server/.prefect/server.json", *site.home.glob(".prefect/pages.json")]
    pids = {"worker": site.worker.pid} | {path.stem: json.loads(path.read_text())["pid"] for path in records}
    heard = {name: listening(pid) for name, pid in pids.items()}
    assert heard["server"] and heard["pages"], heard
    beyond = {name: places for name, places in heard.items() if not set(places) <= LOOPBACK}
    assert not beyond, beyond
    return ", ".join(f"{name}: {len(places)} on the loopback" for name, places in heard.items())


def looked(site: Site) -> str:
    """A browser signs in, and sees the form of a run, a run with its tasks, log and artifacts, and its report."""
    if browser.chromium() is None:
        return "no Chromium on this machine: not looked at"
    asked = {"flow_runs": {"state": {"name": {"any_": ["Completed"]}}, "tags": {"all_": ["small"]}}}
    run = min(site.api("/flow_runs/filter", asked), key=lambda one: one["created"])
    shown, base = site.artifacts(run["id"]), site.url.removesuffix("/api")
    form = f"{base}/v2/deployments/deployment/{site.deployment('curate')['id']}/run"
    here = f"{base}/v2/runs/flow-run/{run['id']}"
    with browser.opened(site.place / "profile") as page:
        page.open(f"{base}/v2/dashboard", "Login")
        page.fill("input", site.password)
        page.wait("Dashboard", "Event Feed")
        page.open(form, "Catalog", "rounds of metagradient descent", "where trainings run", "Overrides")
        page.picture(site.pictures / "form.png")
        page.open(f"{here}?tab=Logs", *run["tags"], "its split 'target'", "Completed")
        page.picture(site.pictures / "run.png")
        page.open(f"{here}?tab=TaskRuns", "round 1: train and replay", "compare mgd, seed 1", "round 0: probe")
        page.picture(site.pictures / "tasks.png")
        page.open(f"{here}?tab=Artifacts", "rounds", "report")
        page.picture(site.pictures / "artifacts.png")
        page.open(f"{base}/v2/artifacts/artifact/{shown['rounds']['id']}", "heldout_loss", "raised", "seconds")
        page.picture(site.pictures / "rounds.png")
        page.open(f"{base}/v2/artifacts/artifact/{shown['report']['id']}", "report of")
        report = page.run("[...document.links].map(one => one.href).find(one => one.endsWith('report.html'))")
        assert report, "the link to the report is none"
        page.open(report, "metagradient descent", "round")
        page.picture(site.pictures / "report.png")
    return f"signed in; form, run, tasks, artifacts, table of rounds and report read; pictures in {site.pictures}"


@contextmanager
def store(site: Site, failures: int) -> Iterator[tuple[str, list[str]]]:
    """The pool's tars over HTTP; the first requests for the content of one fail. Gives address and what failed."""
    failed: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.endswith("1.tar") and len(failed) < failures:
                failed.append(self.path)
                self.send_error(503)
            else:
                super().do_GET()

        def log_message(self, *_: object) -> None:
            pass

    folder = next((site.home / "pools").glob("sheet-*/shards"))
    last = len(list(folder.glob("*.tar"))) - 1
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        name = sorted(folder.glob("*.tar"))[0].stem
        yield f"http://127.0.0.1:{server.server_address[1]}/{{{name}..{last:0{len(name)}d}}}.tar", failed
        server.shutdown()


STEPS: list[Callable[[Site], str]] = [
    deployed, curated, cancelled, queued, fired, retried, nights, others, served, listened, looked,
]  # fmt: skip


def measure(place: Path, pictures: Path, wanted: Sequence[Callable[[Site], str]]) -> dict[str, Any]:
    """Every step in turn; one that fails is told, and the next is tried."""
    site, failed, seconds = Site(place), [], {}
    site.pictures = pictures
    try:
        for step in wanted:
            began = time.monotonic()
            try:
                told = step(site)
            except Exception as error:
                failed.append(step.__name__)
                told = f"FAILED: {error}"
                traceback.print_exc()
            seconds[step.__name__] = round(time.monotonic() - began, 1)
            print(f"{step.__name__} ({seconds[step.__name__]:.0f} s): {told}", flush=True)
            if failed == [deployed.__name__]:
                break
    finally:
        site.end()
    return {"steps": len(seconds), "failed": len(failed), "failures": failed, "seconds": seconds}


def main() -> None:
    """Run all steps, or the first few with `--quick`, and print the figures."""
    parser = argparse.ArgumentParser("benchmarks.operate", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="deployments, a curation, a cancelled one, two queued")
    names = [step.__name__ for step in STEPS[1:]]
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="these steps, after the deployments")
    parser.add_argument("--pictures", type=Path, help="where pictures of the pages are left (default: nowhere)")
    options = parser.parse_args()
    wanted = STEPS[:QUICK] if options.quick else [STEPS[0], *(one for one in STEPS if one.__name__ in options.only)]
    with tempfile.TemporaryDirectory(prefix="mgd-operate-") as place:
        figures = measure(Path(place), options.pictures or Path(place) / "pictures", wanted)
    emit("operate", figures)
    sys.exit(figures["failed"] > 0)


if __name__ == "__main__":
    main()
