"""What IPA itself needs to run and does not find here, in one list, each with the fix.

IPA's repository leaves out its profiling results, the weights of its load predictor (which it loads
whatever predictor is chosen), and a cluster's kubeconfig (which it reads when it is imported); it
has its own path written into a constant. A checkout can be patched without any of them.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from ipa_energy.errors import ConfigError

CONSTANTS = "experiments/utils/constants.py"
_PROBE_LIMIT_S = 120.0

PACKAGES = {
    "gurobipy": "gurobipy",
    "tensorflow": "tensorflow",
    "kubernetes": "'kubernetes<32'",  # later clients load lazily, which IPA does not expect
    "sklearn": "scikit-learn",
    "statsmodels": "statsmodels",
    "pandas": "pandas",
    "numpy": "numpy",
    "matplotlib": "matplotlib",
    "yaml": "pyyaml",
    "click": "click",
    "tqdm": "tqdm",
    "jinja2": "jinja2",
    "requests": "requests",
    "PIL": "pillow",
    "datasets": "datasets",
    "mlserver": "./MLServer",
    "barazmoon": "./load_tester",
}
"""Modules that IPA's runners import, and what ``pip install`` in the checkout gets them from."""


@dataclass(frozen=True, slots=True)
class Lack:
    """One thing that is missing: a short name, what is wrong, and what to do."""

    name: str
    reason: str
    fix: str


def missing(root: Path, python: Path) -> list[Lack]:
    """What IPA lacks to run from the checkout at ``root`` under ``python``.

    Raises:
        ConfigError: ``python`` cannot be run.
    """
    found = _probe(python)
    return [
        *_python_lacks(found, python),
        *_package_lacks(found, root, python),
        *_licence_lacks(found),
        *_path_lacks(root),
        *_result_lacks(root),
        *_kubeconfig_lacks(),
    ]


def in_short(lacks: Sequence[Lack]) -> list[Lack]:
    """The same with all modules that are missing as one thing, which one command gets."""
    modules = [lack for lack in lacks if lack.name in PACKAGES]
    if len(modules) < 2:
        return list(lacks)
    python, _, _ = modules[0].reason.partition(" has no module ")
    install = f"{python} -m pip install"
    names = ", ".join(lack.name for lack in modules)
    sources = " ".join(lack.fix.removeprefix(f"{install} ") for lack in modules)
    whole = Lack("Python modules", f"{python} has no {names}", f"{install} {sources}")
    at = lacks.index(modules[0])
    others = [lack for lack in lacks if lack.name not in PACKAGES]
    return [*others[:at], whole, *others[at:]]


def _probe(python: Path) -> dict[str, Any]:
    """Ask the Python that runs IPA what it has; from ``/``, so that no folder is a module."""
    # A Path forgets the "./" of "./python": what lies here goes before what is on PATH. A virtual
    # environment's python is a link that must not be resolved.
    found_here = python.is_file()
    program = str(python.absolute()) if found_here else shutil.which(python) or str(python)
    command = [str(Path(program).absolute()), "-c", _probe_source(), *PACKAGES]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=_PROBE_LIMIT_S, cwd="/"
        )
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except subprocess.CalledProcessError as error:
        last = error.stderr.strip().splitlines()[-1:] or [f"exit status {error.returncode}"]
        raise ConfigError(f"does not run: {last[0]}", where=f"--python {python}") from error
    except (OSError, subprocess.TimeoutExpired, ValueError, IndexError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is no Python"
        raise ConfigError(f"cannot be run: {reason}", where=f"--python {python}") from error
    return found


def _probe_source() -> str:
    """The next three functions as a program of their own, which needs nothing of this package."""
    functions = (import_problem, licence_problem, print_findings)
    return "\n".join(
        [
            "import importlib.util, json, sys",
            "from typing import Optional",
            *(inspect.getsource(function) for function in functions),
            f"{print_findings.__name__}()",
        ]
    )


# Run by the Python that runs IPA, which may be as old as 3.6: nothing newer in these three.


def import_problem(module: str) -> Optional[str]:  # noqa: UP045
    """What importing the module raises, in words; None if it can be imported."""
    try:
        importlib.import_module(module)
    except Exception as error:  # noqa: BLE001
        return "{}: {}".format(type(error).__name__, error)  # noqa: UP032
    return None


def licence_problem(variables: int = 201) -> Optional[str]:  # noqa: UP045
    """Why Gurobi refuses a program of IPA's kind and size; None if it solves it.

    Args:
        variables: of a quadratic program; the licence in the package allows 200.
    """
    import gurobipy

    refusals = {10009: "no valid Gurobi licence", 10010: "a Gurobi licence of limited size"}
    try:
        model = gurobipy.Model(env=gurobipy.Env(params={"OutputFlag": 0}))
        binaries = [model.addVar(vtype="B") for _ in range(variables)]
        model.setObjective(sum(binary * binary for binary in binaries))
        model.optimize()
    except gurobipy.GurobiError as error:
        return "{} ({})".format(refusals.get(error.errno, "Gurobi fails"), error)
    return None


def print_findings() -> None:
    """One line of JSON: its version, what of its arguments it lacks, and two problems or null."""
    has_gurobi = importlib.util.find_spec("gurobipy") is not None
    found = {
        "version": list(sys.version_info[:3]),
        "absent": [name for name in sys.argv[1:] if importlib.util.find_spec(name) is None],
        "ipa_energy": import_problem("ipa_energy.plugin.hooks"),
        "gurobi": licence_problem() if has_gurobi else None,
    }
    sys.stdout.write("\n" + json.dumps(found) + "\n")


# ------------------------------------------------------------------ each thing that may be lacking


def _python_lacks(found: dict[str, Any], python: Path) -> Iterator[Lack]:
    if found["ipa_energy"] is None:
        return
    old = tuple(found["version"]) < (3, 11)
    version = ".".join(str(part) for part in found["version"])
    yield Lack(
        "ipa-energy",
        f"{python} (Python {version}) cannot import ipa_energy: {found['ipa_energy']}",
        "make IPA's environment with Python 3.11 or newer, and install ipa-energy into it"
        if old
        else f"{python} -m pip install 'ipa-energy[ipa]' (or the folder of its source)",
    )


def _package_lacks(found: dict[str, Any], root: Path, python: Path) -> Iterator[Lack]:
    for module in found["absent"]:
        source = PACKAGES[module]
        wanted = str(root / source[2:]) if source.startswith("./") else source
        yield Lack(module, f"{python} has no module {module}", f"{python} -m pip install {wanted}")


def _licence_lacks(found: dict[str, Any]) -> Iterator[Lack]:
    if found["gurobi"] is not None:
        yield Lack(
            "gurobi licence",
            f"{found['gurobi']}: IPA's program has (variants + 1)·(batch sizes + 1) variables a "
            "stage and quadratic terms",
            "get a licence (free for academics: gurobi.com), or set optimization_method: "
            "ipa-energy in the pipeline YAML, which needs none",
        )


def _path_lacks(root: Path) -> Iterator[Lack]:
    constants = root / CONSTANTS
    for node in _assignments(constants, "PROJECT_PATH"):
        value = node.value.value if isinstance(node.value, ast.Constant) else None
        if isinstance(value, str) and Path(value).resolve() != root:
            yield Lack(
                "PROJECT_PATH",
                f"{CONSTANTS}:{node.lineno} says {value!r}, and this checkout is {root}",
                f'write PROJECT_PATH = "{root}" there, or make {value} a link to it',
            )


def _assignments(path: Path, name: str) -> list[ast.Assign]:
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return []
    return [
        node
        for node in tree.body
        if isinstance(node, ast.Assign)
        and any(isinstance(target, ast.Name) and target.id == name for target in node.targets)
    ]


def _result_lacks(root: Path) -> Iterator[Lack]:
    series = root / "data/results/profiling/nodes/series"
    if not any(series.glob("*/key_config_mapper.csv")):
        yield Lack(
            "profiles",
            f"{series} has no folder with a key_config_mapper.csv",
            "ipa-energy convert --to-ipa "
            f"{series.parent} --profile PROFILE.csv, or profile with IPA, or get IPA's own results "
            "(its README, artifact data)",
        )
    weights = root / "data/lstm"
    if not any((weights / name).is_file() for name in ("saved_model.pb", "keras_metadata.pb")):
        yield Lack(
            "LSTM weights",
            f"{weights} has no saved model; IPA loads it whatever predictor_type says",
            "train it with prediction-modules/lstm-module/train.py, or get IPA's own (its README, "
            "artifact data)",
        )


def _kubeconfig_lacks() -> Iterator[Lack]:
    named = os.environ.get("KUBECONFIG")
    places = named.split(os.pathsep) if named else ["~/.kube/config"]
    if not any(Path(place).expanduser().is_file() for place in places if place):
        yield Lack(
            "kubeconfig",
            f"{' and '.join(places)} is not there; IPA's adapter reads it when it is imported, "
            "in simulation too",
            "copy the cluster's there, or point KUBECONFIG at it; to simulate, any valid one does",
        )
