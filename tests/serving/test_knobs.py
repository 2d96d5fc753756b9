"""``reconfiguration_s`` knob by knob: which time a change takes, and what changes in place."""

import dataclasses
import json

import pytest
from tiny_pipelines import by_id, deployed, option, run, single, stage

from ipa_energy.comparing import metrics
from ipa_energy.config.loading import load_config
from ipa_energy.experiment import load_experiment, run_experiment
from ipa_energy.planning.switching import switches
from ipa_energy.records import Allocation
from ipa_energy.serving.deployment import is_in_place, knob_of, ready_after_s, replica_start

TOLD = {"replicas": 8.0, "variant": 6.0, "cores": 0.5, "clock": 0.25, "partition": 5.0}
SLOW = option(1, 1.0, variant="v", cores=1.0)
FAST = option(1, 0.25, variant="v", cores=4.0)


def on(allocation: Allocation, variant: str = "v"):
    return dataclasses.replace(SLOW, variant=variant, allocation=allocation, load_s=3.0)


BASE = on(Allocation.of(2, clock_mhz=900.0))
SLICE = on(Allocation.of(2, resources={"mig-1g.10gb": 1}, hardware="A100-80GB"))


@pytest.mark.parametrize(
    ("before", "after", "knob", "seconds"),
    [
        (None, BASE, "replicas", 8.0),
        (BASE, BASE, "replicas", 8.0),
        (BASE, on(Allocation.of(2, clock_mhz=900.0), "w"), "variant", 6.0),
        (BASE, on(Allocation.of(4, clock_mhz=900.0)), "cores", 0.5),
        (BASE, on(Allocation.of(2, clock_mhz=600.0)), "clock", 0.25),
        (BASE, on(Allocation.of(4, power_cap_w=200.0)), "cores", 0.5),
        (BASE, on(Allocation.of(2, clock_mhz=900.0, precision="int8")), "variant", 6.0),
        (BASE, on(Allocation.of(2, hardware="other", clock_mhz=900.0)), "variant", 6.0),
        (BASE, SLICE, "partition", 11.0),
        (
            SLICE,
            on(Allocation.of(2, resources={"mig-3g.40gb": 1}, hardware="A100-80GB"), "w"),
            "partition",
            11.0,
        ),
    ],
)
def test_a_change_takes_the_time_of_its_slowest_knob(before, after, knob, seconds):
    assert knob_of(before, after) == knob
    assert ready_after_s(after, TOLD, before) == seconds
    assert is_in_place(after, TOLD, before) == (knob in {"cores", "clock"})


def test_what_is_not_told_is_as_profiled_and_not_in_place():
    wider = on(Allocation.of(4, clock_mhz=900.0))
    assert ready_after_s(wider, {"replicas": 1.0}, BASE) == 3.0
    assert not is_in_place(wider, {"replicas": 1.0}, BASE)
    assert not is_in_place(wider, 8.0, BASE)
    assert ready_after_s(SLICE, {"partition": 5.0}, BASE) == 8.0
    assert replica_start([stage(SLOW)], {"cores": 0.1}).startswith("cores 0.1 s, as reconf")


def test_cores_change_in_place_hold_once_and_load_nothing():
    heavy = dataclasses.replace(FAST, load_energy_j=1000.0)
    backend = single(SLOW, heavy, reconfiguration_s=TOLD)
    plans = {10.0: deployed([stage(SLOW, heavy)], (1, 1))}
    windows = run(backend, [9.0, 12.0], [0.0, 10.0, 20.0], plans)
    # One core until 10.5 s, four after; nobody loads.
    assert [*windows[0].cores, *windows[1].cores][9:12] == [1.0, (1.0 + 4.0) / 2, 4.0]
    idle = windows[1].idle_j[0]
    assert idle == pytest.approx(10 * heavy.idle_power_w)  # the same watts before and after
    served = by_id(windows)
    assert (served.done_s - served.started_s[:, 0]).tolist() == [1.0, 0.25]
    assert windows[1].dynamic_j[0] < 100


def test_another_slice_is_cut_and_loaded_while_the_old_one_serves_and_its_joules_are_counted():
    other = on(Allocation.of(2, resources={"mig-3g.40gb": 1}, hardware="A100-80GB"), "w")
    cut = dataclasses.replace(other, load_energy_j=550.0)
    backend = single(SLICE, cut, reconfiguration_s=TOLD)
    plans = {10.0: deployed([stage(SLICE, cut)], (1, 1))}
    windows = run(backend, [], [0.0, 10.0, 21.0, 30.0], plans)
    # 5 s of cutting and 6 s of starting, both slices held meanwhile; 550 J over these 11 s.
    assert [window.loading_j for window in windows[:3]] == pytest.approx([0.0, 550.0, 0.0])
    assert windows[1].idle_j[0] == pytest.approx(11 * (SLICE.idle_power_w + cut.idle_power_w))
    assert windows[2].idle_j[0] == pytest.approx(9 * cut.idle_power_w)
    assert [state.option.allocation for state in backend.deployed()] == [cut.allocation]


def test_more_replicas_than_there_were_start_beside_those_in_place():
    backend = single(SLOW, FAST, reconfiguration_s=TOLD, replicas=2)
    plans = {10.0: deployed([stage(SLOW, FAST)], (1, 3))}
    windows = run(backend, [], [0.0, 10.0, 11.0, 20.0], plans)
    state = backend.deployed()[0]
    assert (state.ready, state.starting) == (3, 0)
    # 2 + the starting third one's 4 until 10.5 s, then 3 × 4.
    assert windows[1].cores.tolist() == [(6.0 + 12.0) / 2]


def test_a_change_in_place_is_counted_to_cost_nothing():
    stages = [stage(SLOW, FAST)]
    before, after = deployed(stages, (0, 2)), deployed(stages, (1, 2))
    found = switches(stages, [before], [after], reconfiguration_s=TOLD)
    assert (found.load_j[0, 0], found.held_j[0, 0], found.ready_after_s[0, 0]) == (0.0, 0.0, 0.5)
    plain = switches(stages, [before], [after], reconfiguration_s=8.0)
    assert plain.ready_after_s[0, 0] == 8.0
    assert plain.held_j[0, 0] == 2 * SLOW.idle_power_w * 8.0


def test_the_yaml_takes_a_number_or_knobs(tmp_path):
    path = tmp_path / "p.yaml"
    text = "pipeline_name: p\nnodes: [{node_name: a}]\nalpha: 1\nbeta: 1\nreconfiguration_s: "
    path.write_text(text + "{cores: 0.1, partition: 4}\n")
    assert load_config(path).told_s == {"cores": 0.1, "partition": 4.0}
    path.write_text(text + "2\n")
    assert load_config(path).told_s == 2
    path.write_text(text + "{core: 1}\n")
    with pytest.raises(Exception, match="core"):
        load_config(path)


SLICES = (("mig-1g.10gb", 0.5, 5, 8), ("gpu", 0.06, 8, 55))
"""Resource, seconds, joules, idle watts: seven slices carry 14 a second, a whole GPU 16."""


def test_a_run_tells_how_its_gpu_is_cut_and_waits_for_another_cut(tmp_path):
    head = (
        "stage,variant,hardware,cpu_cores,gpu_share,batch,replicas,load_rps,latency_avg_s,"
        "latency_p99_s,throughput_rps,accuracy,dynamic_energy_j,idle_power_w,joules_per_request,"
        "energy_ci95_j,trials,meter,quality,resource,resource_units\n"
    )
    rows = [
        f"a,net,A100-80GB,0,{int(name == 'gpu')},1,1,{1 / s},{s},{s},{1 / s},0.8,{e},{w},"
        f"{e + w * s},,3,nvml,measured,{',' if name == 'gpu' else f'{name},1'}\n"
        for name, s, e, w in SLICES
    ]
    (tmp_path / "profile.csv").write_text(head + "".join(rows))
    loads = "".join(f"{5 if second < 20 else 15}\n" for second in range(60))
    (tmp_path / "load.csv").write_text("requests\n" + loads)
    path = tmp_path / "p.yaml"
    path.write_text(
        "pipeline_name: p\nnodes: [{node_name: a}]\nalpha: 10\nbeta: 0\nenergy_weight: 1\n"
        "prices: {gpu: 0, mig-1g.10gb: 0}\nprofile: profile.csv\nallocation_mode: variable\n"
        "latency_sla_s: 1\ngpus: {A100-80GB: {count: 1}}\noptimization_method: highs\n"
        "predictor_type: max\nmonitoring_duration: 1\nworkload_type: csv\n"
        "workload_config: {path: load.csv}\n"
    )
    idle_j, late = {}, {}
    for cut_s in (0, 6):
        told = {"replicas": 1, "variant": 2, "partition": cut_s}
        found = run_experiment(
            load_experiment(path, {"reconfiguration_s": told}), tmp_path / str(cut_s)
        )
        log = json.loads((tmp_path / str(cut_s) / "adaptation_log.json").read_text())["timesteps"]
        cuts = [entry["gpus"]["A100-80GB"] for entry in log.values()]
        assert cuts[1] == {"7×1g.10gb": 1}
        assert cuts[-1] == {"whole": 1}
        (at,) = [t for t, entry in log.items() if int(t) > 10 and entry["reconfigured"]]
        idle_j[cut_s], late[cut_s] = log[at]["idle_joules"], metrics(found).latency_p99_s
    # The whole GPU waits for its cut and holds its watts meanwhile, beside the slices that serve.
    small = (SLICES[0][3] + 0.0) * 3 * 6
    assert idle_j[6] - idle_j[0] == pytest.approx(small, rel=0.05)
    assert late[6] > late[0] + 1
