"""What IPA lacks to run: each thing is missed where it is not, and not where it is."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import gurobipy
import pytest

from ipa_energy.errors import ConfigError
from ipa_energy.plugin import environment
from ipa_energy.plugin.environment import PACKAGES, in_short, missing

PYTHON = Path(sys.executable)


@pytest.fixture(autouse=True)
def _no_kubeconfig(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("KUBECONFIG", raising=False)


def fake_python(folder: Path, text: str) -> Path:
    """A program that answers as the probe would."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\necho some banner\ncat <<'END'\n{text}\nEND\n")
    path.chmod(0o755)
    return path


GOOD = '{"version": [3, 11, 4], "absent": [], "ipa_energy": null, "gurobi": null}'


def names(root: Path, python: Path) -> list[str]:
    return [lack.name for lack in missing(root, python)]


def furnish(root: Path, home: Path) -> None:
    """Everything that IPA wants to find in files."""
    constants = root / environment.CONSTANTS
    constants.parent.mkdir(parents=True)
    constants.write_text(f'import os\n\nPROJECT_PATH = "{root}"\n')
    series = root / "data/results/profiling/nodes/series/21"
    series.mkdir(parents=True)
    (series / "key_config_mapper.csv").write_text("experiment_id\n")
    (root / "data/lstm").mkdir()
    (root / "data/lstm/saved_model.pb").write_bytes(b"x")
    (home / ".kube").mkdir(parents=True)
    (home / ".kube/config").write_text("{}")


def test_nothing_is_missed_where_everything_is(tmp_path: Path) -> None:
    root = tmp_path / "ipa"
    furnish(root, tmp_path / "home")
    assert names(root, fake_python(tmp_path, GOOD)) == []


def test_an_empty_checkout_lacks_profiles_weights_and_a_cluster(tmp_path: Path) -> None:
    found = missing(tmp_path, fake_python(tmp_path, GOOD))
    assert [lack.name for lack in found] == ["profiles", "LSTM weights", "kubeconfig"]
    assert all(lack.fix and lack.reason for lack in found)
    assert "ipa-energy convert --to-ipa" in found[0].fix


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("data/results/profiling/nodes/series/21/key_config_mapper.csv", "profiles"),
        ("data/lstm/saved_model.pb", "LSTM weights"),
        ("../home/.kube/config", "kubeconfig"),
    ],
)
def test_each_file_is_missed_on_its_own(tmp_path: Path, path: str, name: str) -> None:
    root = tmp_path / "ipa"
    furnish(root, tmp_path / "home")
    (root / path).unlink()
    assert names(root, fake_python(tmp_path, GOOD)) == [name]


def test_kubeconfig_is_looked_for_where_the_variable_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "ipa"
    furnish(root, tmp_path / "home")
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join(["/nowhere/a", "/nowhere/b"]))
    found = missing(root, fake_python(tmp_path, GOOD))
    assert [lack.reason.split(" is not")[0] for lack in found] == ["/nowhere/a and /nowhere/b"]


def test_another_project_path_is_named_with_its_line(tmp_path: Path) -> None:
    root = tmp_path / "ipa"
    furnish(root, tmp_path / "home")
    (root / environment.CONSTANTS).write_text('import os\n\nPROJECT_PATH = "/home/cc/ipa"\n')
    (found,) = missing(root, fake_python(tmp_path, GOOD))
    assert found.name == "PROJECT_PATH"
    assert found.reason.startswith("experiments/utils/constants.py:3 says '/home/cc/ipa'")
    assert f'PROJECT_PATH = "{root}"' in found.fix


def test_modules_and_licence_come_from_the_python_that_runs_ipa(tmp_path: Path) -> None:
    root = tmp_path / "ipa"
    furnish(root, tmp_path / "home")
    text = (
        '{"version": [3, 8, 1], "absent": ["sklearn", "barazmoon"], '
        '"ipa_energy": "ModuleNotFoundError: no", "gurobi": "a Gurobi licence of limited size"}'
    )
    python = fake_python(tmp_path, text)
    found = {lack.name: lack for lack in missing(root, python)}
    assert list(found) == ["ipa-energy", "sklearn", "barazmoon", "gurobi licence"]
    assert "(Python 3.8.1) cannot import ipa_energy" in found["ipa-energy"].reason
    assert "Python 3.11 or newer" in found["ipa-energy"].fix
    assert found["sklearn"].fix == f"{python} -m pip install scikit-learn"
    assert found["barazmoon"].fix == f"{python} -m pip install {root}/load_tester"
    assert "ipa-energy" in found["gurobi licence"].fix
    _, modules, licence = in_short([*found.values()])
    assert modules.reason == f"{python} has no sklearn, barazmoon"
    assert modules.fix == f"{python} -m pip install scikit-learn {root}/load_tester"
    assert licence.name == "gurobi licence"


def test_this_python_is_probed_for_real(tmp_path: Path) -> None:
    found = environment._probe(PYTHON)
    assert tuple(found["version"]) == sys.version_info[:3]
    assert found["ipa_energy"] is None
    present = {"numpy", "pandas", "yaml", "gurobipy"}
    assert not present & set(found["absent"])
    assert set(found["absent"]) < set(PACKAGES)


def test_the_size_limit_of_gurobis_bundled_licence_is_noticed() -> None:
    try:
        with gurobipy.Env(params={"OutputFlag": 0}) as env, gurobipy.Model(env=env) as model:
            model.addMVar(2001)
            model.optimize()
    except gurobipy.GurobiError as error:
        assert "size-limited" in str(error)
        assert "limited size" in str(environment.licence_problem())
    else:
        assert environment.licence_problem() is None
    # A program within the limit is solved, so it is the size that is refused.
    assert environment.licence_problem(variables=20) is None


def test_a_relative_python_is_found_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_python(tmp_path, GOOD)
    monkeypatch.chdir(tmp_path)
    assert "ipa-energy" not in names(tmp_path, Path("./python"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("#!/bin/sh\nexit 3\n", "does not run: exit status 3"),
        ("#!/bin/sh\necho hello\n", "cannot be run: is no Python"),
        ("#!/bin/sh\n", "cannot be run: is no Python"),
        (None, "cannot be run: No such file"),
    ],
)
def test_what_is_no_python_is_refused(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "python"
    if text is not None:
        path.write_text(text)
        path.chmod(0o755)
    with pytest.raises(ConfigError, match=message):
        missing(tmp_path, path)
