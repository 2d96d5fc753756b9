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
    _require(setting, "--backend local")
    from ipa_energy.serving.local.backend import served
    from ipa_energy.serving.local.served_models import real_models

    return served(setting, real_models(setting))


def local_stub(setting: Setting) -> Serving:
    """The same with stubs that take the profile's times; no model is needed.

    Raises: as :func:`local`.
    """
    _require(setting, "--backend local-stub")
    from ipa_energy.serving.local.backend import served
    from ipa_energy.serving.local.served_models import stub_models

    return served(setting, stub_models(setting))


def _require(setting: Setting, what: str) -> None:
    require("grpc", what=what, extra="serve")
    if setting.live.exporter_port is not None:
        require("prometheus_client", what="--exporter", extra="serve")
