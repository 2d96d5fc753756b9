"""How a pipeline's module is found, and what is said when it is not one."""

import sys
from pathlib import Path

import pytest

from ipa_energy.errors import ConfigError, UnavailableError
from ipa_energy.pipeline_models import find_pipeline, find_variant, load_pipeline
from ipa_energy.registries import PIPELINES, Named

COMPLETE = "VARIANTS = ()\ndef build(): ...\ndef sample(): ...\ndef versions(): ...\n"


@pytest.fixture
def put(tmp_path, monkeypatch):
    """Writes a module into a fresh folder that no other test's import can have cached."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)

    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_folder_file_and_module_name_reach_the_same_pipeline(put):
    put("fruit/__init__.py", "")
    put("fruit/apple/__init__.py", "")
    path = put("fruit/apple/pipeline.py", "from fruit.apple import core\n" + COMPLETE)
    put("fruit/apple/core.py", "")
    by_folder = load_pipeline(str(path.parent))
    assert load_pipeline(str(path)) is by_folder
    assert load_pipeline("fruit.apple.pipeline") is by_folder


def test_module_that_is_no_pipeline_is_refused_by_what_it_lacks(put):
    path = put("half.py", "VARIANTS = ()\ndef build(): ...\n")
    with pytest.raises(ConfigError, match="lacks sample, versions"):
        load_pipeline(str(path))


def test_missing_library_is_named(put):
    path = put("needy.py", "import surely_not_installed\n" + COMPLETE)
    with pytest.raises(UnavailableError, match="surely_not_installed"):
        load_pipeline(str(path))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("VARIANTS = (\n", "SyntaxError in line 1: '\\(' was never closed"),
        ("x = 1\ny = 1 / 0\n", "ZeroDivisionError: division by zero"),
        ("import sys\nsys.nothing\n", "AttributeError: module 'sys' has no attribute 'nothing'"),
    ],
)
def test_a_broken_module_is_no_traceback(put, text, says):
    path = put("broken.py", text)
    with pytest.raises(ConfigError, match=f"broken.py: cannot be imported: {says}"):
        load_pipeline(str(path))


def test_variant_is_found_by_stage_and_name():
    pipeline = load_pipeline(str(Path(__file__).parent / "profiling" / "fake_pipeline.py"))
    assert find_variant(pipeline, "work", "steady").name == "steady"
    with pytest.raises(ConfigError, match="work/steady"):
        find_variant(pipeline, "other", "steady")


def test_a_pipeline_is_found_near_before_it_is_found_among_those_shipped(tmp_path: Path) -> None:
    shipped = Path(find_pipeline("video", near=[tmp_path]))
    assert (shipped / "pipeline.py").is_file()
    own = tmp_path / "pipelines" / "video"
    own.mkdir(parents=True)
    (own / "pipeline.py").touch()
    assert Path(find_pipeline("video", near=[tmp_path])) == own


def test_an_entry_added_while_the_program_runs_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PIPELINES, "mine", Named("of my own", "my_package.models"))
    assert find_pipeline("mine") == "my_package.models"


def test_an_unknown_pipeline_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"no models for the pipeline audio[\s\S]*video"):
        find_pipeline("audio")
