"""The sweep over weights × batches: strict files, honest failures, a journal that survives."""

from __future__ import annotations

import csv
import importlib
import importlib.util
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from experiment_scripts import script

from ipa_energy.errors import ConfigError

pytestmark = pytest.mark.measures

SEED = Path(__file__).parents[2] / "experiments" / "seed"
MODULES = (
    "sweep_file",
    "sweep_output",
    "sweep_journal",
    "sweep_run",
    "sweep_table",
    "run_sweep",
)

DETECTOR = """
import json, sys, time
weights, batch = sys.argv[1], int(sys.argv[2])
begun_s = time.perf_counter()
while time.perf_counter() - begun_s < 0.15:
    pass
if weights == "crashes":
    sys.exit("no such weights")
if weights == "garbage":
    print("\\x00\\ufffd {not json}")
    sys.exit()
if weights == "hangs":
    time.sleep(60)
print("a line of chatter")
print(json.dumps({"images": 8, "seconds": 0.4 / batch, "steady_energy_j": 0.01}))
"""

Write = Callable[..., Path]


@pytest.fixture(scope="module")
def seed() -> SimpleNamespace:
    """The scripts of experiments/seed."""
    return SimpleNamespace(**{name: script(f"seed/{name}") for name in MODULES})


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a sweep file beside a fake detector; ``changes`` replace or remove (None) keys."""
    (tmp_path / "fake.py").write_text(DETECTOR)

    def to_file(**changes: Any) -> Path:
        content: dict[str, Any] = {
            "command": ["{python}", "fake.py", "{weights}", "{batch}"],
            "parameters": {"weights": ["small", "large"], "batch": [1, 4]},
            "trials": 2,
            "idle_s": 0,
            "meter": "cpu-time",
            "timeout_s": 30,
            "parse": {
                "images": {"json": "images"},
                "latency_s": {"json": "seconds", "scale": 0.125},
                "steady_energy_j": {"json": "steady_energy_j"},
            },
            **changes,
        }
        path = tmp_path / "sweep.yaml"
        path.write_text(dumped(content))
        return path

    return to_file


def dumped(content: dict[str, Any]) -> str:
    given = {key: value for key, value in content.items() if value is not None}
    return yaml.safe_dump(given, sort_keys=False)


def runs_of(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "journal.jsonl").read_text().splitlines()
    return [record["run"] for record in map(json.loads, lines) if "run" in record]


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "points.csv").open() as file:
        return list(csv.DictReader(file))


# ------------------------------------------------------------------ one sweep


def test_sweep_measures_every_point_and_trial(seed: Any, write: Write, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert seed.run_sweep.main([str(write()), "--out", str(out)]) == 0
    runs = runs_of(out)
    assert len(runs) == 2 * 2 * 2
    assert {run["trial"] for run in runs[:4]} == {0}  # a trial of all, then the next of all
    rows = rows_of(out)
    order = [("small", "1"), ("small", "4"), ("large", "1"), ("large", "4")]
    assert [(row["weights"], row["batch"]) for row in rows] == order
    for row in rows:
        energies = [
            run["energy_j"]
            for run in runs
            if (run["point"]["weights"], str(run["point"]["batch"]))
            == (row["weights"], row["batch"])
        ]
        assert float(row["run_energy_j"]) == pytest.approx(sum(energies) / 2, rel=1e-5)
        assert float(row["joules_per_image"]) == pytest.approx(sum(energies) / 16, rel=1e-5)
        assert float(row["steady_joules_per_image"]) == pytest.approx(0.01 / 8)
        assert float(row["latency_s"]) == pytest.approx(0.05 / int(row["batch"]))
        assert (row["meter"], row["quality"], row["trials"]) == ("cpu-time", "estimated", "2")
    meta = json.loads((out / "meta.json").read_text())
    assert meta["meter"] == "cpu-time"
    assert list(meta["files"]) == ["fake.py"]


def test_order_is_drawn_anew_for_each_trial_and_repeats(seed: Any) -> None:
    points = [(("batch", number),) for number in range(12)]
    order = seed.run_sweep.ordered(points, 3, 5)
    assert order == seed.run_sweep.ordered(points, 3, 5)
    trials = [[point for point, trial in order if trial == number] for number in range(3)]
    assert all(sorted(trial) == points for trial in trials)
    assert trials[0] != trials[1] != points


@pytest.mark.parametrize(
    "case",
    [
        ("crashes", "failed", "no such weights"),
        ("garbage", "unread", "no images in the output"),
        ("hangs", "timeout", "stopped after 3 s"),
    ],
)
def test_a_failing_run_is_named_and_the_others_go_on(
    seed: Any,
    write: Write,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    case: tuple[str, str, str],
) -> None:
    weights, outcome, said = case
    parameters = {"weights": [weights, "small"], "batch": [1]}
    timeout_s = 3 if weights == "hangs" else 30  # enough for "small" on a busy machine
    path = write(parameters=parameters, trials=1, timeout_s=timeout_s)
    out = tmp_path / "out"
    assert seed.run_sweep.main([str(path), "--out", str(out)]) == 1
    printed = capsys.readouterr().out
    assert f"weights={weights} batch=1: 1 × {outcome}" in printed
    assert said in printed
    assert f"fake.py {weights} 1" in printed
    bad, good = rows_of(out)
    assert (bad["trials"], bad["failed"], bad["joules_per_image"]) == ("0", "1", "")
    assert (good["trials"], good["failed"]) == ("1", "0")


def test_a_run_too_short_for_the_meter_has_no_figure(
    seed: Any, write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(
        command=["true", "{weights}"],
        parameters={"weights": ["a"]},
        trials=1,
        parse={"images": {"value": 1}},
    )
    # A busy machine may take more than 0.1 s over the shortest command: then it is not too short.
    outs = (tmp_path / f"out-{number}" for number in itertools.count())
    while not (status := seed.run_sweep.main([str(path), "--out", str(out := next(outs))])):
        capsys.readouterr()
    assert status == 1
    assert "too short for cpu-time, which needs 0.1 s" in capsys.readouterr().out
    assert runs_of(out)[0]["energy_j"] is None


def test_a_program_that_is_not_there_is_named(
    seed: Any, write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(command=["no-such-detector", "{weights}", "{batch}"], trials=1)
    assert seed.run_sweep.main([str(path), "--out", str(tmp_path / "out")]) == 1
    assert "cannot run no-such-detector" in capsys.readouterr().out


# ------------------------------------------------------------------ nothing is lost


def test_resume_does_what_is_missing(seed: Any, write: Write, tmp_path: Path) -> None:
    out, path = tmp_path / "out", str(write(trials=1))
    assert seed.run_sweep.main([path, "--out", str(out), "--only", "batch=4"]) == 0
    first = runs_of(out)
    assert {run["point"]["batch"] for run in first} == {4}
    assert seed.run_sweep.main([path, "--out", str(out), "--resume"]) == 0
    runs = runs_of(out)
    assert runs[:2] == first
    assert len(runs) == 4
    assert len(rows_of(out)) == 4


def test_resume_after_a_kill_in_the_middle_of_a_line(
    seed: Any, write: Write, tmp_path: Path
) -> None:
    out, path = tmp_path / "out", str(write(trials=1))
    assert seed.run_sweep.main([path, "--out", str(out), "--only", "batch=4"]) == 0
    journal = out / "journal.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"run":{"point":{"weights":"la')
    assert seed.run_sweep.main([path, "--out", str(out), "--resume"]) == 0
    assert journal.read_bytes().startswith(whole + b'{"session"')
    assert len(runs_of(out)) == 4


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed_sweep_leaves_no_detector_and_goes_on(
    write: Write, tmp_path: Path, number: signal.Signals
) -> None:
    parameters = {"weights": ["small", "hangs"], "batch": [1]}
    path, out = write(parameters=parameters, trials=1, seed=1), tmp_path / "out"
    arguments = [sys.executable, str(SEED / "run_sweep.py"), str(path), "--out", str(out)]
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: running(tmp_path, "hangs"))
    finally:
        process.send_signal(number)
        process.wait()
    assert process.returncode == (130 if number == signal.SIGINT else -number)
    wait_for(lambda: not running(tmp_path, "hangs"))
    before = runs_of(out)
    assert all(run["outcome"] == "done" for run in before)
    arguments += ["--resume", "--only", "weights=small", "--quiet"]
    wait_for(lambda: subprocess.run(arguments, check=False, capture_output=True).returncode == 0)
    assert [run["point"]["weights"] for run in runs_of(out)] == ["small"]


def running(folder: Path, weights: str) -> bool:
    """True if a fake detector with these weights runs in this folder."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            is_there = (process / "cwd").resolve() == folder
        except OSError:
            continue
        if is_there and arguments[1:3] == ["fake.py", weights]:
            return True
    return False


def wait_for(holds: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def test_existing_runs_are_not_added_to_by_accident(
    seed: Any, write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, path = tmp_path / "out", str(write(trials=1, parameters={"weights": ["a"], "batch": [1]}))
    assert seed.run_sweep.main([path, "--out", str(out)]) == 0
    assert seed.run_sweep.main([path, "--out", str(out)]) == 2
    assert "--resume, or choose another output" in capsys.readouterr().err
    assert len(runs_of(out)) == 1


@pytest.mark.parametrize("change", ["idle_s", "script", "environment", "parameters"])
def test_other_settings_are_not_mixed(
    seed: Any, write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    parameters = {"weights": ["a"], "batch": [1]}
    out = tmp_path / "out"
    path = write(trials=1, parameters=parameters)
    assert seed.run_sweep.main([str(path), "--out", str(out)]) == 0
    before = (out / "journal.jsonl").read_bytes()
    if change == "script":
        (tmp_path / "fake.py").write_text(DETECTOR + "\n# another\n")
    else:
        values: dict[str, Any] = {
            "idle_s": 0.2,
            "environment": {"OMP_NUM_THREADS": "1"},
            "parameters": {"batch": [1], "weights": ["a"]},
        }
        path = write(**{"trials": 1, "parameters": parameters, change: values[change]})
    assert seed.run_sweep.main([str(path), "--out", str(out), "--resume"]) == 2
    assert "the sweep was begun with" in capsys.readouterr().err
    assert (out / "journal.jsonl").read_bytes() == before


def test_more_trials_may_be_added_and_failures_tried_again(
    seed: Any, write: Write, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    parameters = {"weights": ["crashes", "small"], "batch": [1]}
    path = str(write(trials=1, parameters=parameters))
    assert seed.run_sweep.main([path, "--out", str(out)]) == 1
    assert seed.run_sweep.main([path, "--out", str(out), "--resume", "--trials", "2"]) == 1
    assert [run["trial"] for run in runs_of(out)] == [0, 0, 1, 1]
    again = [path, "--out", str(out), "--resume", "--trials", "2", "--retry-failed"]
    assert seed.run_sweep.main(again) == 1
    assert len(runs_of(out)) == 6
    assert [row["failed"] for row in rows_of(out)] == ["2", "0"]


def test_two_sweeps_in_one_folder_are_refused(
    seed: Any, write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with seed.sweep_journal.locked(out):
        assert seed.run_sweep.main([str(write()), "--out", str(out)]) == 2
    assert "another sweep" in capsys.readouterr().err


def test_a_journal_of_something_else_is_left_alone(
    seed: Any, write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "journal.jsonl").write_text("hello\n")
    assert seed.run_sweep.main([str(write()), "--out", str(out), "--resume"]) == 2
    assert "journal.jsonl:1: not a line of a sweep's journal" in capsys.readouterr().err
    assert (out / "journal.jsonl").read_text() == "hello\n"


# ------------------------------------------------------------------ commands


HOSTILE = "x; touch pwned $(touch pwned) `touch pwned` {batch} ' \" \\"


def test_a_value_is_one_argument_whatever_is_in_it(seed: Any) -> None:
    found = seed.sweep_file.fill(["run", "--w={weights}", "{{}}"], {"weights": HOSTILE, "batch": 1})
    assert found == ["run", f"--w={HOSTILE}", "{}"]


@pytest.mark.parametrize("shell", [False, True])
def test_no_shell_runs_what_is_in_a_value(
    seed: Any, write: Write, tmp_path: Path, shell: bool
) -> None:
    script = "import sys, time; time.sleep(0.15); print(sys.argv[1])"
    (tmp_path / "echo.py").write_text(script)
    path = write(
        shell=shell,
        command="{python} echo.py {weights}" if shell else ["{python}", "echo.py", "{weights}"],
        parameters={"weights": [HOSTILE]},
        trials=1,
        parse={"images": {"json": "images"}},
    )
    assert seed.run_sweep.main([str(path), "--out", str(tmp_path / "out")]) == 1
    (run,) = runs_of(tmp_path / "out")
    assert (run["outcome"], run["output"].strip()) == ("unread", HOSTILE)
    assert not (tmp_path / "pwned").exists()


def test_working_folder_cannot_replace_the_measurer(
    seed: Any, write: Write, tmp_path: Path
) -> None:
    """A detector's folder may hold files named like modules."""
    for name in ("json", "ipa_energy", "select"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('shadowed')")
    path = write(
        command=["{python}", "-P", "fake.py", "{weights}", "{batch}"],
        parameters={"weights": ["a"], "batch": [1]},
        trials=1,
    )
    assert seed.run_sweep.main([str(path), "--out", str(tmp_path / "out")]) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"comand": ["a"]}, "unknown key comand"),
        ({"command": None}, "key command is missing"),
        ({"command": ["run", "{weight}", "{batch}"]}, r"\{weight\} is no parameter"),
        ({"command": ["run", "{weights}"]}, r"\{batch\} does not occur"),
        ({"command": "run {weights} {batch}"}, "with shell: false: a list of texts"),
        ({"parse": {"latency_s": {"json": "a"}}}, "images is missing"),
        ({"parse": {"images": {"json": "a", "regex": "(b)"}}}, "exactly one of json, regex"),
        ({"parse": {"images": {"regex": "images"}}}, "has 0 groups; allowed: one"),
        ({"parse": {"images": {"regex": "(images"}}}, "no regular expression"),
        ({"trials": 0}, "trials is 0"),
        ({"trials": "3"}, "trials is the text '3'"),
        ({"parameters": {"weights": [], "batch": [1]}}, "parameters.weights is a list of 0"),
        ({"parameters": {"weights": ["a", "a"], "batch": [1]}}, "weights has a value twice"),
        ({"parameters": {"python": ["a"]}}, "python is a built-in name"),
        ({"idle_s": -1}, "idle_s is -1"),
    ],
)
def test_mistakes_in_the_file_are_named(
    seed: Any, write: Write, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        seed.sweep_file.read_sweep(write(**changes))


def test_shipped_sweeps_are_valid(seed: Any) -> None:
    live = seed.sweep_file.read_sweep(SEED / "sweep.yaml")
    assert len(live.points) == 5 * 6
    published = seed.sweep_file.read_sweep(SEED / "sweep-yolov7.yaml")
    assert len(published.points) == 7 * 2


# ------------------------------------------------------------------ reading the output

YOLOV7_OUTPUT = """
               Class      Images      Labels           P           R      mAP@.5  mAP@.5:.95
                 all         496        3636       0.742       0.651       0.701       0.512
Speed: 222.6/1.1/223.7 ms inference/NMS/total per 640x640 image at batch-size 32
 Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ] = 0.556
 Average Precision  (AP) @[ IoU=0.50:0.95 | area= small | maxDets=100 ] = 0.365
 Average Recall     (AR) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ] = 0.691
"""


def test_output_of_yolov7_is_read(seed: Any) -> None:
    readings = seed.sweep_file.read_sweep(SEED / "sweep-yolov7.yaml").parse
    found = seed.sweep_output.parse_output(YOLOV7_OUTPUT, readings)
    assert found == pytest.approx(
        {"images": 496, "latency_s": 0.2226, "precision": 0.556, "recall": 0.691}
    )


def test_last_json_line_counts_and_optional_fields_may_be_absent(seed: Any) -> None:
    reading = seed.sweep_file.Reading
    readings = {
        "images": reading(json="n"),
        "load_s": reading(json="load", optional=True),
        "batch": reading(value=4),
    }
    text = '{"n": 1}\nchatter {"n": 2}\n{"n": 3}\n{broken}\n'
    found = seed.sweep_output.parse_output(text, readings)
    assert found == {"images": 3.0, "load_s": None, "batch": 4.0}


@pytest.mark.parametrize("value", ['"many"', "true", "null", "NaN", "0", "-2", "[1]", "1e999"])
def test_a_number_that_is_none_is_refused(seed: Any, value: str) -> None:
    readings = {"images": seed.sweep_file.Reading(json="n")}
    with pytest.raises(ConfigError, match="images"):
        seed.sweep_output.parse_output(f'{{"n": {value}}}', readings)


def test_of_an_endless_output_the_end_is_read(seed: Any, tmp_path: Path) -> None:
    path = tmp_path / "printed"
    with path.open("wb") as file:
        file.write(b"\xff" * (17 * 2**20))
        file.write(b'\n{"n": 5}\n')
    text = seed.sweep_output.read_output(path)
    readings = {"images": seed.sweep_file.Reading(json="n")}
    assert seed.sweep_output.parse_output(text, readings) == {"images": 5.0}


# ------------------------------------------------------------------ the detector script


@pytest.mark.video
def test_detector_prints_its_figures(tmp_path: Path) -> None:
    for package in ("torch", "torchvision", "ultralytics"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs {package} (pip install ipa-energy[video])")
    image = pytest.importorskip("PIL.Image")
    for number in range(3):
        image.new("RGB", (40 + number, 30)).save(tmp_path / f"{number}.png")
    arguments = ["--variant", "yolov5n", "--batch", "2", "--size", "64", "--threads", "1"]
    command = [sys.executable, str(SEED / "detect.py"), *arguments, "--folder", str(tmp_path)]
    done = subprocess.run(
        [*command, "--meter", "cpu-time"],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "YOLO_CONFIG_DIR": str(tmp_path)},
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["images"], found["pictures"], found["weights"]) == (3, "folder", "random")
    assert found["latency_s"] == pytest.approx(found["inference_s"] / 3)
    assert found["inference_s"] <= found["steady_s"]
    assert found["steady_quality"] == "estimated"
    assert found["steady_energy_j"] > 0


def test_detector_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    for arguments, message in (
        (["--batch", "0"], "batch 0"),
        (["--size", "100"], "a multiple of 32"),
        (["--folder", str(tmp_path / "none")], "no such folder"),
        (["--folder", str(tmp_path)], "no images"),
    ):
        done = subprocess.run(
            [sys.executable, str(SEED / "detect.py"), "--variant", "yolov5n", *arguments],
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 2
        assert message in done.stderr
