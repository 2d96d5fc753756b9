"""IPA's profiling folders: what is read from them, and what is refused."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ipa_energy.errors import ConfigError
from ipa_energy.meters.power_model import PowerModel
from ipa_energy.profile_table.ipa_import import ImportChoice, SeriesImport, read_series
from ipa_energy.profile_table.ipa_tables import (
    COLUMNS,
    NOTES_FILE,
    Note,
    add_note,
    read_accuracies,
    read_notes,
)

ACCURACIES = """\
# IPA's own file has variants named by integers, elsewhere
mock:
  node-1:
    1: 100
video:
  crop:
    yolov5n: 45.7
    yolov5s: 56.8
    # yolov5m: 64.1
audio-qa:
  audio:
    s2t-small: -41.28
"""

MODEL = PowerModel(idle_w=40.0, max_w=100.0, cores=10, source="made up")
"""6 J above idle a CPU second; 4 W idle a core."""

Series = Callable[..., Path]


def request(node: str = "yolo", latency_s: float = 0.1, sent_s: float = 1000.0) -> dict[str, Any]:
    times = {"arrival": sent_s + 0.01, "serving": sent_s + 0.01 + latency_s}
    return {
        "times": {
            "request": {"sending": sent_s, "arrival": sent_s + 0.02 + latency_s},
            "models": {node: times},
        },
        "model_name": node,
    }


TIMED_OUT = {"failed": "timeout", "times": {"request": {"sending": 1.0, "arrival": 2.0}}}
DROPPED = {"failed": "dropped"}
NULL_TIMES = {"times": {"models": {"yolo": {"arrival": 1.0, "serving": None}}}}


def result(*latencies_s: float, **keys: Any) -> dict[str, Any]:
    """``N.json`` of a minute at 20 requests a second that kept one core busy for 30 s."""
    seconds = [[request(latency_s=latency_s)] for latency_s in latencies_s or (0.1, 0.2, 0.3)]
    samples = {"cpu_usage_count": [5.0, 10.0, 40.0, 41.0], "throughput": [None, 4.0, 8.0]}
    times = {"time_cpu_usage_count": [990.0, 1000.0, 1060.0, 1075.0]}
    return {
        **samples,
        **times,
        "memory_usage": None,
        "responses": seconds,
        "start_time_experiment": 1000.0,
        "end_time_experiment": 1060.0,
        **keys,
    }


def line(number: int = 1, variant: str = "yolov5n", **cells: Any) -> dict[str, Any]:
    plain = {
        "experiment_id": number,
        "pipeline_name": "video",
        "node_name": "yolo",
        "model_variant": variant,
        "cpu_request": 2,
        "memory_request": "10Gi",
        "max_batch_size": 4,
        "max_batch_time": 1,
        "load": 20,
        "load_duration": 60,
        "series": 71,
        "series_meta": "cpu type: made up",
        "replicas": 1,
        "no_engine": True,
        "mode": "exponential",
        "data_type": "image",
        "benchmark_duration": 1,
    }
    return plain | cells


@pytest.fixture
def series(tmp_path: Path) -> Series:
    """Writes a series as IPA's profiler does; a result that is text is written as it is."""

    def write(
        lines: list[dict[str, Any]] | None = None, results: dict[int, Any] | None = None
    ) -> Path:
        folder = tmp_path / "series" / "71"
        folder.mkdir(parents=True)
        rows = lines if lines is not None else [line()]
        text = "\n".join(
            [",".join(COLUMNS), *(",".join(str(row[c]) for c in COLUMNS) for row in rows), ""]
        )
        (folder / "key_config_mapper.csv").write_text(text)
        (folder / "0.yaml").write_text("series: 71\n")
        for number, content in (results if results is not None else {1: result()}).items():
            text = content if isinstance(content, str) else json.dumps(content)
            (folder / f"{number}.json").write_text(text)
        (tmp_path / "accuracies.yaml").write_text(ACCURACIES)
        return folder

    return write


def read(folder: Path, **choice: Any) -> SeriesImport:
    accuracies = folder.parents[1] / "accuracies.yaml"
    return read_series(folder, "crop", ImportChoice(accuracies=accuracies, **choice))


# ------------------------------------------------------------------ what is read


def test_a_row_has_ipas_latency_and_throughput(series: Series) -> None:
    (row,) = read(series()).rows
    assert (row.stage, row.variant, row.hardware) == ("crop", "yolov5n", "cpu")
    assert (row.cpu_cores, row.batch, row.replicas) == (2.0, 4, 1)
    assert row.latency_avg_s == pytest.approx(0.2)
    assert row.latency_p99_s == pytest.approx(0.298)  # between 0.2 and 0.3, 98 % of the way
    assert row.throughput_rps == 8.0
    assert row.accuracy == 0.457
    assert row.load_rps == 8.0  # 20 were sent, 8 is what one replica serves
    assert not row.has_energy


@pytest.mark.parametrize(("statistic", "rps"), [("max", 8.0), ("avg", 6.0), ("p99", 7.96)])
def test_reference_throughput_chooses_the_statistic(
    series: Series, statistic: str, rps: float
) -> None:
    (row,) = read(series(), reference_throughput=statistic).rows
    assert row.throughput_rps == pytest.approx(rps)


def test_lost_requests_do_not_count_and_are_said(series: Series) -> None:
    responses = [[request(), TIMED_OUT], [], [DROPPED, NULL_TIMES, {}]]
    found = read(series(results={1: result(responses=responses)}))
    assert found.rows[0].latency_p99_s == pytest.approx(0.1)
    assert any("4 of 5 requests timed out" in text for text in found.remarks[name_of(found)])


def name_of(found: SeriesImport) -> str:
    return next(iter(found.remarks))


def test_throughput_that_only_kept_up_is_remarked(series: Series) -> None:
    found = read(series(results={1: result(throughput=[19.5])}))
    assert any("may be more" in text for text in found.remarks[name_of(found)])


def test_without_throughput_the_latency_gives_it(series: Series) -> None:
    found = read(series(results={1: result(throughput=None)}))
    assert found.rows[0].throughput_rps == pytest.approx(4 / 0.2)
    assert any("no throughput" in text for text in found.remarks[name_of(found)])


def test_variant_without_accuracy_is_left_out_with_a_warning(
    series: Series, caplog: pytest.LogCaptureFixture
) -> None:
    folder = series([line(), line(2, "yolov5m")], {1: result(), 2: result()})
    with caplog.at_level(logging.WARNING):
        found = read(folder)
    assert [row.variant for row in found.rows] == ["yolov5n"]
    assert "yolov5m is not in accuracies.yaml" in caplog.text


def test_percent_and_minus_error_rates_become_ratios(series: Series) -> None:
    path = series().parents[1] / "accuracies.yaml"
    assert read_accuracies(path, "audio-qa", "audio") == {"s2t-small": pytest.approx(-0.4128)}


@pytest.mark.parametrize(
    ("results", "why"),
    [
        ({1: result()}, "no such file"),
        ({1: result(), 2: json.dumps(result())[:200]}, "torn"),
        ({1: result(), 2: result(responses=[])}, "none of 0 requests"),
        ({1: result(), 2: result(responses=[[TIMED_OUT, TIMED_OUT]])}, "none of 2 requests"),
        ({1: result(), 2: result(*[0.01] * 1000, 90.0)}, "below the mean"),
    ],
)
def test_what_ipa_leaves_behind_is_passed_over_and_named(
    series: Series, results: dict[int, Any], why: str
) -> None:
    found = read(series([line(), line(2, "yolov5s")], results))
    assert [row.variant for row in found.rows] == ["yolov5n"]
    ((name, reason),) = found.skipped.items()
    assert name == "experiment 2 (yolov5s 2c b4)"
    assert why in reason


def test_results_and_notes_without_a_line_are_named(series: Series) -> None:
    folder = series(results={1: result(), 7: result()})
    (folder / NOTES_FILE).write_text(Note(experiment_id=9, hardware="cpu").to_line())
    found = read(folder)
    assert found.skipped == {
        "experiment 7": "no line in key_config_mapper.csv",
        "experiment 9": "no line in key_config_mapper.csv",
    }


def test_several_loads_need_a_choice(series: Series) -> None:
    loads = [line(), line(2, load=5), line(3, load="3:5:0-3:5:1")]
    folder = series(loads, {number: result() for number in (1, 2, 3)})
    with pytest.raises(ConfigError, match=r"3 loads: 20, 5, 3:5:0-3:5:1.*--load"):
        read(folder)
    assert read(folder, load="5.0").rows[0].load_rps == 5.0
    # The load of a trace is what was served: 3 requests in a minute.
    assert read(folder, load="3:5:0-3:5:1").rows[0].load_rps == pytest.approx(0.05)
    with pytest.raises(ConfigError, match=r"no experiments at load 7; allowed: 20, 5, 3:5"):
        read(folder, load="7")


# ------------------------------------------------------------------ energy


def test_recorded_joules_are_imported_where_nobody_says_more(series: Series) -> None:
    energy = {
        "joules_per_request": [3.0, 4.0, None],
        "dynamic_joules_per_request": [2.0, 3.0],
        "idle_power_w": [8.0],
    }
    (row,) = read(series(results={1: result(**energy)})).rows
    assert (row.dynamic_energy_j, row.idle_power_w, row.joules_per_request) == (2.5, 8.0, 3.5)
    assert (row.meter, row.quality, row.trials) == ("imported", "imported", 2)
    assert row.energy_ci95_j == pytest.approx(12.706 * 0.5, rel=1e-4)  # t of one degree, s/√2


def test_notes_say_meter_and_quality(series: Series) -> None:
    energy = {"dynamic_joules_per_request": [2.5], "idle_power_w": [8.0]}
    folder = series(results={1: result(**energy)})
    notes = [
        Note(experiment_id=1, meter="perf", quality="estimated"),
        Note(
            experiment_id=1,
            meter="rapl",
            quality="measured",
            trials=5,
            energy_ci95_j=0.1,
            hardware="xeon",
        ),
    ]
    text = "".join(note.to_line() for note in notes) + '{"experiment_id": 1, "met'
    (folder / NOTES_FILE).write_text(text)
    (row,) = read(folder).rows
    assert (row.meter, row.quality, row.trials, row.energy_ci95_j) == ("rapl", "measured", 5, 0.1)
    assert row.hardware == "xeon"
    assert row.joules_per_request == pytest.approx(2.5 + 8.0 / 8.0)


def test_joules_of_the_whole_are_split_by_the_idle_watts(series: Series) -> None:
    energy = {"joules_per_request": [3.5], "idle_power_w": [8.0]}
    (row,) = read(series(results={1: result(**energy)})).rows
    assert row.dynamic_energy_j == pytest.approx(3.5 - 8.0 / 8.0)


def test_joules_that_cannot_be_split_are_none(series: Series) -> None:
    found = read(series(results={1: result(joules_per_request=[3.5])}))
    assert not found.rows[0].has_energy
    assert math.isnan(found.rows[0].joules_per_request)
    assert any("no energy: no idle_power_w" in text for text in found.remarks[name_of(found)])


def test_estimate_from_cpu_seconds_by_hand(series: Series) -> None:
    (row,) = read(series([line(replicas=3)]), power_model=MODEL).rows
    # 30 CPU seconds in 60 s, and a third of 3 requests in 60 s: 30 CPU seconds a request of 6 J
    assert row.dynamic_energy_j == pytest.approx(180.0)
    assert row.idle_power_w == pytest.approx(2 * 4.0)
    assert row.load_rps == 20.0  # three replicas of 8 rps keep up with it
    assert row.joules_per_request == pytest.approx(180.0 + 3 * 8.0 / 20.0)
    assert (row.meter, row.quality, row.trials) == ("cpu-time", "estimated", 1)
    assert math.isnan(row.energy_ci95_j)


def test_values_repeated_until_the_next_scrape_do_not_dilute_the_estimate(series: Series) -> None:
    """New values at 1010 s and 1040 s: 30 CPU seconds in 30 s, one core."""
    counts = [5.0, 5.0, 20.0, 20.0, 50.0, 50.0, 51.0]
    times = [990.0, 1000.0, 1010.0, 1025.0, 1040.0, 1055.0, 1070.0]
    keys = {"cpu_usage_count": counts, "time_cpu_usage_count": times}
    (row,) = read(series(results={1: result(**keys)}), power_model=MODEL).rows
    assert row.dynamic_energy_j == pytest.approx(6.0 * 1.0 / (3 / 60))


def test_estimate_only_when_asked_and_never_over_a_record(series: Series) -> None:
    energy = {"dynamic_joules_per_request": [2.5], "idle_power_w": [8.0]}
    lines = [line(), line(2, "yolov5s")]
    folder = series(lines, {1: result(**energy), 2: result()})
    assert [row.quality for row in read(folder).rows] == ["imported", None]
    rows = read(folder, power_model=MODEL).rows
    assert [row.quality for row in rows] == ["imported", "estimated"]


@pytest.mark.parametrize(
    ("counts", "times", "why"),
    [
        ([], [], "no cpu_usage_count"),
        (None, None, "no cpu_usage_count"),
        ([1.0, 2.0], [900.0, 1100.0], "no cpu_usage_count during"),
        ([5.0, 40.0, 1.0], [1000.0, 1030.0, 1060.0], "fell"),
        ([5.0, 5.0], [1000.0, 1060.0], "dead"),
        ([5.0, 9.0], [1000.0, 1010.0], "covers 10 s of a load of 60 s"),
    ],
)
def test_counter_that_gives_no_figure_gives_none(
    series: Series, counts: Any, times: Any, why: str
) -> None:
    keys = {"cpu_usage_count": counts, "time_cpu_usage_count": times}
    found = read(series(results={1: result(**keys)}), power_model=MODEL)
    assert not found.rows[0].has_energy
    assert math.isnan(found.rows[0].dynamic_energy_j)
    assert any(why in text for text in found.remarks[name_of(found)])


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"cpu_request": "many"}, r"csv:2: cpu_request is 'many'"),
        ({"cpu_request": 0}, r"csv:2: cpu_request is '0'"),
        ({"max_batch_size": 1.5}, r"csv:2: max_batch_size is '1.5'"),
        ({"replicas": 0}, r"csv:2: replicas is '0'"),
        ({"experiment_id": "x"}, r"csv:2: experiment_id is 'x'"),
        ({"model_variant": ""}, r"csv:2: model_variant is empty"),
        ({"series_meta": "a,b"}, r"csv:2: 18 cells under a header of 17"),
    ],
)
def test_bad_line_of_the_mapper(series: Series, cells: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(series([line(**cells)]))


def test_mistakes_of_the_mapper_are_told_together(series: Series) -> None:
    lines = [line(), line(1, "yolov5s"), line(3, node_name="resnet"), line(4, replicas=-1)]
    with pytest.raises(ConfigError) as caught:
        read(series(lines))
    text = str(caught.value)
    assert "csv:5: replicas is '-1'" in text
    assert "experiment_id 1 is also in" in text
    assert "node_name is mixed: resnet, yolo" in text


def test_missing_files_are_named(series: Series, tmp_path: Path) -> None:
    folder = series()
    with pytest.raises(ConfigError, match="no key_config_mapper"):
        read_series(tmp_path, "crop", ImportChoice(accuracies=tmp_path / "accuracies.yaml"))
    (folder / "key_config_mapper.csv").write_text("experiment_id,load\n1,2\n")
    with pytest.raises(ConfigError, match="missing columns pipeline_name"):
        read(folder)
    (folder / "key_config_mapper.csv").write_text("")
    with pytest.raises(ConfigError, match="empty"):
        read(folder)


def test_repeated_entry_is_refused(series: Series) -> None:
    lines = [line(), line(2, memory_request="4Gi")]
    with pytest.raises(ConfigError, match="experiment 2 repeats the entry of 1"):
        read(series(lines, {1: result(), 2: result()}))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"responses": {}}, "responses is no list"),
        ({"responses": [{}]}, r"responses\[0\] is no list"),
        ({"responses": [[7]]}, r"responses\[0\]\[0\] is no mapping"),
        ({"responses": [[{"times": {"models": 7}}]]}, r"\[0\]\[0\]\.times"),
        (
            {"responses": [[request(latency_s=-0.5)]]},
            r"responses\[0\]\[0\]\.times\.models\.yolo: a latency of -0\.5 s",
        ),
        (
            {"responses": [[{"times": {"models": {"yolo": {"arrival": "1", "serving": 2}}}}]]},
            r"yolo\.arrival is '1'",
        ),
        ({"responses": [[request(node="resnet")]]}, "no times of node yolo.*resnet"),
        ({"throughput": [1.0, -1.0]}, r"throughput\[1\] is -1\.0"),
        ({"throughput": 3}, "throughput is no list"),
        ({"idle_power_w": ["8"]}, r"idle_power_w\[0\] is '8'"),
        ({"cpu_usage_count": [-5.0, 1.0, 2.0, 3.0]}, r"cpu_usage_count\[0\] is -5\.0"),
        ({"cpu_usage_count": [1.0]}, "1 values of cpu_usage_count and 4 of time_"),
        ({"end_time_experiment": 1000.0}, "end_time_experiment is 0 s after"),
        ({"start_time_experiment": None}, "start_time_experiment is None"),
        (
            {"joules_per_request": [0.5], "idle_power_w": [8.0]},
            r"joules_per_request is -?0\.5 J, less than the 1 J of 1 idle",
        ),
    ],
)
def test_contradiction_in_a_result_is_an_error_with_its_key(
    series: Series, keys: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read(series(results={1: result(**keys)}))
    assert "1.json" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}\n", "jsonl:1: no experiment_id"),
        ("not json\n", "jsonl:1: not JSON"),
        ('{"experiment_id": 1, "metre": "x"}\n', "unknown keys .*metre"),
        ('{"experiment_id": 1, "meter": "rapl"}\n', "meter without quality"),
        ('{"experiment_id": 1, "meter": "m", "quality": "good"}\n', "quality is 'good'"),
        ('{"experiment_id": 1, "energy_ci95_j": -1}\n', "energy_ci95_j is -1"),
    ],
)
def test_bad_note(series: Series, text: str, message: str) -> None:
    folder = series()
    (folder / NOTES_FILE).write_text(text)
    with pytest.raises(ConfigError, match=message):
        read(folder)


@pytest.mark.parametrize(
    ("pipeline", "stage", "message"),
    [
        ("sum-qa", "crop", "no pipeline sum-qa; allowed: mock, video, audio-qa"),
        ("video", "classification", "no stage video.classification; allowed: crop"),
        ("mock", "node-1", "a key is"),
    ],
)
def test_accuracies_that_are_not_there(
    series: Series, pipeline: str, stage: str, message: str
) -> None:
    path = series().parents[1] / "accuracies.yaml"
    with pytest.raises(ConfigError, match=message):
        read_accuracies(path, pipeline, stage)


def test_accuracy_over_100_percent_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "accuracies.yaml"
    path.write_text("video:\n  crop:\n    yolov5n: 457\n")
    with pytest.raises(ConfigError, match=r"yaml:3: video\.crop\.yolov5n is 457.*percent"):
        read_accuracies(path, "video", "crop")


def test_a_note_joins_the_others_where_a_kill_left_a_torn_one(tmp_path: Path) -> None:
    first, second = Note(experiment_id=1, hardware="cpu"), Note(experiment_id=2, trials=3)
    (tmp_path / NOTES_FILE).write_text(first.to_line() + '{"experiment_id": 9, "me')
    add_note(tmp_path, second)
    assert (tmp_path / NOTES_FILE).read_text() == first.to_line() + second.to_line()
    assert read_notes(tmp_path) == {1: first, 2: second}
