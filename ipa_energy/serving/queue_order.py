"""In which order the requests in a stage's queue are served.

``fifo``
    First come, first served, as IPA. While more arrives than is served the queue grows, and soon
    everybody has waited too long: of a stage that carries two thirds of its load nobody is in time.

``in-time-first``
    First come, first served among those that can still be in time. The others, oldest first, take
    what room a batch has left, or replicas that have nothing else to do. So a stage that carries
    two thirds of its load has two thirds in time, and all of them again as soon as it carries all.
    Who is late is answered all the same, unless it gets older than the drop limit. A batch starts
    before it is full rather than let somebody in it be late.

With one SLA for all the first come is the one that is due first, so this is earliest deadline first
without its weakness under overload, that it spends itself on what is lost already (Buttazzo 2011,
"Hard real-time computing systems", chapter 9). Nexus (Shen et al., SOSP 2019) drops such requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ipa_energy.records import Option

if TYPE_CHECKING:  # a process that serves reads no configuration
    from ipa_energy.config import PipelineConfig


def slas_of(config: PipelineConfig, latency_sla_s: float | None) -> tuple[float, ...]:
    """The latency SLA of each class of requests, one for all without any; empty if none counts.

    Of an SLA that changes along the run it is the longest: who may yet be in time is not passed.

    Args:
        config: of the pipeline.
        latency_sla_s: of the pipeline, from the YAML or by IPA's rule; None: unknown.
    """
    steps = config.sla_steps
    common_s = latency_sla_s if steps is None else max(steps.sla_s)
    if config.order != "in-time-first" or common_s is None:
        return ()
    own = [each.latency_sla_s for each in config.classes] or [None]
    return tuple(common_s if sla_s is None else sla_s for sla_s in own)


def until_answered_s(option: Option, later: Sequence[Sequence[Option]]) -> float:
    """From the start of a full batch until its requests leave, by the latencies of planning.

    Args:
        option: that serves it.
        later: what each of the later stages runs; the fastest of each counts.
    """
    return option.latency_s + sum(min(other.latency_s for other in stage) for stage in later)


def in_time_ages_s(
    config: PipelineConfig,
    latency_sla_s: float | None,
    option: Option,
    later: Sequence[Sequence[Option]],
) -> dict[str, float]:
    """Class → how old a request may be when an option begins with it, to be answered in time.

    For a router, which knows neither classes nor SLAs. The class without a name is every other's:
    of clients that name none, or one that nobody knows.

    Empty where :func:`slas_of` is.

    Args:
        config: of the pipeline.
        latency_sla_s: of the pipeline; None: unknown.
        option: that serves it.
        later: what each of the later stages is to run.
    """
    slas_s = slas_of(config, latency_sla_s)
    if not slas_s:
        return {}
    answered_s = until_answered_s(option, later)
    names = [each.name for each in config.classes]
    known_s = dict(zip(names, slas_s, strict=True)) if names else {}
    return {name: sla_s - answered_s for name, sla_s in {"": max(slas_s), **known_s}.items()}
