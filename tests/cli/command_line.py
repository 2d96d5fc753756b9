"""Calls of the command in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ipa_energy.cli import main


def call(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of one call."""
    try:
        status = main([str(word) for word in argv])
    except SystemExit as stop:
        status = int(stop.code or 0)
    found = capsys.readouterr()
    return status, found.out, found.err


def call_json(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> tuple[int, Any]:
    """Exit status and the one JSON object on stdout."""
    status, out, _ = call(capsys, *argv, "--json")
    return status, json.loads(out)
