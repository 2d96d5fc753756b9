"""What the README, the pages and the examples show is what happens."""

from __future__ import annotations

import argparse
import ast
import builtins
import importlib.util
import io
import os
import re
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import ipa_energy
from ipa_energy.cli import build_parser, main
from ipa_energy.config import json_schema
from ipa_energy.workloads.shapes import named_workload

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PACKAGE = ROOT / "ipa_energy"
PAGES = sorted(DOCS.glob("*.md"))
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.M | re.S)


def blocks(path: Path, language: str) -> list[str]:
    return [text for kind, text in FENCE.findall(path.read_text("utf-8")) if kind == language]


def run(command: list[str], folder: Path) -> str:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hooks", DOCS / "hooks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_readme_is_one_screen() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 76


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == ipa_energy.__version__


def test_workflows_and_hooks_are_yaml() -> None:
    for path in (ROOT / ".pre-commit-config.yaml", *(ROOT / ".github/workflows").glob("*.yml")):
        assert yaml.safe_load(path.read_text("utf-8"))


def test_readmes_own_pipeline_works_when_pasted(tmp_path: Path) -> None:
    [shell] = blocks(ROOT / "README.md", "bash")
    told = run(["bash", "-e", "-c", shell], tmp_path)
    assert "best plan: small 1c b1 x1" in told
    assert "mine-energy: " in told and "J per request (estimated, rapl)" in told


def test_readmes_python_works_when_pasted(tmp_path: Path) -> None:
    [code] = blocks(ROOT / "README.md", "python")
    joules, plan, _ = run([sys.executable, "-c", code], tmp_path).splitlines()
    assert joules.startswith("[1.3") and " | " in plan


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_run_and_are_short(path: Path, tmp_path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= 22
    assert run([sys.executable, str(path)], tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_python_of_the_pages_runs(page: Path, tmp_path: Path) -> None:
    for code in blocks(page, "python"):
        run([sys.executable, "-c", code], tmp_path)


def test_the_first_pipeline_is_that_of_the_examples() -> None:
    [shown] = blocks(DOCS / "first-steps.md", "yaml")
    keys = re.compile(r"^(\w+): *([^#\n]*?) *(?:#.*)?$", re.M)
    example = (ROOT / "examples" / "own_pipeline.yaml").read_text("utf-8")
    assert keys.findall(shown) == keys.findall(example)


def test_every_key_and_verb_is_listed(hooks: ModuleType) -> None:
    page = hooks.on_page_markdown((DOCS / "keys.md").read_text("utf-8"))
    schema = json_schema()
    assert [key for key in schema["properties"] if f"`{key}`" not in page] == []
    verbs = hooks.on_page_markdown((DOCS / "verbs.md").read_text("utf-8"))
    shown = dict(hooks.verb_parsers(build_parser()))
    assert {"run", "optimize", "patch", "schema"} <= set(shown)
    assert all(f"## {verb}\n" in verbs for verb in shown)


def test_every_public_name_is_on_the_page_of_the_api() -> None:
    page = (DOCS / "api.md").read_text("utf-8")
    names = [name for name in ipa_energy.__all__ if name != "__version__"]
    assert [name for name in names if not re.search(rf"\b{name}\b", page)] == []


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_files_that_are_named_are_there(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    named = set(re.findall(r"`([a-z_0-9/]+\.py)`", text))
    missing = [
        name for name in named if not ((ROOT / name).is_file() or (PACKAGE / name).is_file())
    ]
    assert len(named) > 10 and missing == []


def test_what_docstrings_refer_to_is_there() -> None:
    """A reference is a whole name, or the end of one."""
    ends, missing = set(), []
    texts = {path: path.read_text("utf-8") for path in PACKAGE.rglob("*.py")}
    for path, text in texts.items():
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for name in (module, *(f"{module}.{name}" for name in _top_names(ast.parse(text)))):
            words = name.split(".")
            ends |= {".".join(words[at:]) for at in range(len(words))}
    for path, text in texts.items():
        for role, name in re.findall(r":(mod|class|func|data):`~?([^`]+)`", text):
            is_ours = name.startswith((".", "ipa_energy")) or "." not in name
            if is_ours and name.lstrip(".") not in ends and not hasattr(builtins, name):
                missing.append(f"{path.relative_to(ROOT)}: {role} {name}")
    assert missing == []


def _top_names(tree: ast.Module) -> set[str]:
    """What a module defines, or has under its own name."""
    found = set()
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            parts = [part for target in targets for part in ast.walk(target)]
            found |= {part.id for part in parts if isinstance(part, ast.Name)}
        if isinstance(node, ast.ImportFrom):
            found |= {name.asname or name.name for name in node.names}
    return found


def test_commands_of_the_pages_have_options_that_exist(hooks: ModuleType) -> None:
    parsers = dict(hooks.verb_parsers(build_parser()))
    unknown = []
    for page in (ROOT / "README.md", *PAGES):
        for line in re.findall(r"ipa-energy ([a-z].*)", page.read_text("utf-8")):
            words = re.split(r"[`#>]| -- ", line)[0].split()
            verb = next((name for name in (" ".join(words[:2]), words[0]) if name in parsers), None)
            options = {word.split("=")[0] for word in words if word.startswith("--")}
            known = _options(parsers[verb]) if verb else set()
            unknown += [f"{page.name}: {line}"] if options - known else []
    assert unknown == []


def _options(parser: argparse.ArgumentParser) -> set[str]:
    return {option for action in parser._actions for option in action.option_strings}


@pytest.mark.skipif(
    importlib.util.find_spec("mkdocs") is None, reason="needs the extra docs of ipa-energy"
)
def test_the_pages_are_built_without_warnings(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    run(command, ROOT)
    assert "energy_weight" in (tmp_path / "keys" / "index.html").read_text("utf-8")


def printed(pipeline: str, weights: dict[str, float], folder: Path) -> list[str]:
    """Lines of ``make run``'s comparison of a pipeline at these weights, words one space apart."""
    folders = [str(folder / name) for name in weights]
    for place, weight in zip(folders, weights.values(), strict=True):
        asked = ["--energy-weight", str(weight), "--out", place, "--quiet"]
        assert main(["run", str(ROOT / "configs" / f"{pipeline}.yaml"), *asked]) == 0
    text = io.StringIO()
    with redirect_stdout(text):
        assert main(["compare", *folders, "--no-hindsight"]) == 0
    return [" ".join(line.split()) for line in text.getvalue().splitlines()]


def first_sentence(name: str) -> str:
    """What the README has of the headline of a comparison."""
    (said,) = re.findall(rf"^({name}: .*) …$", (ROOT / "README.md").read_text("utf-8"), re.M)
    return str(said)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_figures_of_the_video_pipeline_are_what_make_run_prints(tmp_path: Path) -> None:
    lines = printed("video", {"video-ipa": 0, "video-energy": 2}, tmp_path)
    assert lines[0].startswith(first_sentence("video-energy"))
    table = (DOCS / "comparison.md").read_text("utf-8").split("```")[1]
    shown = [*(ROOT / "README.md").read_text("utf-8").splitlines(), *table.splitlines()]
    begins = [
        " ".join(line.split())
        for line in shown
        if re.match(r"video-energy +1|video-ipa +1| +vs first ", line)
    ]
    assert len(begins) == 5
    for begin in begins:
        assert any(line.startswith(begin) for line in lines), begin


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_boards_save_is_what_make_run_prints(tmp_path: Path) -> None:
    lines = printed("boards", {"boards-ipa": 0, "boards-energy": 20}, tmp_path)
    assert lines[0].startswith(first_sentence("boards-energy"))


def test_the_load_of_the_comparison_is_that_of_its_trace() -> None:
    counts = named_workload("bursty").counts
    said = f"{counts.sum():,} requests, {counts.min()} to {counts.max()} a second"
    assert said in " ".join((DOCS / "comparison.md").read_text("utf-8").split())
