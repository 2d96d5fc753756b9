"""The pipeline served on a Kubernetes cluster: the same run, its replicas and its router in pods.

::

    run (decides) ──API server──▶ Deployments or SeldonDeployments ──▶ pods with MLServer
        │                                                              ▲ gRPC
        └──control, TCP──▶ router pod: queues, load generator ─────────┘
                             └──watches EndpointSlices: which pods are ready
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipa_energy.errors import require

if TYPE_CHECKING:  # stubs and the load generator start without the libraries of decisions
    from ipa_energy.serving.base import Serving, Setting


def kubernetes(setting: Setting) -> Serving:
    """The pipeline's models on a cluster, serving ``setting.start``, their load and the wall clock.

    Raises:
        ConfigError: the pipeline cannot be served so.
        UnavailableError: something that this needs is not installed.
        ServingError: the cluster refuses, or the pods do not become ready.
    """
    return _served(setting, is_stub=False)


def kubernetes_stub(setting: Setting) -> Serving:
    """The same with stubs that take the profile's times; the images need no models.

    Raises: as :func:`kubernetes`.
    """
    return _served(setting, is_stub=True)


def _served(setting: Setting, *, is_stub: bool) -> Serving:
    require("kubernetes", what="--backend kubernetes", extra="kubernetes")
    from ipa_energy.serving.kubernetes.backend import served

    return served(setting, is_stub=is_stub)
