"""A Prometheus beside a live run: started, kept running, ended; or somebody's own, looked at.

``run --prometheus`` starts the one on the path in the run folder, with our rules and a scrape
configuration of the run's exporter::

    RUN_DIR/prometheus/prometheus.yml   *.rules.yml   data/   prometheus.log

The run never waits for it: whether it does not start or ends in the middle, it is said once, it is
started again a little later each time, and requests go on. With a URL nothing is started;
whether that server is there and scrapes the run is looked up once, and what it lacks is said.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from ipa_energy.errors import UnavailableError
from ipa_energy.shipped import shipped_folder

logger = logging.getLogger(__name__)

PROGRAM = "prometheus"
SCRAPE_EVERY_S = 5
FIRST_RESTART_S, LAST_RESTART_S = 1.0, 30.0
STOP_GRACE_S = 5.0
ASK_TIMEOUT_S = 5.0
_PR_SET_PDEATHSIG = 1


def scrape_config(exporter: str, pipeline: str, rules: list[Path]) -> str:
    """``prometheus.yml``: one target, and our rules."""
    files = "".join(f"  - {json.dumps(str(path))}\n" for path in rules)
    return (
        f"global:\n  scrape_interval: {SCRAPE_EVERY_S}s\n  evaluation_interval: {SCRAPE_EVERY_S}s\n"
        f"rule_files:\n{files}"
        f"scrape_configs:\n  - job_name: ipa-energy\n    static_configs:\n"
        f"      - targets: [{json.dumps(exporter)}]\n"
        f"        labels: {{run: {json.dumps(pipeline)}}}\n"
    )


def rule_files() -> list[Path]:
    """Those that come with the program."""
    return sorted((shipped_folder("configs") / "monitoring").glob("*.rules.yml"))


def path_of(program: str = PROGRAM) -> str:
    """Where the program is.

    Raises:
        UnavailableError: there is no such program.
    """
    found = shutil.which(program)
    if found is None:
        raise UnavailableError(
            f"--prometheus: there is no {program} on the path; fix: install it (Debian: apt-get"
            " install prometheus), or leave it out and let your own scrape --exporter PORT"
        )
    return found


class PrometheusProcess:
    """A Prometheus of a run.

    Args:
        folder: made if it is not there; data of an earlier start in it are kept.
        exporter: ``host:port`` of the run's figures.
        pipeline: label of the target.
        program: what to start.

    Attributes:
        url: where it can be asked.
        starts: how often it was started.

    Raises:
        UnavailableError: there is no such program.
    """

    def __init__(
        self, folder: Path, *, exporter: str, pipeline: str, program: str = PROGRAM
    ) -> None:
        found = path_of(program)
        folder.mkdir(parents=True, exist_ok=True)
        copies = [Path(shutil.copy(rules, folder)) for rules in rule_files()]
        config = folder / "prometheus.yml"
        config.write_text(scrape_config(exporter, pipeline, [path.absolute() for path in copies]))
        self._port = _free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self.starts = 0
        self._log = folder / "prometheus.log"
        self._command = (
            found,
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self._port}",
            "--log.level=warn",
        )
        self._process: subprocess.Popen[bytes] | None = None
        self._stop = threading.Event()
        # The kernel ends it with the thread that started it, so one thread does all of it.
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()

    @property
    def pid(self) -> int | None:
        """Its process id; None while it is down."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def close(self) -> None:
        """End it; its data stay."""
        self._stop.set()
        process = self._process
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        self._keeper.join()

    def _keep(self) -> None:
        wait_s = FIRST_RESTART_S
        while not self._stop.is_set():
            begin_s = time.perf_counter()
            try:
                self._run_once()
            except OSError as error:
                logger.warning("Prometheus does not start: %s", error.strerror)
            if self._stop.is_set():
                return
            wait_s = FIRST_RESTART_S if time.perf_counter() - begin_s > 60 else wait_s
            logger.warning("Prometheus has ended (see %s); again in %g s", self._log, wait_s)
            self._stop.wait(wait_s)
            wait_s = min(2 * wait_s, LAST_RESTART_S)

    def _run_once(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_end_with_parent,  # noqa: PLW1509 - one call into the kernel
            )
        self.starts += 1
        while self._process.poll() is None:
            if self._stop.wait(0.1):
                break
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_GRACE_S)
        self._process.kill()
        self._process.wait()


def _end_with_parent() -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def look_at(url: str, exporter: str) -> str:
    """What a Prometheus of somebody's says about a run's figures, in a sentence; asks, no more."""
    address = f"{url.rstrip('/')}/api/v1/targets?state=active"
    try:
        with urllib.request.urlopen(address, timeout=ASK_TIMEOUT_S) as answer:
            data: dict[str, Any] = json.load(answer)
        targets = data["data"]["activeTargets"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = getattr(error, "reason", None) or error
        return f"{url} does not answer as a Prometheus ({reason}); the run goes on without it"
    mine = [target for target in targets if exporter in target.get("scrapeUrl", "")]
    if not mine:
        return (
            f"{url} does not scrape http://{exporter}/metrics; fix: add under scrape_configs:"
            f" {{job_name: ipa-energy, static_configs: [{{targets: ['{exporter}']}}]}}"
        )
    health, why = mine[0].get("health"), mine[0].get("lastError")
    return f"{url} scrapes http://{exporter}/metrics: {health}" + (f" ({why})" if why else "")
