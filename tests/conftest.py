"""Fixtures that every test may use, and which tests are slow."""

from __future__ import annotations

import logging
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_pipeline import write_small_pipeline

TESTS = Path(__file__).parent

SLOW = (
    "adaptation/test_lstm.py",
    "cli/test_cli_convert.py",
    "cli/test_cli_measure.py",
    "cli/test_cli_meter_options.py",
    "cli/test_cli_outputs.py",
    "cli/test_cli_profile.py",
    "cli/test_cli_tradeoff.py",
    "experiments",
    "frontier",
    "measuring",
    "meters",
    "optimizer/test_accuracy_floor.py",
    "optimizer/test_decision_limit.py",
    "optimizer/test_mixed_pools.py",
    "optimizer/test_mixing.py",
    "optimizer/test_pools.py",
    "optimizer/test_quantities.py",
    "optimizer/test_together.py",
    "pipelines",
    "plugin",
    "profiling",
    "report",
    "serving/kubernetes",
    "test_docs.py",
    "test_wheel.py",
    "tradeoff/test_further_quantities.py",
    "tradeoff/test_yardstick.py",
)
"""Folders and files of tests that wait, measure, draw, start programs or try many random cases;
``make test`` has them."""

BESIDE_OTHERS = ("measuring", "meters", "plugin", "profiling", "serving")
"""Folders whose tests run beside servers, threads and programs, as `measures` says."""


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Without pytest-timeout, tests run without a time-out."""
    if not pluginmanager.hasplugin("timeout"):
        parser.addini("timeout", "seconds a test may take; needs pytest-timeout")


def pytest_configure() -> None:
    """Two test files of one name can only be run apart: tell it whatever is run.

    A shell starts what runs in the background with interrupts ignored, and children inherit that:
    programs that a test interrupts are to be as they are in the foreground.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    names = Counter(path.name for path in TESTS.rglob("test_*.py"))
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise pytest.UsageError(f"test files need names of their own: {', '.join(twice)}")


def _is_slow(path: Path) -> bool:
    return any(path.is_relative_to(TESTS / place) for place in SLOW)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """``make check`` does not even read what is slow: that imports model servers and browsers."""
    return (config.option.markexpr == "not slow" and _is_slow(collection_path)) or None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what stands in :data:`SLOW`; what measures may be tried once more, and nothing else."""
    can_try_again = config.pluginmanager.hasplugin("rerunfailures")
    beside_others = [TESTS / place for place in BESIDE_OTHERS]
    for item in items:
        is_measured = item.get_closest_marker("measures") is not None
        if is_measured or _is_slow(item.path):
            item.add_marker(pytest.mark.slow)
        is_beside = any(item.path.is_relative_to(place) for place in beside_others)
        if can_try_again and (is_measured or is_beside):
            item.add_marker(pytest.mark.flaky(reruns=1))
    # What takes long begins, so that one long file is not what everybody waits for in the end.
    items.sort(key=lambda item: [item.get_closest_marker(m) is None for m in ("measures", "slow")])


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is kept for the next time is kept for the tests alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def small_pipeline(tmp_path: Path) -> Path:
    """Path of a pipeline YAML with its profile beside it."""
    folder = tmp_path / "small"
    folder.mkdir()
    return write_small_pipeline(folder)


@pytest.fixture(autouse=True)
def usual_log_level() -> Iterator[None]:
    """The command sets the level of the program's messages: no test is to inherit another's."""
    logger = logging.getLogger("ipa_energy")
    level = logger.level
    yield
    logger.setLevel(level)
