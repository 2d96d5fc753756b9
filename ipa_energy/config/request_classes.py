"""The key ``request_classes`` of a pipeline YAML: kinds of requests, and how many there are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pydantic import Field

from ipa_energy.config.fields import NonNegative, Positive, StrictModel, optional
from ipa_energy.records import RequestClass

SHARES_ROOM = 1e-6
"""How far the shares' sum may be from 1."""


class RequestClassConfig(StrictModel):
    """One class, where more than its share is to be said."""

    share: NonNegative = Field(description="Of all requests, 0 to 1; all shares add up to 1.")
    latency_sla_s: Positive | None = optional(
        None, "Hard cap on the seconds of its requests; null: that of the pipeline."
    )


ClassesConfig = Mapping[str, float | RequestClassConfig]


def classes_of(said: ClassesConfig | None) -> tuple[RequestClass, ...]:
    """The classes, in the order of the YAML; none where it names none."""
    return tuple(_class_of(name, each) for name, each in (said or {}).items())


def _class_of(name: str, said: float | RequestClassConfig) -> RequestClass:
    if isinstance(said, RequestClassConfig):
        return RequestClass(name, said.share, said.latency_sla_s)
    return RequestClass(name, said)


def wrong_shares(classes: Iterable[RequestClass]) -> str | None:
    """What is wrong with the shares; None if they add up to 1, or if there are no classes."""
    shares = [each.share for each in classes]
    if not shares or abs(sum(shares) - 1) <= SHARES_ROOM:
        return None
    return f"the shares of request_classes add up to {sum(shares):g}"
