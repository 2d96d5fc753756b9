"""The simulation against closed forms and against a second, per-batch recursion."""

from dataclasses import replace

import numpy as np
import pytest
from seeds import seeds
from tiny_pipelines import deployed, option, simulate, single, stage

from ipa_energy.serving.simulated.backend import SimulatedBackend


def test_dd1_below_saturation_never_waits():
    sending = np.arange(100) * 0.75
    requests = simulate(single(option(latency_s=0.5)), sending)
    assert (requests.started_s[:, 0] == sending).all()
    assert (requests.done_s == sending + 0.5).all()


def test_dd1_above_saturation_waits_longer_by_the_excess_each_time():
    sending = np.arange(100) * 0.25
    requests = simulate(single(option(latency_s=0.5)), sending)
    assert (requests.started_s[:, 0] - sending == 0.25 * np.arange(100)).all()


def test_ddn_serves_n_at_a_time():
    requests = simulate(single(option(latency_s=0.5), replicas=3), np.zeros(9))
    assert requests.done_s.tolist() == [0.5] * 3 + [1.0] * 3 + [1.5] * 3


def test_saturated_batch_queue_serves_n_b_over_l():
    replicas, batch, latency_s, rounds = 3, 4, 0.5, 50
    requests = simulate(
        single(option(batch, latency_s), replicas=replicas), np.zeros(replicas * batch * rounds)
    )
    assert requests.done_s.max() == rounds * latency_s
    assert len(requests) / requests.done_s.max() == replicas * batch / latency_s


def test_batch_fills_in_the_planned_wait():
    load_rps, batch = 4.0, 4
    sending = np.arange(40) / load_rps
    requests = simulate(single(option(batch, 0.5), timeout_s=100.0), sending)
    waits_s = requests.started_s[:, 0] - sending
    assert waits_s.reshape(-1, batch)[:, 0].tolist() == [(batch - 1) / load_rps] * 10
    assert waits_s.reshape(-1, batch)[:, -1].tolist() == [0.0] * 10


def test_batch_under_low_load_waits_for_the_time_out():
    sending = np.arange(10) * 8.0
    requests = simulate(single(option(1, 0.25), option(4, 0.5), chosen=1), sending)
    assert (requests.started_s[:, 0] - sending == 1.0).all()
    assert (requests.served_s[:, 0] - requests.started_s[:, 0] == 0.25).all()


def test_time_out_counts_from_the_oldest_and_takes_all_that_wait():
    requests = simulate(single(option(1, 0.5), option(4, 2.0), chosen=1), [0.0, 0.5, 0.75, 1.5])
    assert requests.started_s[:, 0].tolist() == [1.0, 1.0, 1.0, 2.5]
    # 3 of 4 take 0.5 s + 2/3 · 1.5 s, so the replica is free again at 2.5 s, when the fourth
    # request's time-out is also over.
    assert requests.done_s[:3].tolist() == pytest.approx([2.5] * 3)


def test_full_batch_starts_before_the_time_out():
    requests = simulate(single(option(2, 0.5)), [0.0, 0.25])
    assert requests.started_s[:, 0].tolist() == [0.25, 0.25]


def test_time_out_of_none_is_the_wait_of_the_running_plan():
    stages = [stage(option(1), option(4))]
    (start,) = deployed(stages, (1, 1))
    backend = SimulatedBackend(
        stages, (replace(start, wait_s=0.75),), seed=0, batch_timeout_s=[None]
    )
    assert simulate(backend, [0.0]).started_s[0, 0] == 0.75


def test_md1_mean_wait():
    service_s, load = 0.5, 0.7
    rng = np.random.default_rng(1)
    sending = np.cumsum(rng.exponential(service_s / load, 200_000))
    requests = simulate(single(option(latency_s=service_s)), sending)
    expected_s = load * service_s / (2 * (1 - load))
    assert (requests.started_s[:, 0] - sending).mean() == pytest.approx(expected_s, rel=0.03)


def test_mg1_mean_wait_with_lognormal_service():
    load_rps, mean_s, p99_s = 1.2, 0.5, 1.5
    rng = np.random.default_rng(2)
    sending = np.cumsum(rng.exponential(1 / load_rps, 200_000))
    requests = simulate(single(option(latency_s=mean_s, p99_s=p99_s)), sending)
    service_s = requests.served_s[:, 0] - requests.started_s[:, 0]
    assert service_s.mean() == pytest.approx(mean_s, rel=0.01)
    assert np.quantile(service_s, 0.99) == pytest.approx(p99_s, rel=0.03)
    # Pollaczek and Khinchine: W = λ·E[S²] / (2·(1 − λ·E[S]))
    expected_s = load_rps * (service_s**2).mean() / (2 * (1 - load_rps * mean_s))
    assert (requests.started_s[:, 0] - sending).mean() == pytest.approx(expected_s, rel=0.05)


def recursion(entered, sent, *, replicas, batch, timeout_s, latency_s, limit_s):
    """One stage batch by batch: (start, done) per request, NaN where dropped."""
    free_s = [0.0] * replicas
    started, done = np.full(len(entered), np.nan), np.full(len(entered), np.nan)
    waiting = sorted(range(len(entered)), key=lambda index: entered[index])
    while waiting:
        full_s = entered[waiting[batch - 1]] if len(waiting) >= batch else np.inf
        start_s = max(min(free_s), min(full_s, entered[waiting[0]] + timeout_s))
        here = [index for index in waiting if entered[index] <= start_s]
        old = [index for index in here if start_s - sent[index] > limit_s]
        fresh = [index for index in here if index not in set(old)]
        seen = here if len(fresh) < batch else here[: here.index(fresh[batch - 1]) + 1]
        if set(seen[:batch]) & set(old):
            waiting = [index for index in waiting if index not in set(old) & set(seen)]
            continue
        taken = here[:batch]
        replica = free_s.index(min(free_s))
        free_s[replica] = start_s + latency_s[len(taken)]
        started[taken], done[taken] = start_s, free_s[replica]
        waiting = waiting[len(taken) :]
    return started, done


@pytest.mark.parametrize("seed", seeds(12))
def test_two_stages_equal_a_batch_by_batch_recursion(seed):
    rng = np.random.default_rng(seed)
    count = 150
    sending = np.cumsum(rng.exponential(rng.uniform(0.05, 0.5), count))
    limit_s = float(rng.choice([1.0, 2.5, np.inf]))
    batches, replicas = rng.choice([1, 2, 4, 8], 2), rng.integers(1, 4, 2)
    timeouts_s = rng.uniform(0, 1.5, 2)
    latencies_s = [np.cumsum(rng.uniform(0.05, 0.3, 8)) for _ in range(2)]
    stages = [
        stage(*(option(b, float(latency[b - 1])) for b in range(1, 9)), name=name)
        for name, latency in zip("ab", latencies_s, strict=True)
    ]
    backend = SimulatedBackend(
        stages,
        deployed(stages, *((int(b) - 1, int(n)) for b, n in zip(batches, replicas, strict=True))),
        seed=0,
        drop_limit_s=None if np.isinf(limit_s) else limit_s,
        batch_timeout_s=timeouts_s.tolist(),
    )
    requests = simulate(backend, sending)
    entered, inside = sending, np.arange(count)
    for index in range(2):
        started, done = recursion(
            entered[inside],
            sending[inside],
            replicas=replicas[index],
            batch=batches[index],
            timeout_s=timeouts_s[index],
            latency_s=[0.0, *latencies_s[index]],
            limit_s=limit_s,
        )
        assert requests.started_s[inside, index] == pytest.approx(started, abs=1e-9, nan_ok=True)
        assert requests.served_s[inside, index] == pytest.approx(done, abs=1e-9, nan_ok=True)
        assert (requests.dropped_at[inside[np.isnan(done)]] == index).all()
        entered = requests.served_s[:, index]
        inside = inside[~np.isnan(done)]
    assert (requests.dropped_at[inside] == -1).all()
