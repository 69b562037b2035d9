import importlib.util

import pytest

from flows.runtime import make_runner


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
