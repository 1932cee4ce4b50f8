"""What all tests share: Hypothesis profiles, the hostile backend, figures, where tests marked `gpu` run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import tinygrad_rnn as tg
from tinygrad_rnn.engine import backend as backends
from tinygrad_rnn.engine.backend import NUMPY, get_backend, register_backend
from tinygrad_rnn.engine.ops.fused import VARIABLE, use_kernels

from .engine.hostile import HOSTILE
from .figures import (  # noqa: F401
    count_examples,
    figures,
    pytest_sessionfinish,
    pytest_terminal_summary,
    pytest_testnodedown,
)

# What is compiled is kept from one run to the next: its folder's name says what it was made of.
os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "kernels"))

# The same examples every time; HYPOTHESIS_PROFILE=search looks for new ones.
settings.register_profile(
    "repeatable",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=20,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.register_profile("search", settings.get_profile("repeatable"), derandomize=False, max_examples=500)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is marked `gpu` where CuPy finds no device, and say why; have examples counted."""
    count_examples(items)
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked:
        try:
            get_backend("cupy")
        except tg.errors.BackendError as error:
            for item in marked:
                item.add_marker(pytest.mark.skip(reason=str(error)))


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> object:
    """The tests, and the commands they start, keep encoded and fetched texts in a folder of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv(VARIABLE, "numpy")  # a test of the compiled kernels asks for them
        yield


@pytest.fixture
def hostile() -> backends.Backend:
    """The backend of tests/engine/hostile.py, registered under the name "hostile"."""
    register_backend(HOSTILE)
    return HOSTILE


@pytest.fixture(autouse=True)
def fresh_state() -> object:
    """Every test starts from the same seed and leaves no backend switched on."""
    tg.manual_seed(0)
    yield
    tg.use_backend(NUMPY)
    use_kernels(None)
