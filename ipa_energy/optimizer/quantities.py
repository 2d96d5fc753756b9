"""What plans have a figure of: one column of amounts each, added up over the stages.

A quantity can be weighted in the objective and capped. It is a function

    amount(option, replicas, stage, moment) -> float

of what a stage runs, per pipeline request or per second as its unit says, with an entry in
:data:`ipa_energy.registries.QUANTITIES` that names the YAML's keys of its weight and its cap. The
option is the one that is planned with: under ``energy_risk: upper`` its joules are the upper end of
their interval, so that whatever is computed from joules plans with that end too.

A function marked with :func:`over_arrays` is called once for all options of a stage, which is
fast: its ``option`` then has an array in place of every number, and so has ``replicas``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from ipa_energy import energy
from ipa_energy.arrays import Counts, Floats
from ipa_energy.energy import G_PER_KWH, PUE
from ipa_energy.errors import ConfigError
from ipa_energy.optimizer.queue_wait import wait_s
from ipa_energy.records import AT_SITE, Stage
from ipa_energy.registries import QUANTITIES

Amount = Callable[..., float]
_Function = TypeVar("_Function", bound=Callable[..., Any])

NO_LOAD_RPS = 1e-6
"""A load below one request in eleven days is none."""

USUAL_INTERVAL_S = 10.0
"""Adaptation interval where nobody names one, as in the YAML."""


def planned_load_rps(load_rps: float, interval_s: float = USUAL_INTERVAL_S) -> float:
    """The load to plan for, given a predicted one: that load; one request an interval if it is 0.

    Joules per request have no meaning without requests.
    """
    return load_rps if load_rps >= NO_LOAD_RPS else 1.0 / interval_s


@dataclass(frozen=True, slots=True)
class Moment:
    """What a plan is made for: pipeline requests per second, and what things cost then.

    The loads differ only for a plan that has to last through changing load.

    Attributes:
        lowest_rps: batches fill at this load: the waits of (4).
        mean_rps: joules and penalties are those of this load, with the replicas of the peak.
        peak_rps: what (2) has to carry.
        signals: name → value now (``g_per_kwh``, ``price_per_kwh`` …), for quantities to use.
        capped_rps: the energy cap (5) holds at this load and above, since fewer requests share the
            same idle watts; None: at the mean.
    """

    lowest_rps: float
    mean_rps: float
    peak_rps: float
    signals: Mapping[str, float] = field(default_factory=dict)
    capped_rps: float | None = None

    @classmethod
    def at(cls, load_rps: float, **signals: float) -> Moment:
        """One load."""
        return cls(load_rps, load_rps, load_rps, signals)

    @classmethod
    def of(
        cls, counts_rps: Counts, interval_s: float = USUAL_INTERVAL_S, **signals: float
    ) -> Moment:
        """The loads of a trace of per-second counts.

        Where some second has no request its lowest load is that of an interval of ``interval_s``.
        """
        lowest_rps = float(counts_rps.min())
        if lowest_rps == 0:
            lowest_rps = lowest_load_rps(counts_rps, interval_s)
        return cls(
            lowest_rps=planned_load_rps(lowest_rps, interval_s),
            mean_rps=planned_load_rps(float(counts_rps.mean()), interval_s),
            peak_rps=planned_load_rps(float(counts_rps.max()), interval_s),
            signals=signals,
        )

    def knowing(self, signals: Mapping[str, float]) -> Moment:
        """Itself with ``signals`` where it says nothing else."""
        return replace(self, signals={**signals, **self.signals}) if signals else self

    @property
    def energy_cap_rps(self) -> float:
        """The load at which the energy cap is checked."""
        return self.mean_rps if self.capped_rps is None else self.capped_rps

    @property
    def on_average(self) -> Moment:
        """Its mean load alone, with the same signals."""
        if self.lowest_rps == self.mean_rps == self.peak_rps:
            return self
        mean_rps = self.mean_rps
        return Moment(mean_rps, mean_rps, mean_rps, self.signals, self.capped_rps)

    def check(self) -> None:
        """Refuse what nothing can be planned for.

        Raises:
            ConfigError: a load is not a positive finite number.
        """
        for load_rps in (self.lowest_rps, self.mean_rps, self.peak_rps, self.energy_cap_rps):
            if not (math.isfinite(load_rps) and load_rps > 0):
                raise ConfigError(f"load of {load_rps:g} rps", allowed="a finite load above 0 rps")


def lowest_load_rps(counts_rps: Counts, interval_s: float) -> float:
    """The least mean of any interval within per-second counts; of all of them if they are few."""
    length = max(1, min(len(counts_rps), round(interval_s)))
    sums = np.concatenate([[0.0], np.cumsum(counts_rps, dtype=np.float64)])
    return float((sums[length:] - sums[:-length]).min()) / length


def over_arrays(amount: _Function) -> _Function:
    """Mark an amount that is computed for all options of a stage at once."""
    amount.over_arrays = True  # type: ignore[attr-defined]
    return amount


def per_option(amount: _Function) -> _Function:
    """Mark an amount of which an option in use has its constant part, whatever its share of load.

    Other amounts belong to requests: where a stage runs several options, each has its share.
    """
    amount.per_option = True  # type: ignore[attr-defined]
    return amount


def over_all_options(quantity: str) -> Callable[..., Floats]:
    """The same for all options of a stage at once, as arrays of one length.

    It takes columns in place of the option, which hold the options themselves as ``.options``.

    Raises:
        ConfigError: there is no such quantity.
    """
    amount = amount_of(quantity)
    if getattr(amount, "over_arrays", False):
        return amount  # type: ignore[return-value]

    def each(columns: Any, replicas: Floats, stage: Stage, moment: Moment) -> Floats:
        found = [
            amount(option, int(count), stage, moment)
            for option, count in zip(columns.options, replicas, strict=True)
        ]
        for option, value in zip(columns.options, found, strict=True):
            if not math.isfinite(value):
                raise ConfigError(
                    f"stage {stage.name}, {option.label}: {quantity} is {value}",
                    allowed="a finite number for every option",
                )
        return np.array(found, dtype=np.float64)

    return each


def amount_of(quantity: str) -> Amount:
    """The function of a quantity's name, ``units:RESOURCE`` and ``latency_s:CLASS`` among them.

    Raises:
        ConfigError: there is no such quantity.
    """
    if quantity.startswith(UNITS):
        return units_of(quantity.removeprefix(UNITS))
    if quantity.startswith(LATENCY_OF):
        return latency_of(quantity.removeprefix(LATENCY_OF))
    if quantity in _CAPPED:
        return _CAPPED[quantity]
    if quantity not in QUANTITIES:
        raise ConfigError(f"unknown quantity {quantity!r}", allowed=", ".join(QUANTITIES))
    amount: Amount = QUANTITIES[quantity].load()
    return amount


UNITS = "units:"
"""Before a resource's name: the quantity of its units that all replicas hold."""

LATENCY_OF = "latency_s:"
"""Before a class's name: the quantity of the latency of its requests."""

BUILT_IN = ("cost", "batch", "latency_s", "joules_per_request", "watts")
"""Quantities with keys of their own in the YAML and in :class:`.settings.Settings`."""


def is_latency(quantity: str) -> bool:
    """True for seconds of all requests or of a class, which stages take one after the other."""
    return quantity == "latency_s" or quantity.startswith(LATENCY_OF)


CAPPED_JOULES = "capped_joules_per_request"
"""Joules per request at the load at which the energy cap (5) has to hold."""

CAPPED_GRAMS = "capped_grams_per_request"
"""The same in grams."""

ACCURACY_LOSS = "accuracy_loss"
"""What is missing to an accuracy of 1, which an accuracy floor caps."""

LOG_ACCURACY_LOSS = "log_accuracy_loss"
"""The same where accuracies are multiplied: a product is a sum of logarithms."""

LEAST_ACCURACY = 1e-300
"""Stands for an accuracy of 0, which has no logarithm."""

AT_LOW_END = {"joules_per_request": CAPPED_JOULES, "grams_per_request": CAPPED_GRAMS}
"""Quantity → what its cap counts where the load may be lower than planned for."""


def units_of(resource: str) -> Amount:
    """Units of a resource that all replicas hold."""

    @over_arrays
    def units(option: Any, replicas: Any, stage: Stage, moment: Moment) -> Any:
        del stage, moment
        return replicas * option.units(resource)

    return units


def latency_of(request_class: str) -> Amount:
    """L + q of the requests of a class; infinity where the option cannot serve them."""

    def latency_s(option: Any, replicas: Any, stage: Stage, moment: Moment) -> float:
        del replicas
        served = option.of_class(request_class)
        if served is None:
            return NEVER_S
        load_rps = stage.requests_per_input * moment.lowest_rps
        return float(served.latency_s + energy.fill_wait_s(served.batch, load_rps))

    return latency_s


NEVER_S = 1e12
"""Stands for the latency of requests that are not served."""


@over_arrays
def cores(option: Any, replicas: Any, stage: Stage, moment: Moment) -> Any:
    """n·c: cores reserved by all replicas, IPA's cost."""
    del stage, moment
    return replicas * option.cpu_cores


@per_option
@over_arrays
def batches(option: Any, replicas: Any, stage: Stage, moment: Moment) -> Any:
    """B."""
    del replicas, stage, moment
    return option.batch


@over_arrays
def latency_s(option: Any, replicas: Any, stage: Stage, moment: Moment) -> Any:
    """L + q, the stage's part of (4)."""
    del replicas
    load_rps = stage.requests_per_input * moment.lowest_rps
    return option.latency_s + energy.fill_wait_s(option.batch, load_rps)


def queued_latency_s(option: Any, replicas: Any, stage: Stage, moment: Moment) -> Any:
    """The same and the wait for a replica at the load that is carried: ``latency_model: queue``."""
    share = stage.requests_per_input
    loads_rps = share * moment.peak_rps, share * moment.lowest_rps
    return latency_s(option, replicas, stage, moment) + wait_s(option, replicas, *loads_rps)


@over_arrays
def joules_per_request(option: Any, replicas: Any, stage: Stage, moment: Moment) -> Any:
    """m·J per pipeline request, the stage's part of the objective."""
    return _joules(option, replicas, stage, moment.mean_rps)


@over_arrays
def capped_joules(option: Any, replicas: Any, stage: Stage, moment: Moment) -> Any:
    """m·J per pipeline request at the low end of the load, the stage's part of (5)."""
    return _joules(option, replicas, stage, moment.energy_cap_rps)


@over_arrays
def grams_per_request(option: Any, replicas: Any, stage: Stage, moment: Moment) -> Any:
    """Grams of CO2 equivalent of a pipeline request: its joules at the moment's intensity."""
    return _grams(joules_per_request(option, replicas, stage, moment), option, moment)


LATENCY_SLA = "latency_sla_s"
"""Signal of a moment: the latency SLA now, where it changes along a run."""

PRICE_PER_GRAM = "price_per_gram"
"""Signal of a moment: what a gram weighs, where a budget of grams is kept by a price."""


@over_arrays
def priced_grams(option: Any, replicas: Any, stage: Stage, moment: Moment) -> Any:
    """Grams times the price that a gram has at the moment, 0 if it has none."""
    price = moment.signals.get(PRICE_PER_GRAM, 0.0)
    return price * grams_per_request(option, replicas, stage, moment)


@over_arrays
def capped_grams(option: Any, replicas: Any, stage: Stage, moment: Moment) -> Any:
    """The same at the low end of the load."""
    return _grams(capped_joules(option, replicas, stage, moment), option, moment)


def _grams(joules: Any, option: Any, moment: Moment) -> Any:
    """Of joules that an option spends, at the intensity of its site where there are several."""
    sites = [name for name in moment.signals if name.startswith(G_PER_KWH + AT_SITE)]
    if not sites:
        return energy.grams(joules, *_electricity(moment))
    a_joule = 0.0
    for name in sites:
        at = name.removeprefix(G_PER_KWH)
        emitted = energy.grams(1.0, moment.signals[name], moment.signals.get(PUE + at, 1.0))
        a_joule = a_joule + emitted * option.units(at)
    return joules * a_joule


def _electricity(moment: Moment) -> tuple[float, float]:
    """Intensity and PUE of a moment.

    Raises:
        ConfigError: nobody says what a joule emits.
    """
    if G_PER_KWH not in moment.signals:
        raise ConfigError(
            "nothing says how many grams a kilowatt-hour is",
            where="carbon",
            fix="give the YAML the key carbon: {intensity: …}",
        )
    return moment.signals[G_PER_KWH], moment.signals.get(PUE, 1.0)


def _joules(option: Any, replicas: Any, stage: Stage, load_rps: float) -> Any:
    share = stage.requests_per_input
    return share * energy.joules_per_request(
        option.dynamic_energy_j, option.idle_power_w, replicas, share * load_rps
    )


@over_arrays
def watts(option: Any, replicas: Any, stage: Stage, moment: Moment) -> Any:
    """λ·m·J."""
    joules = joules_per_request(option, replicas, stage, moment)
    return energy.power_w(joules, moment.mean_rps)


@over_arrays
def accuracy_loss(option: Any, replicas: Any, stage: Stage, moment: Moment) -> Any:
    """1 − a, of the accuracy as profiled."""
    del replicas, stage, moment
    return 1 - option.accuracy


@over_arrays
def log_accuracy_loss(option: Any, replicas: Any, stage: Stage, moment: Moment) -> Any:
    """−ln a."""
    del replicas, stage, moment
    return -np.log(np.maximum(option.accuracy, LEAST_ACCURACY))


_CAPPED: Mapping[str, Amount] = {
    CAPPED_JOULES: capped_joules,
    CAPPED_GRAMS: capped_grams,
    ACCURACY_LOSS: accuracy_loss,
    LOG_ACCURACY_LOSS: log_accuracy_loss,
}
"""Quantities that have no name in the registry: only caps count them."""
