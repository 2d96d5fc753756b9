import dataclasses
import math

import numpy as np
import pytest
from scipy import stats
from tiny_pipelines import option

from ipa_energy.errors import ConfigError
from ipa_energy.records import ReplicaFigures
from ipa_energy.serving.deployment import DeployedStage
from ipa_energy.serving.simulated.replicas import (
    Z99,
    BatchProfiles,
    NormalStream,
    Replicas,
    batch_profile,
    lognormal_parameters,
    server_of,
)


@pytest.mark.parametrize(("mean", "p99"), [(0.5, 0.51), (0.1, 0.2), (2.0, 25.0)])
def test_lognormal_has_the_mean_and_the_percentile(mean, p99):
    mu, sigma = lognormal_parameters(mean, p99)
    distribution = stats.lognorm(s=sigma, scale=math.exp(mu))
    assert distribution.mean() == pytest.approx(mean)
    assert distribution.ppf(0.99) == pytest.approx(p99)


def test_percentile_out_of_reach_gives_the_widest_with_that_mean():
    mu, sigma = lognormal_parameters(1.0, 100.0)
    assert sigma == Z99
    assert math.exp(mu + sigma**2 / 2) == pytest.approx(1.0)


@pytest.mark.parametrize("p99", [0.3, 0.5])
def test_percentile_up_to_the_mean_means_a_fixed_time(p99):
    profile = batch_profile([option(1, 0.5, p99_s=p99)])
    assert profile.draw_s(1, NormalStream(np.random.default_rng(0))) == 0.5


def test_batches_between_profiled_ones_are_linear_in_batch():
    profile = batch_profile(
        [option(8, 0.9, p99_s=1.8, energy_j=1.0), option(2, 0.3, p99_s=0.6, energy_j=2.0)]
    )
    assert profile.mean_s[1:] == pytest.approx([0.3, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
    # Joules of a batch: 4 J at 2 and 8 J at 8.
    assert profile.energy_j[1:] == pytest.approx(
        [4.0, 4.0, 4 + 4 / 6, 4 + 8 / 6, 6.0, 4 + 16 / 6, 4 + 20 / 6, 8.0]
    )
    mu, sigma = lognormal_parameters(0.5, 1.0)
    assert (profile.log_mean[4], profile.log_deviation[4]) == pytest.approx((mu, sigma))


def test_servers_are_told_apart_by_variant_and_allocation():
    options = [option(1, 0.5), option(1, 0.25, cores=2.0), option(1, 0.75, variant="large")]
    profiles = BatchProfiles(options)
    means_s = [profiles.of(server_of(each), 1).mean_s[1] for each in options]
    assert means_s == [0.5, 0.25, 0.75]


def test_batches_take_as_long_as_so_many_replicas_need_for_them():
    alone = option(1, 0.5, energy_j=1.0)
    figures = [
        ReplicaFigures(count, seconds, seconds, 2 * seconds, 2.0, joules, 1.0, alone.provenance)
        for count, seconds, joules in ((1, 0.5, 1.0), (3, 0.7, 2.0))
    ]
    profiles = BatchProfiles([dataclasses.replace(alone, at_once=tuple(figures))])
    found = [profiles.of(server_of(alone), count) for count in (1, 2, 3, 8)]
    assert [each.mean_s[1] for each in found] == pytest.approx([0.5, 0.6, 0.7, 0.7])
    assert [each.energy_j[1] for each in found] == pytest.approx([1.0, 1.5, 2.0, 2.0])
    assert found[2] is found[3]


def test_a_stage_serves_with_the_figures_of_what_is_deployed():
    alone = option(1, 0.5)
    figures = [
        ReplicaFigures(count, seconds, seconds, seconds, 2.0, 1.0, watts, alone.provenance)
        for count, seconds, watts in ((1, 0.5, 1.0), (2, 0.8, 3.0))
    ]
    crowded = dataclasses.replace(alone, at_once=tuple(figures))
    replicas = Replicas(DeployedStage("s", crowded.at(1), 1), BatchProfiles([crowded]))
    assert (replicas.serving.profile.mean_s[1], replicas.serving.option.idle_power_w) == (0.5, 1.0)
    replicas.retarget(DeployedStage("s", crowded.at(2), 2))
    assert (replicas.serving.profile.mean_s[1], replicas.serving.option.idle_power_w) == (0.8, 3.0)


def test_repeated_batch_is_refused():
    with pytest.raises(ConfigError, match="profiled twice"):
        batch_profile([option(2, 0.5), option(2, 0.6)])


def test_normals_do_not_depend_on_the_block():
    stream = NormalStream(np.random.default_rng(3))
    numbers = [stream.next() for _ in range(3000)]
    assert numbers == np.random.default_rng(3).standard_normal(3000).tolist()
