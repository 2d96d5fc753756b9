"""Loading, overriding and dumping a pipeline YAML."""

from __future__ import annotations

import logging
import random
from pathlib import Path

import pytest
import yaml

from ipa_energy.config import CsvWorkload, PipelineConfig, dump_config, load_config
from ipa_energy.errors import ConfigError

MINIMAL = """\
pipeline_name: video
nodes:
  - node_name: yolo
  - node_name: resnet
alpha: 2
beta: 1
"""

# The keys of IPA's own files, quoted where IPA quotes.
IPA_STYLE = """\
pipeline_folder_name: video
pipeline_name: video
timeout: 1
pipeline_folder_name: video
mode: exponential
nodes:
  - node_name: yolo
    data_type: image
    model_variants: small
    max_batch_size: '2'
    max_batch_time: '0.5'
    cpu_request: '4'
    memory_request: 4Gi
    replicas: 1
    use_threading: 'True'
    num_interop_threads: '1'
    num_threads: '1'
  - node_name: resnet-human
    model_variants: tiny
    max_batch_size: '1'
    max_batch_time: '1'
    cpu_request: '1'
    replicas: 3
benchmark_duration: 1
adaptation_interval: 10
workload_type: twitter
workload_config:
  - start: '1301160'
    end: '1302360'
    damping_factor: 8
  - start: '5'
    end: '6'
    damping_factor: null
metaseries: 20
series: 1
metadata: 'bursty: a note'
number_tasks: 2
profiling_series: [71, 72]
model_name: [yolo, resnet-human]
task_name: [crop, classification]
initial_active_model: [small, tiny]
initial_cpu_allocation: [1, 2]
initial_replica: [1, 3]
initial_batch: [1, 4]
alpha: 2
beta: 0.5
gamma: 0.000001
scaling_cap: 100
batching_cap: 8
num_state_limit: 1
threshold: 4
optimization_method: gurobi
allocation_mode: base
sla_factor: 5
normalize_accuracy: true
only_measured_profiles: true
profiling_load: [20, 10]
baseline_mode: null
accuracy_method: multiply
lowest_model_accuracy: 0.05
predictor_type: 'lstm'
monitoring_duration: 2
backup_predictor_type: 'max'
backup_predictor_duration: 2
central_queue: true
distrpution_time: 30
debug_mode: false
simulation_mode: false
predictor_margin: 20
drop_limit: null
warm_up: false
teleport_mode: false
teleport_interval: 0
reference_latency: 'avg'
reference_throughput: 'max'
latency_margin: 100
throughput_margin: -50
logs_enabled: false
from_storage: [false, false]
"""

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "ipa-configs"
needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason=f"IPA's configs are not beside the checkout ({SHARED})"
)


def write(folder: Path, text: str) -> Path:
    path = folder / "pipeline.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def message(path: Path, overrides: dict[str, object] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return str(caught.value)


def test_minimal_file_gets_ipas_usual_values(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, MINIMAL))
    assert [stage.name for stage in config.stages] == ["yolo", "resnet"]
    assert (config.energy_weight, config.energy_sla_joules, config.latency_sla_s) == (0, None, None)
    assert (config.sla_factor, config.threshold, config.scaling_cap) == (5, 4, 100)
    assert (config.optimization_method, config.adaptation_interval) == ("pareto", 10)
    stage = config.stages[0]
    assert (stage.initial_variant, stage.initial_cpu_cores, stage.initial_batch) == (
        None,
        None,
        None,
    )
    assert (stage.initial_replicas, stage.batch_timeout_s, stage.requests_per_input) == (1, 1, 1)


def test_ipas_keys_and_quotes_are_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        config = load_config(write(tmp_path, IPA_STYLE))
    assert "pipeline.yaml:4: pipeline_folder_name repeats line 1" in caplog.text
    crop, classification = config.stages
    assert (crop.name, crop.node_name, crop.model_name) == ("crop", "yolo", "yolo")
    assert (crop.initial_variant, crop.initial_cpu_cores, crop.batch_timeout_s) == ("small", 1, 0.5)
    assert (classification.initial_replicas, classification.initial_batch) == (3, 4)
    assert isinstance(config.workload_config, tuple)
    assert [(w.start, w.end, w.damping_factor) for w in config.workload_config] == [
        (1301160, 1302360, 8),
        (5, 6, None),
    ]
    assert (config.drop_limit, config.profiling_load) == (None, (20, 10))


def test_nodes_say_what_runs_first_when_the_lists_do_not(tmp_path: Path) -> None:
    text = "\n".join(line for line in IPA_STYLE.splitlines() if not line.startswith("initial_"))
    crop, classification = load_config(write(tmp_path, text)).stages
    assert (crop.initial_variant, crop.initial_cpu_cores, crop.initial_batch) == ("small", 4, 2)
    assert classification.initial_replicas == 3


@pytest.mark.parametrize("text", [MINIMAL, IPA_STYLE])
def test_dump_loads_back_equal(tmp_path: Path, text: str) -> None:
    config = load_config(write(tmp_path, text))
    dumped = dump_config(config)
    assert load_config(write(tmp_path, dumped)) == config
    # What IPA's own parser looks for, by PyYAML's rules.
    plain = yaml.safe_load(dumped)
    assert [node["node_name"] for node in plain["nodes"]] == list(config.node_names)


def test_dump_quotes_what_ipa_quotes(tmp_path: Path) -> None:
    plain = yaml.safe_load(dump_config(load_config(write(tmp_path, IPA_STYLE))))
    node = plain["nodes"][0]
    assert (node["max_batch_size"], node["max_batch_time"], node["cpu_request"]) == (
        "2",
        "0.5",
        "4",
    )
    assert (node["use_threading"], node["replicas"]) == ("True", "1")
    assert plain["workload_config"][0] == {
        "start": "1301160",
        "end": "1302360",
        "damping_factor": 8,
    }
    assert plain["gamma"] == 1e-6


def test_dump_keeps_texts_that_look_like_other_things(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, MINIMAL + "metadata: '1e-6'\nseries_meta: 'no'\n"))
    again = load_config(write(tmp_path, dump_config(config)))
    assert (again.metadata, again.series_meta) == ("1e-6", "no")


def test_exponent_without_point_is_a_number(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, MINIMAL + "gamma: 1e-6\n")).gamma == 1e-6


def test_aliases_and_merge_keys_are_fine(tmp_path: Path) -> None:
    text = """\
pipeline_name: video
nodes:
  - &first {node_name: yolo, replicas: 2}
  - {<<: *first, node_name: resnet}
alpha: &one 1
beta: *one
"""
    config = load_config(write(tmp_path, text))
    assert [stage.initial_replicas for stage in config.stages] == [2, 2]
    assert (config.node_names, config.beta) == (("yolo", "resnet"), 1)


def test_byte_order_mark_and_crlf_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "windows.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + MINIMAL.replace("\n", "\r\n").encode())
    assert load_config(path).alpha == 2


def test_file_without_nodes_uses_model_name(tmp_path: Path) -> None:
    text = "pipeline_name: v\nmodel_name: [yolo, resnet]\ntask_name: [crop, cls]\nalpha: 1\nbeta: 1"
    stages = load_config(write(tmp_path, text)).stages
    assert [(stage.name, stage.node_name) for stage in stages] == [
        ("crop", "yolo"),
        ("cls", "resnet"),
    ]


def test_profile_is_found_beside_the_file_then_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, elsewhere = tmp_path / "configs", tmp_path / "cwd"
    folder.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    path = write(folder, MINIMAL + "profile: p.csv\n")
    assert load_config(path).profile == folder / "p.csv"
    (elsewhere / "p.csv").touch()
    assert load_config(path).profile == elsewhere / "p.csv"
    (folder / "p.csv").touch()
    assert load_config(path).profile == folder / "p.csv"
    assert load_config(path, {"profile": "p.csv"}).profile == elsewhere / "p.csv"


def test_overrides_win_and_none_means_not_given(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL + "seed: 3\n")
    config = load_config(path, {"energy_weight": 0.5, "seed": None, "latency_sla_s": 2})
    assert (config.energy_weight, config.seed, config.latency_sla_s) == (0.5, 3, 2)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (
            {"energy_weight": -1.0},
            "--energy-weight: energy_weight is -1.0; allowed: a finite number ≥ 0",
        ),
        (
            {"latency_sla_s": float("nan")},
            "--latency-sla: latency_sla_s is nan; allowed: a finite number > 0 or a mapping or"
            " null",
        ),
        (
            {"optimization_method": "cplex"},
            "--method: optimization_method is the text 'cplex';"
            " allowed: pareto | gurobi | highs | auto | brute-force | ipa-energy",
        ),
        (
            {"predictor_type": 3},
            "--predictor: predictor_type is 3;"
            " allowed: reactive | avg | arima | lstm | max | seasonal | ensemble | oracle",
        ),
        ({"sed": 3}, "--sed: unknown key sed: did you mean seed?"),
    ],
)
def test_a_bad_override_is_told_by_its_option(
    tmp_path: Path, overrides: dict[str, object], told: str
) -> None:
    assert message(write(tmp_path, MINIMAL), overrides) == told


def test_set_gives_any_key_by_the_rules_of_a_file(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL + "energy_sla_joules: 3\n")
    texts = ["gamma=1e-6", "energy_sla_joules=", "metadata='7'"]
    config = load_config(path, {"set": texts, "seed": 4})
    assert (config.gamma, config.energy_sla_joules, config.metadata) == (1e-6, None, "7")
    assert config.seed == 4
    config = load_config(path, {"set": ["initial_batch=[1, 4]", "baseline_mode=switch"]})
    assert (config.initial_batch, config.baseline_mode) == ((1, 4), "switch")


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ({"set": ["gama=1"]}, "--set gama: unknown key gama: did you mean gamma?"),
        ({"set": ["gamma=-1"]}, "--set gamma: gamma is -1; allowed: a finite number ≥ 0"),
        ({"set": ["gamma"]}, "--set: it is the text 'gamma'; allowed: KEY=VALUE"),
        ({"set": ["gamma=[1"]}, "--set gamma: the text '[1' is not YAML"),
        ({"set": ["metadata=2024-13-02"]}, "--set metadata: the text '2024-13-02': month"),
        ({"set": ["seed=1"], "seed": 2}, "--set seed: --seed gives it too; fix: leave one out"),
        ({"set": ["seed=1", "seed=2"]}, "--set seed: another --set gives it too; fix: leave one"),
        ({"set": ["workload_type=csv"], "workload": "bursty"}, "--set workload_type: --workload"),
    ],
)
def test_a_bad_set_is_told_by_its_key(
    tmp_path: Path, overrides: dict[str, object], told: str
) -> None:
    assert message(write(tmp_path, MINIMAL), overrides).startswith(told)


def test_workload_override(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path, IPA_STYLE)
    named = load_config(path, {"workload": "steady-low"})
    assert (named.workload_type, named.workload_config) == ("steady-low", None)
    same = load_config(path, {"workload": "twitter"})
    assert same.workload_config == load_config(path).workload_config
    of_file = load_config(path, {"workload": "trace.csv"}).workload_config
    assert of_file == CsvWorkload(path=tmp_path / "trace.csv", damping_factor=8)
    assert "trace.csv: its requests are divided by 8" in caplog.text, "not in silence"
    caplog.clear()
    whole = {"set": ["workload_type=csv", "workload_config={path: trace.csv}"]}
    assert load_config(path, whole).workload_config == CsvWorkload(path=tmp_path / "trace.csv")
    assert "divided" not in caplog.text
    text = message(write(tmp_path, MINIMAL), {"workload": "twitter"})
    assert text.startswith("--workload: workload_type: twitter needs a workload_config")


PROFILING = "node_name: yolo\nmodel_variants: [a]\nmax_batch_size: ['1']\ncpu_request: ['1']\n"

BAD = [
    # (text added to, or instead of, the minimal file; line; parts of the message)
    (MINIMAL + "gama: 1\n", 7, ["unknown key gama", "did you mean gamma?"]),
    (MINIMAL + "qwertz: 1\n", 7, ["unknown key qwertz", "ipa-energy schema"]),
    (MINIMAL + "alpha: 3\n", 7, ["alpha is 3, but 2 in line 5", "keep one"]),
    (MINIMAL + "gamma: '2'\n", 7, ["gamma is the text '2'", "≥ 0", "without quotes"]),
    (MINIMAL + "gamma: .nan\n", 7, ["gamma is nan", "finite"]),
    (MINIMAL + "gamma: .inf\n", 7, ["gamma is inf", "finite"]),
    (MINIMAL + f"gamma: {'9' * 400}\n", 7, ["gamma is 9999", "finite"]),
    (MINIMAL + "energy_weight: -0.1\n", 7, ["energy_weight is -0.1", "≥ 0"]),
    (MINIMAL + "energy_sla_joules: 0\n", 7, ["energy_sla_joules is 0", "> 0 or null"]),
    (MINIMAL + "energy_metric: joules\n", 7, ["the text 'joules'", "joules_per_request | watts"]),
    (MINIMAL + "energy_risk: max\n", 7, ["energy_risk is the text 'max'", "mean | upper"]),
    (MINIMAL + "latency_sla_s: -1\n", 7, ["latency_sla_s is -1", "> 0 or a mapping or null"]),
    (MINIMAL + "scaling_cap: 0\n", 7, ["scaling_cap is 0", "an integer ≥ 1"]),
    (MINIMAL + "scaling_cap: 2.5\n", 7, ["scaling_cap is 2.5", "an integer ≥ 1"]),
    (MINIMAL + "batching_cap: true\n", 7, ["batching_cap is true", "an integer ≥ 1"]),
    (MINIMAL + "sla_factor: 0\n", 7, ["sla_factor is 0", "> 0"]),
    (MINIMAL + "drop_limit: 0\n", 7, ["drop_limit is 0", "> 0 or null"]),
    (MINIMAL + "adaptation_interval: 0.5\n", 7, ["adaptation_interval is 0.5", "an integer ≥ 1"]),
    (MINIMAL + "latency_margin: -100\n", 7, ["latency_margin is -100", "> -100"]),
    (MINIMAL + "seed: -1\n", 7, ["seed is -1", "an integer ≥ 0"]),
    (MINIMAL + "reconfiguration_s: -1\n", 7, ["reconfiguration_s is -1", "≥ 0"]),
    (MINIMAL + "normalize_accuracy: 'True'\n", 7, ["the text 'True'", "true or false"]),
    (MINIMAL + "accuracy_method: mean\n", 7, ["'mean'", "sum | average | multiply"]),
    (MINIMAL + "baseline_mode: sum\n", 7, ["'sum'", "scale | switch | switch-scale or null"]),
    (MINIMAL + "optimization_method: both\n", 7, ["pareto | gurobi | highs | auto | brute-force"]),
    (MINIMAL + "metadata: 2024-01-02\n", 7, ["the date 2024-01-02", "text", "in quotes"]),
    (MINIMAL + "metadata: 2024-13-02\n", 7, ["2024-13-02", "month"]),
    (MINIMAL + "metadata: !!python/name:os.system x\n", 7, ["constructor"]),
    (MINIMAL + "profile: 3\n", 7, ["profile is 3", "the path of a file"]),
    (MINIMAL + "profile: ''\n", 7, ["profile is the text ''", "the path of a file"]),
    (MINIMAL + "task_name: [a]\n", 7, ["task_name lists 1, but nodes lists 2", "a list of 2"]),
    (MINIMAL + "task_name: a\n", 7, ["task_name is the text 'a'", "a list"]),
    (MINIMAL + "task_name:\n  - a\n  - a\n", 9, ["task_name: a is there twice"]),
    (MINIMAL + "task_name:\n  - a\n  - ../b\n", 9, ["task_name[1] is the text '../b'", "digits"]),
    (MINIMAL + "task_name: [1, b]\n", 7, ["task_name[0] is 1", "in quotes"]),
    (MINIMAL + "initial_replica: [1, '2']\n", 7, ["initial_replica[1] is the text '2'"]),
    (MINIMAL + "initial_batch: [1, 0]\n", 7, ["initial_batch[1] is 0", "≥ 1"]),
    (MINIMAL + "requests_per_input: [1, 2, 3]\n", 7, ["lists 3, but nodes lists 2"]),
    (MINIMAL + "profiling_load: [1]\n", 7, ["profiling_load lists 1"]),
    (MINIMAL + "profiling_load: [1, x]\n", 7, ["profiling_load[1] is the text 'x'"]),
    (MINIMAL + "number_tasks: 3\n", 7, ["number_tasks is 3, but nodes lists 2"]),
    (MINIMAL + "prices: {gpu: -1}\n", 7, ["prices.gpu is -1", "≥ 0"]),
    (MINIMAL + "prices:\n  core: 1\n", 8, ["the price of a core is beta"]),
    (MINIMAL + "capacity: {core: 0}\n", 7, ["capacity.core is 0", "> 0"]),
    (MINIMAL + "capacity: 9\n", 7, ["capacity is 9", "a mapping or null"]),
    (MINIMAL + "capacity: {a b: 9}\n", 7, ["capacity has the key 'a b'", "digits"]),
    (MINIMAL + "workload_type: static\n", 7, ["needs a workload_config", "loads_to_test"]),
    (MINIMAL + "workload_type: cvs\n", 7, ["the text 'cvs'", "static | twitter | bursty"]),
    (MINIMAL + "workload_config: {sed: 1}\n", 7, ["unknown key workload_config.sed", "seed?"]),
    (MINIMAL + "workload_config: {path: x}\n", 7, ["workload_config.path", "seed, duration_s"]),
    (
        MINIMAL + "workload_type: static\nworkload_config: {loads_to_test: -1, load_duration: 9}\n",
        8,
        ["workload_config.loads_to_test is -1", "≥ 0"],
    ),
    (
        MINIMAL + "workload_type: csv\nworkload_config: {damping_factor: 8}\n",
        8,
        ["key workload_config.path is missing", "the path of a file"],
    ),
    (
        MINIMAL + "workload_type: twitter\nworkload_config:\n- start: '9'\n  end: '3'\n",
        10,
        ["end is 3 s, but start is 9 s", "above 9"],
    ),
    (
        MINIMAL + "workload_type: twitter\nworkload_config:\n- start: 'x'\n  end: '3'\n",
        9,
        ["workload_config[0].start is the text 'x'", "in quotes or not"],
    ),
    (MINIMAL.replace("alpha: 2\n", ""), 1, ["key alpha is missing", "finite number"]),
    (MINIMAL.replace("alpha: 2", "alpha:"), 5, ["alpha is null", "finite number"]),
    (MINIMAL.replace("yolo", "resnet"), 4, ["resnet is there twice"]),
    (MINIMAL.replace("yolo", "a/b"), 3, ["the text 'a/b'", "digits"]),
    (MINIMAL.replace("yolo", "''"), 3, ["the text ''", "digits"]),
    (MINIMAL.replace("- node_name: yolo", "- yolo"), 3, ["nodes[0] is the text", "a mapping"]),
    ("pipeline_name: v\nalpha: 1\nbeta: 1\n", 1, ["no stages", "nodes"]),
    (MINIMAL + "1: 2\n", 7, ["a key is 1", "text as key"]),
    (MINIMAL + "? [a]\n: 2\n", 7, ["a key", "text as key"]),
    ("a: [\n", 2, ["not YAML", "flow"]),
    ("a: 'b\n", 2, ["not YAML", "quoted scalar"]),
    ("a:\n\tb: 1\n", 2, ["not YAML", "tabs"]),
    ("a: \x01\n", 1, ["not YAML"]),
    ("a: 1\n---\nb: 1\n", 2, ["single document"]),
    ("- a\n", 1, ["a list", "a mapping"]),
    ("text\n", 1, ["a single value", "a mapping"]),
]


@pytest.mark.parametrize(("text", "line", "parts"), BAD)
def test_bad_file_is_refused_with_line_key_and_what_is_allowed(
    tmp_path: Path, text: str, line: int, parts: list[str]
) -> None:
    path = write(tmp_path, text)
    told = message(path)
    assert told.startswith(f"{path}:{line}: ")
    for part in parts:
        assert part in told
    assert "\n" not in told


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["is empty"]),
        ("# nothing\n", ["is empty"]),
        ("a: &x [*x]\n", ["alias of itself"]),
        ("a: " + "[" * 5000, ["nested too deeply"]),
        (PROFILING, ["profiling config", "nodes, alpha and beta"]),
    ],
)
def test_bad_file_as_a_whole(tmp_path: Path, text: str, parts: list[str]) -> None:
    path = write(tmp_path, text)
    told = message(path)
    assert told.startswith(f"{path}: ")
    for part in parts:
        assert part in told


def test_unreadable_places(tmp_path: Path) -> None:
    assert message(tmp_path / "none.yaml") == f"{tmp_path / 'none.yaml'}: no such file"
    assert "this is a folder" in message(tmp_path)
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"a: 1\nb: caf\xe9\n")
    assert f"{path}:2: byte 0xe9 is not UTF-8" in message(path)


def test_all_mistakes_are_told_together(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL + "alpha: 3\ngama: 1\nscaling_cap: 0\n")
    lines = message(path).splitlines()
    assert lines[0] == f"{path}: 3 problems"
    assert [line.split(":")[1] for line in lines[1:]] == ["7", "9", "8"]


def test_hundreds_of_mistakes_are_counted_not_listed(tmp_path: Path) -> None:
    text = MINIMAL + "".join(f"zzz{number}: 1\n" for number in range(300))
    lines = message(write(tmp_path, text)).splitlines()
    assert len(lines) == 12
    assert lines[-1].strip() == "… and 290 more"


def test_nested_aliases_do_not_explode(tmp_path: Path) -> None:
    levels = [f"k{i}: &k{i} [{', '.join([f'*k{i - 1}'] * 10)}]" for i in range(1, 30)]
    text = "k0: &k0 [x]\n" + "\n".join(levels) + "\n"
    assert "unknown key k0" in message(write(tmp_path, text))


def test_any_damage_ends_in_a_config_error(tmp_path: Path) -> None:
    rng = random.Random(7)
    alphabet = "\x00\t\n :-[]{}&*!%'\"#|>0aé\u2028"
    refused = 0
    for _ in range(150):
        text = list(IPA_STYLE)
        for _ in range(rng.randint(1, 6)):
            text[rng.randrange(len(text))] = rng.choice(alphabet)
        path = write(tmp_path, "".join(text))
        try:
            assert isinstance(load_config(path), PipelineConfig)
        except ConfigError as error:
            refused += 1
            assert str(path) in str(error)
    assert refused > 50


@needs_shared
def test_ipas_own_files_load_unchanged(tmp_path: Path) -> None:
    paths = [*sorted(SHARED.glob("final-*.yaml")), SHARED / "pipeline-simulation-video.yaml"]
    assert len(paths) >= 9
    for path in paths:
        config = load_config(path)
        assert load_config(write(tmp_path, dump_config(config))) == config
        assert config.energy_weight == 0


@needs_shared
def test_ipas_profiling_configs_are_named_as_such() -> None:
    told = [message(path) for path in SHARED.glob("profiling-*.yaml")]
    assert told and all("profiling config" in text for text in told)


def test_no_stage_begins_with_more_replicas_than_it_may_have(small_pipeline: Path) -> None:
    text = small_pipeline.read_text()
    small_pipeline.write_text(f"{text}initial_replica: [20, 1]\n")
    load_config(small_pipeline)
    small_pipeline.write_text(f"{text}initial_replica: [1, 21]\n")
    with pytest.raises(ConfigError, match="initial_replica is 21, but scaling_cap 20"):
        load_config(small_pipeline)
