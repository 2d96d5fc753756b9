"""Builds the stand-in for the driver's library and runs code against it through nvidia-ml-py.

Each run is a process of its own: the real ``pynvml`` finds the library by ``LD_LIBRARY_PATH``, as
it would find the driver's, and this process stays free of it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).with_name("fake_nvml.c")

PRELUDE = """\
import json, os, sys, time
from pathlib import Path
import ipa_energy.meters.nvml
from ipa_energy.errors import IpaEnergyError
from ipa_energy.meters.nvml import NvmlMeter
from ipa_energy.meters.nvml import NvmlPowerMeter

def pretend(**lines):
    text = "".join(f"{key.split('_')[0]} {key.split('_')[1]} {v}\\n" for key, v in lines.items())
    path = Path(os.environ["FAKE_NVML"])
    new = path.with_suffix(".new")
    new.write_text(path.read_text() + text)
    new.replace(path)

def error_of(function, *arguments):
    try:
        return repr(function(*arguments))
    except IpaEnergyError as error:
        return f"{type(error).__mro__[1].__name__} {type(error).__name__}: {error}"

def answer(**values):
    print(json.dumps(values))
"""


@dataclass(frozen=True, slots=True)
class FakeDriver:
    """A folder with a ``libnvidia-ml.so.1`` and the file that says what it pretends."""

    folder: Path

    def run(self, code: str, *, pretend: str = "", **environ: str) -> Any:
        """What ``code`` passes to ``answer``, with the driver as ``pretend`` says."""
        control = self.folder / "pretend"
        control.write_text(pretend)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("CUDA_", "NVIDIA_"))}
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", PRELUDE + code],
            env=kept
            | {"LD_LIBRARY_PATH": str(self.folder), "FAKE_NVML": str(control)}
            | {"PYTHONPATH": str(Path(__file__).parents[1])}
            | environ,
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


def build_driver(folder: Path, *options: str) -> FakeDriver:
    """Compile the library into ``folder``; skips the test where that cannot be done."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("the stand-in for NVML needs a C compiler")
    pytest.importorskip("pynvml", reason="needs nvidia-ml-py (pip install ipa-energy[nvml])")
    library = folder / "libnvidia-ml.so.1"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-Wall", "-Werror", *options, "-o", library, SOURCE],
        check=True,
        timeout=60,
    )
    return FakeDriver(folder)
