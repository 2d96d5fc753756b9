import math

import numpy as np
import pytest
from tiny_pipelines import by_id, deployed, option, run, single, stage, total_j

from ipa_energy.records import Provenance
from ipa_energy.serving.simulated.backend import SimulatedBackend
from ipa_energy.serving.simulated.energy_ledger import integrals, second_edges


def test_idle_hour_costs_n_p_3600():
    replicas, idle_w = 7, 2.3
    backend = single(option(idle_w=idle_w, cores=1.5), replicas=replicas)
    served = backend.serve(np.empty(0), 3600.0)
    assert served.idle_j.tolist() == [replicas * idle_w * 3600]
    assert served.dynamic_j.tolist() == [0.0]
    assert len(served.power_w) == 3600
    assert served.power_w == pytest.approx(replicas * idle_w, rel=1e-15)
    assert (served.cores == replicas * 1.5).all()


def test_dynamic_energy_is_k_times_e_of_every_batch():
    options = (option(1, energy_j=2.0), option(2, energy_j=1.75), option(4, energy_j=1.5))
    backend = single(*options, chosen=2, replicas=50)
    # Batches of 4, 3 (between 2 and 4: (3.5 + 6) / 2 J), 2 and 1.
    windows = run(backend, [0.0] * 4 + [10.0] * 3 + [20.0] * 2 + [30.0], [0.0, 10.0, 20.0, 40.0])
    assert [float(window.dynamic_j.sum()) for window in windows] == [6.0, 4.75, 5.5, 0.0]


def test_batch_below_the_smallest_profiled_one_costs_as_much_as_that():
    windows = run(single(option(4, 0.5, energy_j=1.5), replicas=1), [0.0], [0.0, 5.0])
    assert windows[0].dynamic_j.tolist() == [6.0]
    assert by_id(windows).done_s.tolist() == [1.5]


def test_power_and_cores_by_second():
    # A batch from 0.5 to 2.5 s spends 8 J; one replica idles at 3 W.
    backend = single(option(latency_s=2.0, energy_j=8.0, idle_w=3.0, cores=2.0))
    served = backend.serve(np.array([0.5]), 4.0)
    assert served.power_w.tolist() == [3 + 2, 3 + 4, 3 + 2, 3]
    assert served.cores.tolist() == [2.0] * 4
    assert served.idle_j.tolist() == [12.0]
    assert served.dynamic_j.tolist() == [8.0]


def test_batch_across_a_window_is_paid_in_both_by_its_share():
    backend = single(option(latency_s=2.0, energy_j=8.0))
    first = backend.serve(np.array([0.5]), 1.0)
    second = backend.serve(np.empty(0), 2.0)
    third = backend.serve(np.empty(0), 9.0)
    assert [window.dynamic_j[0] for window in (first, second, third)] == [2.0, 4.0, 2.0]


def test_finish_pays_until_the_last_request_leaves_and_no_longer():
    backend = single(option(latency_s=2.5, idle_w=3.0, energy_j=5.0))
    backend.serve(np.array([0.0, 0.0]), 1.0)
    served = backend.finish()
    assert (served.start_s, served.end_s, served.in_flight) == (1.0, 5.0, 0)
    assert served.idle_j.tolist() == [12.0]
    assert served.dynamic_j.tolist() == pytest.approx([8.0])
    assert served.power_w == pytest.approx([5.0] * 4)


def test_finish_with_a_part_second_gives_its_mean_power():
    backend = single(option(latency_s=1.5, idle_w=3.0, energy_j=3.0))
    backend.serve(np.array([0.0]), 1.0)
    served = backend.finish()
    assert served.end_s == 1.5
    assert served.power_w.tolist() == [5.0]
    assert served.idle_j.tolist() == [1.5]


def test_finish_of_an_empty_pipeline_has_no_length():
    backend = single(option())
    backend.serve(np.empty(0), 3.0)
    served = backend.finish()
    assert (served.start_s, served.end_s, len(served.power_w)) == (3.0, 3.0, 0)
    assert served.idle_j.tolist() == [0.0]
    assert (served.meter, served.quality) == (None, None)


def test_integral_of_power_is_the_energy():
    rng = np.random.default_rng(0)
    stages = [stage(option(1, 0.11, p99_s=0.3), option(4, 0.31, p99_s=0.5), name=n) for n in "ab"]
    backend = SimulatedBackend(stages, deployed(stages, (1, 3), (1, 2)), seed=1)
    sending = np.sort(rng.uniform(0, 60, 900))
    windows = run(backend, sending, [0.0, 10.0, 30.0, 60.0])
    from_power = sum(
        float((w.power_w * np.diff(second_edges(w.start_s, w.end_s))).sum()) for w in windows
    )
    assert from_power == pytest.approx(total_j(windows), rel=1e-12)


def test_simulated_joules_are_estimated_and_name_the_profiles_meters():
    stages = [
        stage(option(), name="a"),
        stage(option(provenance=Provenance("nvml", "measured", 3, 0.1)), name="b"),
    ]
    backend = SimulatedBackend(stages, deployed(stages, (0, 1), (0, 1)), seed=0)
    served = backend.serve(np.empty(0), 1.0)
    assert (served.meter, served.quality) == ("nvml+rapl", "estimated")


def test_profile_without_energy_gives_nan_and_no_meter():
    bare = option(energy_j=math.nan, idle_w=math.nan, provenance=None)
    stages = [stage(option(), name="a"), stage(bare, name="b")]
    backend = SimulatedBackend(stages, deployed(stages, (0, 1), (0, 1)), seed=0)
    served = backend.serve(np.array([0.0]), 3.0)
    assert np.isnan(served.idle_j).tolist() == [False, True]
    assert np.isnan(served.dynamic_j).tolist() == [False, True]
    assert np.isnan(served.power_w).all()
    assert served.cores.tolist() == [2.0] * 3
    assert (served.meter, served.quality) == (None, None)


def test_integrals_by_hand():
    found = integrals(
        np.array([-1.0, 0.5, 2.0, 5.0]),
        np.array([0.5, 2.5, 2.0, 6.0]),
        np.array([2.0, 4.0, math.nan, math.nan]),
        np.array([0.0, 1.0, 2.0, 2.25]),
    )
    assert found.tolist() == [1 + 2, 4, 1]
