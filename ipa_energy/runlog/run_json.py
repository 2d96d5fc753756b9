"""``run.json``: who ran and how it ended, the only file of a run folder that IPA does not know."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ipa_energy.errors import ConfigError
from ipa_energy.runlog.folder import RUN_FILE
from ipa_energy.runlog.record import FORMAT, RunInfo, RunStatus


def run_json(info: RunInfo, status: RunStatus, **further: Any) -> str:
    """The text of ``run.json``."""
    data = {"format": FORMAT, "status": status, **info.to_json(), **further}
    return json.dumps(data, indent=1, allow_nan=False) + "\n"


def read_run_json(path: Path) -> tuple[RunInfo, str]:
    """``run.json`` of a folder: who ran, and the status.

    Raises:
        ConfigError: there is none, or it is not ours.
    """
    file = path / RUN_FILE
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        info, status = RunInfo.from_json(data), str(data["status"])
        newer = int(data["format"]) > FORMAT
    except OSError as error:
        raise ConfigError(
            "is not a run folder: it has no run.json",
            where=path,
            allowed="a folder that ipa-energy run --out made",
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"not a run.json ({error})", where=file) from error
    if newer:
        raise ConfigError("written by a newer version", where=file, fix="upgrade ipa-energy")
    return info, status
