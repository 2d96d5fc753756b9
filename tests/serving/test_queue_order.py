"""Who is served first: those that can still be in time, or whoever came first."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from option_maker import make_option
from tiny_pipelines import by_id, deployed, run, simulate, stage

from ipa_energy.comparing import metrics
from ipa_energy.config import load_config
from ipa_energy.errors import ConfigError
from ipa_energy.experiment import _info as run_info
from ipa_energy.experiment import load_experiment, run_experiment
from ipa_energy.planning.stages import mixture
from ipa_energy.records import Option, RequestClass, Stage
from ipa_energy.serving.deployment import DeployedStage
from ipa_energy.serving.load import ClassesOfRequests
from ipa_energy.serving.queue_order import slas_of
from ipa_energy.serving.simulated.backend import SimulatedBackend
from ipa_energy.serving.simulated.queueing import InTimeFirst

VIDEO = Path(__file__).parents[2] / "configs" / "video.yaml"


def exact(batch: int, latency_s: float) -> Option:
    return make_option("v", batch, latency_s=latency_s, throughput_rps=batch / latency_s)


def backend(
    stages: Sequence[Stage],
    *choices: tuple[int, int],
    slas_s: Sequence[float] = (),
    drop_limit_s: float | None = None,
    timeout_s: float = 1.0,
) -> SimulatedBackend:
    return SimulatedBackend(
        stages,
        deployed(stages, *choices),
        seed=0,
        slas_s=slas_s,
        drop_limit_s=drop_limit_s,
        batch_timeout_s=[timeout_s] * len(stages),
        reconfiguration_s=0.0,
    )


def test_twice_what_is_carried_has_half_in_time_and_all_are_answered() -> None:
    """A request every half second, served in one: the n-th fifo one waits n/2 s."""
    sent_s, stages = np.arange(40) / 2, [stage(exact(1, 1.0))]
    late_s = {}
    for slas_s in ((), (2.0,)):
        found = simulate(backend(stages, (0, 1), slas_s=slas_s), sent_s)
        assert (found.dropped_at < 0).all()
        assert found.done_s.max() == 40.0  # the same work, one after the other
        late_s[slas_s] = found.done_s - found.sending_s
    assert (late_s[()] <= 2.0).sum() == 3  # sent at 0, 0.5 and 1
    assert (late_s[2.0,] <= 2.0).sum() == 21
    passed = late_s[2.0,] > 2.0
    assert (np.diff(sent_s[passed] + late_s[2.0,][passed]) > 0).all()  # oldest first


def test_who_comes_after_the_rush_does_not_wait_for_those_that_it_made_late() -> None:
    found = simulate(
        backend([stage(exact(1, 1.0))], (0, 1), slas_s=(2.0,)), [*[0.0] * 10, 5.5, 6.5, 7.5]
    )
    assert (found.done_s - found.sending_s)[-3:].tolist() == [1.5, 1.5, 1.5]
    assert found.done_s.max() == 13.0


def test_what_is_late_fills_up_batches_that_have_room() -> None:
    """At 3 s one is in time and three are late: they go along, at once."""
    found = simulate(
        backend([stage(exact(4, 3.0))], (0, 1), slas_s=(4.0,), timeout_s=0.0),
        [0.0, 0.5, 0.5, 0.5, 2.5],
    )
    assert found.started_s[:, 0].tolist() == [0.0, 3.0, 3.0, 3.0, 3.0]
    assert (found.done_s - found.sending_s)[-1] == 3.5


def test_later_stages_count() -> None:
    """0.5 s here and 1 s there: who is older than 0.5 s when it is served is late."""
    stages = [stage(exact(1, 0.5), name="a"), stage(exact(1, 1.0), name="b")]
    found = by_id(run(backend(stages, (0, 1), (0, 9), slas_s=(2.0,)), [0.0] * 4 + [1.2], [0, 9]))
    assert found.started_s[:, 0].tolist() == [0.0, 0.5, 1.0, 2.0, 1.5]


def test_the_drop_limit_holds_for_who_is_passed() -> None:
    sent_s = np.arange(60) / 2
    found = simulate(
        backend([stage(exact(1, 1.0))], (0, 1), slas_s=(2.0,), drop_limit_s=5.0), sent_s
    )
    age_s = found.done_s - found.sending_s
    dropped = found.dropped_at == 0
    assert dropped.sum() > 10
    assert (age_s[dropped] > 5.0).all()
    assert age_s[dropped].max() <= 6.5  # whenever a replica is free, not only in the end
    assert (age_s[~dropped] <= 6.0).all()


@pytest.mark.parametrize("seed", range(12))
def test_nothing_changes_while_everybody_can_be_in_time(seed: int) -> None:
    random = np.random.default_rng(seed)
    sent_s = np.sort(random.uniform(0, 30, 60))
    stages = [stage(exact(2, 0.3), name="a"), stage(exact(1, 0.2), name="b")]
    both = [simulate(backend(stages, (0, 2), (0, 2), slas_s=s), sent_s) for s in ((), (50.0,))]
    assert both[0].done_s.tolist() == both[1].done_s.tolist()


@pytest.mark.parametrize("seed", range(40))
def test_no_order_has_more_in_time(seed: int) -> None:
    """One replica, one at a time, all alike: held against every order there is."""
    random = np.random.default_rng(seed)
    sent = np.sort(random.integers(0, 12, 11)).tolist()

    @cache
    def most(now: int, left: tuple[int, ...]) -> int:
        if not left:
            return 0
        here = [one for one in left if one <= now]
        if not here:
            return most(min(left), left)
        found = 0
        for one in set(here):
            others = list(left)
            others.remove(one)
            found = max(found, (now + 2 - one <= 5) + most(now + 2, tuple(others)))
        return found

    got = simulate(backend([stage(exact(1, 2.0))], (0, 1), slas_s=(5.0,)), np.array(sent, float))
    assert (got.done_s - got.sending_s <= 5.0).sum() == most(0, tuple(sent))


def test_no_batch_waits_to_fill_until_somebody_in_it_is_late() -> None:
    """The third would have to begin by 2 s: with the first two, which have more time."""
    classes = (RequestClass("hasty", 0.5), RequestClass("patient", 0.5, latency_sla_s=20.0))
    one = mixture({each.name: exact(8, 1.0) for each in classes}, classes)
    made = SimulatedBackend(
        [Stage("s", "node", (one,))],
        (DeployedStage("s", one, 1),),
        seed=0,
        batch_timeout_s=[60.0],
        classes=ClassesOfRequests(("hasty", "patient"), np.array([1, 1, 0, 1])),
        slas_s=(2.0, 20.0),
    )
    found = by_id(run(made, [0.0, 0.5, 1.0, 30.0], [0.0, 31.0]))
    assert found.started_s[:, 0].tolist() == [2.0, 2.0, 2.0, 49.0]


@pytest.mark.parametrize("seed", range(20))
def test_where_windows_end_changes_nothing(seed: int) -> None:
    random = np.random.default_rng(seed)
    sent_s = np.sort(random.uniform(0, 30, int(random.integers(20, 150))))
    fan_out = float(random.choice([0.5, 1.0, 1.5]))
    stages = [stage(exact(4, 0.7), name="a"), stage(exact(3, 0.6), name="b", per_input=fan_out)]
    done_s = []
    for edges_s in ([0.0, 31.0], np.unique([0.0, *random.uniform(0, 31, 12), 31.0]).tolist()):
        made = backend(stages, (0, 1), (0, 1), slas_s=(3.0,), timeout_s=5.0, drop_limit_s=9.0)
        done_s.append(by_id(run(made, sent_s, edges_s)).done_s.tolist())
    assert done_s[0] == done_s[1]


def test_each_class_by_its_own_sla() -> None:
    """The patient ones are not passed at 2 s, the others are."""
    classes = (RequestClass("hasty", 0.5), RequestClass("patient", 0.5, latency_sla_s=20.0))
    one = mixture({each.name: exact(1, 1.0) for each in classes}, classes)
    made = SimulatedBackend(
        [Stage("s", "node", (one,))],
        (DeployedStage("s", one, 1),),
        seed=0,
        classes=ClassesOfRequests(("hasty", "patient"), np.array([0, 1] * 5)),
        slas_s=(2.0, 20.0),
    )
    found = by_id(run(made, [0.0] * 10, [0.0, 1.0]))
    took_s = found.done_s - found.sending_s
    assert took_s[1::2].max() == 6.0  # all patient ones, and the first hasty one before them
    assert sorted(took_s[::2].tolist()) == [1.0, 7.0, 8.0, 9.0, 10.0]


def test_of_those_that_are_passed_the_oldest_is_served_first_whoever_came_here_first() -> None:
    queue = InTimeFirst()
    queue.extend(range(4), [1.0, 2.0, 3.0, 4.0], [0.9, 0.1, 3.0, 0.5])
    queue.set_aside(2, 5.0, lambda request: 3.0)
    assert queue.peek(2, 5.0) == ([2, 1], [3.0, 0.1])
    assert queue.expel(2, 5.0, 4.4) == [1, 3]
    queue.pop(2, 5.0)
    assert len(queue) == 0


def test_who_is_passed_is_looked_at_anew_when_a_faster_option_serves() -> None:
    """At 3 s six of batches of 1.5 s are late; at 3.1 s comes one that answers them in time."""
    stages = [stage(exact(1, 1.5), make_option("w", latency_s=0.1, throughput_rps=10.0))]
    sent_s = [0.0, *[0.1] * 7, *[3.05] * 4]
    made = backend(stages, (0, 1), slas_s=(4.2,))
    found = by_id(run(made, sent_s, [0.0, 3.1, 4.0], {3.1: deployed(stages, (1, 1))}))
    assert (np.diff(found.started_s[:, 0]) > 0).all()  # first come, first served


def test_what_waits_moves_along_when_a_stage_is_dealt_out_anew() -> None:
    """Two options beside each other: nobody is lost, late or not."""
    options = (exact(1, 1.0), make_option("w", 1, latency_s=0.5, throughput_rps=2.0))
    stages = [Stage("s", "node", options)]
    made = backend(stages, (0, 1), slas_s=(2.0,))
    plan = (DeployedStage("s", options[1], 1),)
    found = by_id(run(made, np.arange(30) / 3, [0.0, 6.0, 10.0], {6.0: plan}))
    assert len(found) == 30
    assert (found.dropped_at < 0).all()


def test_the_horizon_serves_those_in_time_first_unless_told_otherwise() -> None:
    orders = {
        keys: load_config(VIDEO, dict(keys)).order
        for keys in (
            (),
            (("controller", "horizon"),),
            (("controller", "horizon"), ("queue_order", "fifo")),
            (("queue_order", "in-time-first"),),
            (("controller", "horizon"), ("serving", "ipa")),
        )
    }
    assert list(orders.values()) == ["fifo", "in-time-first", "fifo", "in-time-first", "fifo"]
    with pytest.raises(ConfigError, match=r"queue_order: in-time-first with serving: ipa, whose"):
        load_config(VIDEO, {"queue_order": "in-time-first", "serving": "ipa"})


@pytest.mark.parametrize(
    ("keys", "logged"),
    [
        ({}, None),
        ({"queue_order": "in-time-first"}, "in-time-first"),
        ({"controller": "horizon"}, "in-time-first"),
        ({"controller": "horizon", "queue_order": "fifo"}, "fifo"),
    ],
)
def test_a_run_names_its_order_where_it_is_not_what_it_was_always(
    keys: dict[str, str], logged: str | None
) -> None:
    """Two runs of the horizon that differ in it differ in what their pages say."""
    assert run_info(load_experiment(VIDEO, keys), "r", "simulate").settings.get("queue_order") == (
        logged
    )


def test_of_an_sla_that_changes_the_longest_counts() -> None:
    keys = {"queue_order": "in-time-first", "latency_sla_s": {0: 2.0, 600: 3.0}}
    assert slas_of(load_config(VIDEO, keys), 2.0) == (3.0,)
    assert slas_of(load_config(VIDEO, {"queue_order": "in-time-first"}), None) == ()
    assert slas_of(load_config(VIDEO, {}), 2.0) == ()


def test_a_run_under_bursts_has_more_in_time_by_the_same_plans() -> None:
    found = {
        order: run_experiment(load_experiment(VIDEO, {"queue_order": order}))
        for order in ("fifo", "in-time-first")
    }
    fifo, first = (metrics(each) for each in found.values())
    assert first.sla_attainment > fifo.sla_attainment
    assert first.requests == fifo.requests
    labels = [[step.label for step in each.steps] for each in found.values()]
    assert labels[0] == labels[1]  # today's loop looks at the load alone
    assert found["in-time-first"].info.settings["queue_order"] == "in-time-first"
    assert "queue_order" not in found["fifo"].info.settings
