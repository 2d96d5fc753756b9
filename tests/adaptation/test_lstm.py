from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from experiment_scripts import script

from ipa_energy.adaptation import lstm
from ipa_energy.adaptation.forecast import windows_of
from ipa_energy.adaptation.predictor import forecast_lstm, make_predictor
from ipa_energy.errors import ConfigError
from ipa_energy.workloads import SHAPES, named_workload
from ipa_energy.workloads.shapes import drawn_counts, rate_of

OF_MINUTES = [name for name in SHAPES if name != "diurnal"]


@pytest.fixture(scope="module")
def training() -> ModuleType:
    return script("predictors/train_lstm_predictor")


def random_weights(seed: int) -> lstm.Weights:
    random = np.random.default_rng(seed)
    units, inputs = lstm.UNITS, lstm.INPUTS
    return lstm.Weights(
        weight_ih=random.normal(size=(4 * units, inputs)),
        weight_hh=random.normal(size=(4 * units, units)),
        bias_ih=random.normal(size=4 * units),
        bias_hh=random.normal(size=4 * units),
        head_weight=random.normal(size=units),
        head_bias=np.array(random.normal()),
        metadata={"seed": seed},
    )


def zero_weights() -> lstm.Weights:
    weights = random_weights(0)
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "head_weight", "head_bias")
    return replace(weights, **{name: np.zeros_like(getattr(weights, name)) for name in names})


@pytest.mark.parametrize("seed", range(3))
def test_equals_torch(seed: int) -> None:
    torch = pytest.importorskip("torch")
    weights = random_weights(seed)
    network = torch.nn.LSTM(lstm.INPUTS, lstm.UNITS, batch_first=True).double()
    with torch.no_grad():
        network.weight_ih_l0.copy_(torch.tensor(weights.weight_ih))
        network.weight_hh_l0.copy_(torch.tensor(weights.weight_hh))
        network.bias_ih_l0.copy_(torch.tensor(weights.bias_ih))
        network.bias_hh_l0.copy_(torch.tensor(weights.bias_hh))
        inputs = np.random.default_rng(seed).normal(size=(40, lstm.STEPS, lstm.INPUTS))
        expected = network(torch.tensor(inputs))[0][:, -1].numpy()
    assert np.abs(lstm.last_hidden_state(inputs, weights) - expected).max() < 1e-10


def test_one_step_by_hand() -> None:
    """All weights 0 but a bias of 1: i = f = o = σ(1), g = tanh(1), c = σ(1)·tanh(1)."""
    weights = replace(zero_weights(), bias_ih=np.full(4 * lstm.UNITS, 1.0))
    gate, candidate = 1 / (1 + np.exp(-1)), np.tanh(1)
    hidden = lstm.last_hidden_state(np.zeros((1, 1, lstm.INPUTS)), weights)
    assert hidden == pytest.approx(gate * np.tanh(gate * candidate))


def test_gates_do_not_overflow() -> None:
    weights = replace(zero_weights(), bias_ih=np.full(4 * lstm.UNITS, -1e6))
    assert np.isfinite(lstm.last_hidden_state(np.zeros((1, 3, lstm.INPUTS)), weights)).all()


def test_an_untrained_network_is_reactive() -> None:
    maxima = np.arange(24.0).reshape(2, 12)
    assert lstm.forecast(maxima, zero_weights()).tolist() == [11, 23]


def test_the_forecast_is_never_negative() -> None:
    weights = replace(zero_weights(), head_bias=np.array(-5.0))
    assert lstm.forecast(np.ones((1, 12)), weights).tolist() == [0]


def test_features_are_relative_to_the_largest_and_tell_the_level() -> None:
    inputs, scale = lstm.features(np.array([[1.0, 4.0], [0.0, 0.0]]))
    assert scale.tolist() == [4, 1]
    assert inputs[0, :, 0].tolist() == [0.25, 1]
    assert inputs[0, :, 1] == pytest.approx(np.log(5) / 5)
    assert inputs[1, :, 0].tolist() == [0, 0]


@pytest.mark.parametrize("shape", [(12,), (1, 11), (1, 13), (1, 12, 1)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected \\(windows, 12\\)"):
        lstm.forecast(np.ones(shape), zero_weights())


@pytest.mark.parametrize(
    ("length", "expected"),
    [(1, [0] * 12), (3, [0] * 10 + [1, 2]), (12, range(12)), (14, range(2, 14))],
)
def test_short_histories_repeat_their_oldest_maximum(length: int, expected: list[int]) -> None:
    assert lstm.padded(np.arange(float(length))).tolist() == list(expected)


def test_weights_survive_a_round_trip(tmp_path: Path) -> None:
    weights = random_weights(7)
    lstm.save_weights(weights, tmp_path / "w.npz")
    read = lstm.load_weights(tmp_path / "w.npz")
    assert read.metadata == {"seed": 7}
    assert np.abs(read.weight_hh - weights.weight_hh).max() < 1e-6
    assert lstm.forecast(np.ones((1, 12)), read) == pytest.approx(
        lstm.forecast(np.ones((1, 12)), weights), rel=1e-5
    )


def test_a_missing_weight_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no LSTM weights.*train_lstm_predictor"):
        lstm.load_weights(tmp_path / "none.npz")


@pytest.mark.parametrize("content", [b"", b"not a file of arrays", b"PK\x03\x04 broken"])
def test_a_damaged_weight_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.npz"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="no LSTM weights"):
        lstm.load_weights(path)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    weights = replace(random_weights(0), weight_hh=np.zeros((4, 4)))
    lstm.save_weights(weights, tmp_path / "w.npz")
    with pytest.raises(ConfigError, match=r"weight_hh has shape \(4, 4\).*\(100, 25\)"):
        lstm.load_weights(tmp_path / "w.npz")


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    lstm.save_weights(replace(random_weights(0), head_bias=np.array(np.nan)), tmp_path / "w.npz")
    with pytest.raises(ConfigError, match=r"head_bias.*not finite"):
        lstm.load_weights(tmp_path / "w.npz")


def test_the_shipped_weights_are_small_and_say_where_they_come_from() -> None:
    metadata = lstm.load_weights().metadata
    assert lstm.WEIGHTS_PATH.stat().st_size < 50_000
    assert {"torch", "epochs", "seed", "trained_on", "loss", "held_out"} <= metadata.keys()
    assert set(metadata["held_out"]) == set(OF_MINUTES)


@pytest.mark.parametrize("load_rps", [1, 2, 5, 12, 30, 100, 800])
def test_a_constant_load_is_predicted(load_rps: int) -> None:
    assert forecast_lstm(np.full(12, float(load_rps))) == pytest.approx(load_rps, rel=0.1)
    for seconds in (10, 60, 120, 600):  # from the first decision on
        predicted_rps = make_predictor("lstm", backup_name="lstm").predict(
            [load_rps] * seconds, seconds
        )
        assert predicted_rps == pytest.approx(load_rps, rel=0.1)


@pytest.mark.parametrize("shape", OF_MINUTES)
def test_better_than_reactive_and_no_worse_than_max_on_unseen_seeds(
    training: ModuleType, shape: str
) -> None:
    errors = training.evaluation(training.held_out()[shape], lstm.load_weights())
    assert errors["lstm"]["pinball_rps"] < 0.75 * errors["reactive"]["pinball_rps"]
    assert errors["lstm"]["pinball_rps"] < 1.02 * errors["max"]["pinball_rps"]
    assert errors["lstm"]["under_share"] < 0.15 < errors["reactive"]["under_share"]


@pytest.mark.parametrize("scale", [0.5, 4, 20])
def test_better_than_reactive_at_other_loads(training: ModuleType, scale: float) -> None:
    parts = []
    for seed in range(10):
        rate_rps = rate_of(SHAPES["bursty"], seed=seed, duration_s=1200) * scale
        counts = drawn_counts(rate_rps, 8, np.random.default_rng(seed))
        parts.append(training.windows_of(counts))
    errors = training.evaluation(training.joined(parts), lstm.load_weights())
    assert errors["lstm"]["pinball_rps"] < 0.75 * errors["reactive"]["pinball_rps"]


def test_windows_pair_two_minutes_with_the_next_twenty_seconds(training: ModuleType) -> None:
    counts = np.arange(170)
    windows = training.windows_of(counts, offset_s=3)
    assert len(windows) == 3  # 16 whole windows of 10 s from second 3
    assert windows.maxima[0].tolist() == list(range(12, 123, 10))
    assert windows.target_rps.tolist() == [142, 152, 162]


def test_errors_by_hand(training: ModuleType) -> None:
    errors = training.errors_of(np.array([10.4, 6.0]), np.array([8.0, 9.0]))
    assert errors == pytest.approx(
        {
            "mae_rps": 2.5,
            "rmse_rps": np.sqrt((4 + 9) / 2),
            "smape": (2 / 9 + 3 / 7.5) / 2,
            "under_share": 0.5,
            "shortfall_rps": 1.5,
            "excess_rps": 1.0,
            "pinball_rps": (0.2 * 2 + 0.8 * 3) / 2,
        }
    )


def test_the_shipped_figures_are_those_of_the_shipped_weights(training: ModuleType) -> None:
    weights = lstm.load_weights()
    results = training.evaluation(training.held_out()["bursty"], weights)
    assert weights.metadata["held_out"]["bursty"]["lstm"] == pytest.approx(
        results["lstm"], abs=0.01
    )


def test_training_runs_learns_and_repeats(
    training: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    trace = tmp_path / "trace.csv"
    rows = [str(8 * count) for count in named_workload("bursty").counts]
    trace.write_text("\n".join(["requests", *rows]) + "\n")
    for name in ("a.npz", "b.npz"):
        small = ["--epochs", "1", "--train-seeds", "3"]
        files = ["--out", str(tmp_path / name), "--trace", str(trace), "--damping", "8"]
        status = training.main([*files, *small])
        assert status == 0
    first, second = (lstm.load_weights(tmp_path / name) for name in ("a.npz", "b.npz"))
    assert (first.weight_hh == second.weight_hh).all()
    errors = training.evaluation(training.held_out(range(2))["steady-high"], first)
    assert errors["lstm"]["pinball_rps"] < errors["reactive"]["pinball_rps"]
    assert "trace" in capsys.readouterr().out


def test_a_bad_trace_ends_with_a_message(
    training: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = str(lstm.WEIGHTS_PATH)
    assert training.main(["--evaluate", weights, "--trace", str(tmp_path / "no.csv")]) == 2
    assert "there is no such trace" in capsys.readouterr().err


def quantile_weights() -> lstm.Weights:
    return lstm.load_weights(lstm.QUANTILES_PATH, has_quantiles=True)


def test_the_second_network_is_small_and_says_where_it_comes_from() -> None:
    assert lstm.QUANTILES_PATH.stat().st_size < 50_000
    assert {"torch", "epochs", "seed", "trained_on", "loss"} <= quantile_weights().metadata.keys()
    with pytest.raises(ConfigError, match=r"weight_ih has shape .*train_quantiles"):
        lstm.load_weights(lstm.WEIGHTS_PATH, has_quantiles=True)


def test_without_training_every_quantile_is_what_came_last() -> None:
    weights = quantile_weights()
    nothing = replace(
        weights,
        head_weight=np.zeros_like(weights.head_weight),
        head_bias=np.zeros_like(weights.head_bias),
    )
    maxima, means = np.arange(12.0)[None], np.arange(12.0)[None] / 2
    found = lstm.quantiles(maxima, means, nothing)
    assert (found[0, :, 0] == 11).all()
    assert (found[0, :, 1] == 5.5).all()


@pytest.mark.parametrize("shape", OF_MINUTES)
def test_quantiles_of_unseen_seeds_cover_what_they_say(shape: str) -> None:
    """10 % and 90 % of all steps of a minute, peaks and means alike, within six points."""
    below = []
    for seed in range(8):
        counts = named_workload(shape, seed=seed).counts
        for now_s in range(120, 1140, 20):
            forecast = lstm.forecast_quantiles(counts[:now_s])
            came = np.stack(windows_of(counts[now_s : now_s + 60]))
            found = np.stack([forecast.peak_rps, forecast.mean_rps])[..., [1, 5]]
            below.append((came[..., None] <= found).mean(axis=(0, 1)))
    low, high = np.mean(below, axis=0)
    assert 0.03 < low < 0.18
    assert 0.84 < high < 0.97


def test_training_the_second_network_runs_and_repeats(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    module = script("predictors/train_quantiles")
    found = []
    for name in ("a.npz", "b.npz"):
        small = ["--epochs", "1", "--train-seeds", "2"]
        assert module.main(["--out", str(tmp_path / name), *small]) == 0
        found.append(lstm.load_weights(tmp_path / name, has_quantiles=True))
    assert (found[0].head_weight == found[1].head_weight).all()
    assert np.abs(found[0].head_weight).max() > 0
