"""The pipeline served for real on this machine: queues, router, replicas, load generator."""

from __future__ import annotations

from ipa_energy.errors import require
from ipa_energy.serving.base import Serving, Setting


def local(setting: Setting) -> Serving:
    """A pipeline of stubs that serves ``setting.start`` already, its load and the wall clock.

    Raises:
        UnavailableError: gRPC is not installed.
        ServingError: the replicas do not start.
    """
    require("grpc", what="--backend local", extra="serve")
    from ipa_energy.serving.local.backend import served_by_stubs

    return served_by_stubs(setting)
