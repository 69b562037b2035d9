import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.runtime import worker_check
from flows.runtime.worker_check import WorkerCannot, answer, check_workers
from tasks.files import progress


class Healthy(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def url():
    server = HTTPServer(("127.0.0.1", 0), Healthy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/api"
    server.shutdown()
    server.server_close()


def asked(monkeypatch, home, url, worker):
    """Check a cluster with one worker, which says what `worker` makes of the question."""
    monkeypatch.setitem(worker_check._ASK, "dask", lambda _, *arguments: {"tcp://there:1": worker(*arguments)})
    with temporary_settings({PREFECT_API_URL: url}):
        check_workers(None, "dask", home)


def test_a_worker_that_sees_home_and_server_is_told_by_its_host(monkeypatch, tmp_path, url):
    said = []
    progress.watch(lambda what, *_: said.append(what))
    try:
        asked(monkeypatch, tmp_path, url, answer)
    finally:
        progress.watch(None)
    assert said[-1].startswith("dask: 1 workers on ") and said[-1].endswith("see the home and the Prefect server")
    assert not list((tmp_path / ".locks" / "workers").iterdir()), "what was written is gone"


@pytest.mark.parametrize("there", [False, True])
def test_a_worker_with_another_home_is_refused(monkeypatch, tmp_path, url, there):
    def elsewhere(folder, url):
        other = tmp_path / "other" / Path(folder).name
        if there:  # a directory of the same name, with a token of its own
            other.mkdir(parents=True)
            (other / "token").write_text("another")
        return answer(str(other), url)

    with pytest.raises(
        WorkerCannot, match=r"worker tcp://there:1 .* on host \S+ does not see the home .*Mount the same"
    ):
        asked(monkeypatch, tmp_path, url, elsewhere)


@pytest.mark.parametrize(
    ("worker", "message"),
    [
        (lambda folder, _: answer(folder, "http://127.0.0.1:9/api"), "does not reach the Prefect server.*_API_URL"),
        (lambda *_: ModuleNotFoundError("No module named 'flows'"), "cannot run mgd .*No module named.*Install"),
        (lambda *said: answer(*said) | {"mgd": "0.0.1"}, "has mgd 0.0.1, and .* is here"),
    ],
)  # fmt: skip
def test_a_worker_that_cannot_work_is_refused(monkeypatch, tmp_path, url, worker, message):
    with pytest.raises(WorkerCannot, match=message):
        asked(monkeypatch, tmp_path, url, worker)


def test_runners_of_this_machine_are_not_asked(tmp_path):
    check_workers(None, "processes", tmp_path)
    assert not list(tmp_path.iterdir())
