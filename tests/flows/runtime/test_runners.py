import importlib.util
import logging
import os
import sys
from types import ModuleType

import pytest

from flows.runtime import make_runner
from flows.runtime.environment import QUIET
from flows.runtime.runners import RunnerError, started
from tasks.catalog.recipe_options import RuntimeOptions

RAY_STAYS = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
SILENT = {"runtime_env": {"env_vars": dict(QUIET)}, "log_to_driver": False, "logging_level": logging.ERROR}


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_the_builtin_runners(kind):
    runner = make_runner(kind, 2)
    assert runner._max_workers == 2


@pytest.mark.parametrize("kind", ["ray", "dask"])
def test_a_missing_integration_names_the_package_to_install(kind):
    if importlib.util.find_spec(f"prefect_{kind}"):
        pytest.skip(f"prefect-{kind} is installed")
    with pytest.raises(ImportError, match=rf"prefect-{kind}.*pip install 'mgd\[{kind}\]'"):
        make_runner(kind, 2)


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match="unknown task runner 'fibers': choose one of threads"):
        make_runner("fibers", 2)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least one worker, got 0"):
        make_runner("threads", 0)


def test_a_cluster_that_is_not_there_is_told():
    class Runner:
        def __enter__(self):
            raise OSError("Timed out trying to connect to tcp://there:8786\nand more")

        def __exit__(self, *_):
            raise AssertionError("it never started")

    with (
        pytest.raises(RunnerError, match=r"no cluster can be joined at tcp://there:8786 .*Timed out trying.*up"),
        started(Runner(), "dask", "tcp://there:8786"),  # type: ignore[arg-type]
    ):
        raise AssertionError("it is not there")


def test_a_catalogs_runner_is_a_kind_or_a_table() -> None:
    plain = RuntimeOptions(runner="dask")  # type: ignore[arg-type]
    assert plain.runner.kind == "dask" and plain.model_dump(mode="json")["runner"] == "dask"
    assert RuntimeOptions().model_dump(mode="json")["runner"] == "threads", "as records of earlier versions have it"
    told = {"kind": "ray", "address": "ray://10.0.0.1:10001", "num_gpus": 0.5, "options": {"namespace": "mgd"}}
    table = RuntimeOptions.model_validate({"runner": told})
    assert table.model_dump(mode="json")["runner"] == told
    assert RuntimeOptions.model_validate(table.model_dump(mode="json")) == table


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("fibers", "'threads', 'processes', 'ray' or 'dask'"),
        ({"kind": "threads", "num_gpus": 1}, "num_gpus: of Ray and Dask only"),
        ({"kind": "ray", "adress": "x"}, "adress"),
        ({"address": "x"}, "kind"),
    ],
)
def test_a_runner_that_cannot_be_is_refused(said, message):
    with pytest.raises(ValueError, match=message):
        RuntimeOptions.model_validate({"runner": said})


def fake(monkeypatch, kind):
    """An integration package that notes what its runner is made with."""
    module = ModuleType(f"prefect_{kind}")
    setattr(module, f"{kind.title()}TaskRunner", lambda **said: said)
    monkeypatch.setitem(sys.modules, module.__name__, module)


def test_clusters_of_our_own_listen_on_the_loopback_only(monkeypatch):
    fake(monkeypatch, "ray")
    fake(monkeypatch, "dask")
    monkeypatch.delenv(RAY_STAYS, raising=False)
    assert "num_cpus" in make_runner("ray", 2, loopback=False)["init_kwargs"] and RAY_STAYS not in os.environ
    ray, dask = make_runner("ray", 2), make_runner("dask", 2, options={"memory_limit": "1GiB"})
    assert os.environ[RAY_STAYS] == "0", "it would take 127.0.0.1 for the address of the network"
    assert ray["init_kwargs"] == {"num_cpus": 2, "include_dashboard": False} | SILENT
    local = {"n_workers": 2, "threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": None}
    assert dask["cluster_kwargs"] == local | {"memory_limit": "1GiB", "silence_logs": logging.CRITICAL}


def test_a_cluster_is_joined_by_its_address(monkeypatch):
    fake(monkeypatch, "ray")
    fake(monkeypatch, "dask")
    joined = make_runner("ray", 2, "ray://there:10001", options={"namespace": "mgd"})
    assert joined == {"address": "ray://there:10001", "init_kwargs": {"namespace": "mgd"} | SILENT}, "no num_cpus there"
    assert make_runner("dask", 2, "tcp://there:8786") == {"address": "tcp://there:8786", "client_kwargs": {}}
