"""The pipeline served for real on this machine: queues, router, replicas, load generator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipa_energy.errors import require

if TYPE_CHECKING:  # stubs and the load generator start without the libraries of decisions
    from ipa_energy.serving.base import Serving, Setting


def local(setting: Setting) -> Serving:
    """The pipeline's models serving ``setting.start`` already, their load and the wall clock.

    Raises:
        ConfigError: the pipeline cannot be served so.
        UnavailableError: something that this needs is not installed.
        ServingError: the replicas do not start.
    """
    return _served(setting, "local", "real_models")


def local_stub(setting: Setting) -> Serving:
    """The same with stubs that take the profile's times; no model is needed.

    Raises: as :func:`local`.
    """
    return _served(setting, "local-stub", "stub_models")


def _served(setting: Setting, backend: str, models: str) -> Serving:
    require("grpc", what=f"--backend {backend}", extra="serve")
    if setting.live.exporter_port is not None:
        require("prometheus_client", what="--exporter", extra="serve")
    from ipa_energy.serving.local import served_models
    from ipa_energy.serving.local.backend import served

    return served(setting, getattr(served_models, models)(setting))
