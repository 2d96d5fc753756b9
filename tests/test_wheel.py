"""The built wheel, installed where there is no checkout, does what the checkout does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIGHT = {"torch", "matplotlib", "plotly", "statsmodels", "pandas", "gurobipy", "jinja2", "pynvml"}
"""What no extra has brought: the core must do without."""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``ipa-energy`` of an environment that has the wheel and the libraries of the core."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    names = _run("git", "-C", ROOT, "ls-files", "-co", "--exclude-standard").split("\n")
    for name in filter(None, names):
        if (ROOT / name).is_file() and not name.startswith(("tests/", "experiments/")):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    _run(*build, "--wheel-dir", folder, source)
    environment = folder / "environment"
    venv.create(environment, with_pip=False)
    [wheel] = folder.glob("*.whl")
    python = environment / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps"]
    _run(*install, wheel)
    site = next(environment.glob("lib/python*/site-packages"))
    _link_libraries(site)
    return environment / "bin" / "ipa-energy"


def _run(*command: str | Path, **options: object) -> str:
    done = subprocess.run(  # type: ignore[call-overload]
        [str(word) for word in command], capture_output=True, text=True, check=False, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


def _link_libraries(site: Path) -> None:
    """Give an environment the libraries of this one, but neither this package nor an extra."""
    for library in Path(sysconfig.get_path("purelib")).iterdir():
        is_light = not library.name.startswith(("ipa_energy", "__editable__", "__pycache__"))
        is_light &= library.name not in LIGHT and library.suffix != ".pth"
        if is_light and not (site / library.name).exists():
            (site / library.name).symlink_to(library)


def _use(program: Path, folder: Path, *words: str, status: int = 0) -> subprocess.CompletedProcess:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "IPA_HOME")}
    done = subprocess.run(
        [program, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done


def test_the_wheels_own_package_is_what_runs(program: Path, tmp_path: Path) -> None:
    code = "import ipa_energy, sys; print(ipa_energy.__file__)"
    found = _run(program.parent / "python", "-c", code, cwd=tmp_path).strip()
    assert Path(found).is_relative_to(program.parents[1])


def test_a_shipped_pipeline_is_planned_run_and_compared_by_its_name(
    program: Path, tmp_path: Path
) -> None:
    planned = json.loads(
        _use(program, tmp_path, "optimize", "video", "--load", "10", "--json").stdout
    )
    assert planned["status"] == "optimal"
    _use(program, tmp_path, "run", "video", "--workload", "steady-low", "--out", "run", "--quiet")
    shown = _use(program, tmp_path, "compare", "run", "--no-hindsight").stdout
    assert "J/request" in shown


def test_verbs_find_the_patches_and_the_schema(program: Path, tmp_path: Path) -> None:
    told = _use(program, tmp_path, "patch", "status", "--ipa-home", str(tmp_path), status=2).stderr
    assert str(tmp_path) in told
    schema = json.loads(_use(program, tmp_path, "schema").stdout)
    assert "energy_weight" in schema["properties"]


def test_rules_and_dashboard_of_live_runs_come_with_it(program: Path, tmp_path: Path) -> None:
    code = (
        "from ipa_energy.shipped import shipped_folder as f;"
        "print(*sorted(path.name for path in (f('configs') / 'monitoring').iterdir()))"
    )
    found = _run(program.parent / "python", "-c", code, cwd=tmp_path).split()
    assert found == sorted(path.name for path in (ROOT / "configs" / "monitoring").iterdir())


def test_profile_finds_the_shipped_models(program: Path, tmp_path: Path) -> None:
    words = ("profile", "video", "--quick", "--out", "profile.csv")
    told = _use(program, tmp_path, *words, status=4).stderr
    assert "need torch" in told


def test_an_unknown_name_is_told_what_is_shipped(program: Path, tmp_path: Path) -> None:
    told = _use(program, tmp_path, "run", "nonsense", "--out", "run", status=2).stderr
    names = ", ".join(sorted(path.stem for path in (ROOT / "configs").glob("*.yaml")))
    assert f"no pipeline is called nonsense; allowed: {names}, which come with ipa-energy" in told


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (("optimize", "video", "--load", "5", "--method", "gurobi"), "gurobi"),
        (("compare", "new", "--html", "page.html"), "report"),
        (("compare", "new", "--png", "figures"), "report"),
    ],
)
def test_what_an_extra_does_names_it(
    program: Path, tmp_path: Path, words: tuple[str, ...], extra: str
) -> None:
    told = _use(program, tmp_path, *words, status=4).stderr
    assert f"pip install 'ipa-energy[{extra}]'" in told
    assert not (tmp_path / "new").exists()
