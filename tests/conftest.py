"""What all tests share: a clean environment, and how hard Hypothesis tries."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from tests.matrix_table import MatrixTable
from tests.postgres import databases, postgres_server, postgres_template  # noqa: F401  # fixtures
from tests.redis_servers import redis_cluster, redis_server, valkey_server  # noqa: F401  # fixtures

# Whoever runs the tests in the background of a shell has SIGINT ignored, which every child inherits: then no Ctrl-C of
# a test would reach what it starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Machines differ in speed: how long an example took says nothing here.
settings.register_profile(
    "daram", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
settings.load_profile("daram")

_OUTSIDE = dict(os.environ)


def pytest_configure(config: pytest.Config) -> None:
    """The table at the end of `make matrix`."""
    config.pluginmanager.register(MatrixTable(), "matrix table")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The matrix has tens of thousands of tests: to collect them only to leave them out takes a quarter of a minute."""
    marks: str = config.option.markexpr
    left_out = marks != "" and ("matrix" not in marks or "not matrix" in marks)
    return True if left_out and collection_path.name == "test_matrix.py" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is in tests/e2e needs a browser or a model: `make test` leaves it out, whatever it is marked with."""
    for item in items:
        if "e2e" in item.path.relative_to(Path(__file__).parent).parts:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def outside_environment() -> Mapping[str, str]:
    """The environment that pytest was started in: what `make e2e` finds the weights and the browser by."""
    return _OUTSIDE


@pytest.fixture(scope="session", autouse=True)
def clean_environment() -> Iterator[None]:
    """No test meets the settings, the key or the conversations of whoever runs it."""
    with tempfile.TemporaryDirectory(prefix="daram-tests-") as data, pytest.MonkeyPatch.context() as patch:
        for name in _OUTSIDE:
            if name.startswith(("DARAM_", "OPENAI_")):
                patch.delenv(name)
        patch.setenv("DARAM_DATA", data)
        yield
