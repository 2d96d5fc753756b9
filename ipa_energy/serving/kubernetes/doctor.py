"""What ``--backend kubernetes`` needs of a cluster, and what to do about what is missing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from http import HTTPStatus
from typing import Literal

from ipa_energy.config.sections import KubernetesConfig
from ipa_energy.errors import ConfigError, GiveUpError, IpaEnergyError
from ipa_energy.meters.prometheus.exporters import dcgm_meter, kepler_meter
from ipa_energy.meters.prometheus.server import PrometheusServer
from ipa_energy.serving.deployment import Deployment
from ipa_energy.serving.kubernetes.changes import quantity
from ipa_energy.serving.kubernetes.cluster_api import ClusterApi, RefusedError, require_reachable
from ipa_energy.serving.kubernetes.manifests import OWNER, SERVICE_ACCOUNT
from ipa_energy.serving.kubernetes.reconciler import RESIZE

State = Literal["ok", "missing", "optional", "unknown"]

OLDEST_MINOR = 27
"""EndpointSlices, server-side apply and headless services are older; below it nothing was tried."""

CHART = "kubectl apply -k configs/kubernetes"
RIGHTS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("apps", "deployments", ("get", "list", "create", "patch", "delete")),
    ("", "services", ("get", "list", "create", "patch", "delete")),
    ("", "pods", ("list",)),
)
SELDON = "machinelearning.seldon.io"
IN_PLACE, SELDON_OBJECTS, QUOTAS = "cores in place", "SeldonDeployments", "quotas"
SELDON_RIGHTS = (SELDON, "seldondeployments", ("get", "list", "create", "update", "delete"))


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked for.

    Attributes:
        name: of it.
        state: ``missing``: a run cannot do without; ``optional``: it can; ``unknown``: one may not
            look.
        found: what there is, in words.
        fix: what to do; None where nothing need be done.
    """

    name: str
    state: State
    found: str
    fix: str | None = None


def checks(
    api: ClusterApi,
    settings: KubernetesConfig,
    namespace: str,
    *,
    start: Deployment = (),
    prometheus_url: str | None = None,
) -> Iterator[Check]:
    """Everything that is looked for, in the order in which it would fail.

    Args:
        api: of the cluster.
        settings: of the YAML, or the defaults.
        namespace: where the pipeline is to be.
        start: what a run begins with, for quotas.
        prometheus_url: what scrapes Kepler and DCGM; None: the settings'.
    """
    try:
        version = require_reachable(api)
    except IpaEnergyError as error:
        fix = "--kubeconfig FILE, --context NAME; is the API server up?"
        yield from without_cluster(str(error), fix, settings, prometheus_url=prometheus_url)
        return
    yield _version(api.host, str(version.get("major", "")), str(version.get("minor", "")))
    for each in (_namespace, _rights, _account, _resize, _seldon):
        yield from _asked(each.__name__.strip("_"), each(api, settings, namespace))
    yield from _asked(QUOTAS, _quotas(api, namespace, start))
    yield from _meters(prometheus_url or settings.prometheus_url)


def without_cluster(
    reason: str, fix: str, settings: KubernetesConfig, *, prometheus_url: str | None = None
) -> Iterator[Check]:
    """What can be looked for where no API server answers, and what cannot.

    Args:
        reason: why none does.
        fix: what to do about it.
        settings: of the YAML, or the defaults.
        prometheus_url: as of :func:`checks`.
    """
    yield Check("API server", "missing", reason, fix)
    rights = (f"rights on {resource}" for _, resource, _ in _rights_needed(settings))
    account = f"service account {SERVICE_ACCOUNT}"
    for name in ("namespace", *rights, account, IN_PLACE, SELDON_OBJECTS, QUOTAS):
        yield Check(name, "unknown", "not looked for: the API server knows")
    yield from _meters(prometheus_url or settings.prometheus_url)


def is_fit(found: Sequence[Check]) -> bool:
    """True if nothing is missing that a run needs."""
    return all(check.state != "missing" for check in found)


def _asked(name: str, found: Iterator[Check]) -> Iterator[Check]:
    try:
        yield from found
    except IpaEnergyError as error:
        yield Check(name, "unknown", str(error))


def _version(host: str, major: str, minor: str) -> Check:
    digits = "".join(letter for letter in minor if letter.isdigit())
    told = f"Kubernetes {major}.{minor} at {host}"
    if (int(major or 0), int(digits or 0)) < (1, OLDEST_MINOR):
        return Check("API server", "missing", told, f"1.{OLDEST_MINOR} or newer")
    return Check("API server", "ok", told)


def _namespace(api: ClusterApi, _: KubernetesConfig, namespace: str) -> Iterator[Check]:
    """Whoever may only work in it may not look at it, but is told if it is not there."""
    probe = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "ipa-energy-probe", "namespace": namespace},
        "spec": {"ports": [{"port": 80}]},
    }
    try:
        api.apply(probe, OWNER, dry_run=True)
    except RefusedError as error:
        if error.status == HTTPStatus.NOT_FOUND:
            fix = f"kubectl create namespace {namespace}, or another --namespace"
            yield Check("namespace", "missing", f"there is no {namespace}", fix)
    else:
        yield Check("namespace", "ok", namespace)


def _rights(api: ClusterApi, settings: KubernetesConfig, namespace: str) -> Iterator[Check]:
    for group, resource, verbs in _rights_needed(settings):
        denied = [verb for verb in verbs if not api.may(verb, group, resource, namespace)]
        name = f"rights on {resource}"
        if denied:
            told = f"not allowed in namespace {namespace}: {', '.join(denied)}"
            yield Check(name, "missing", told, f"{CHART}, and use its service account")
        else:
            yield Check(name, "ok", ", ".join(verbs))


def _rights_needed(settings: KubernetesConfig) -> Sequence[tuple[str, str, tuple[str, ...]]]:
    return [*RIGHTS, SELDON_RIGHTS] if settings.rendering == "seldon" else RIGHTS


def _account(api: ClusterApi, _: KubernetesConfig, namespace: str) -> Iterator[Check]:
    name = f"service account {SERVICE_ACCOUNT}"
    try:
        api.get(f"/api/v1/namespaces/{namespace}/serviceaccounts/{SERVICE_ACCOUNT}")
        yield Check(name, "ok", f"in namespace {namespace}")
    except RefusedError as error:
        if error.status == 404:
            yield Check(name, "missing", f"not in namespace {namespace}", CHART)
        else:
            yield Check(name, "unknown", "one may not look; without it the router has no pod")


def _resize(api: ClusterApi, _: KubernetesConfig, namespace: str) -> Iterator[Check]:
    served = api.get("/api/v1").get("resources", ())
    if not any(one.get("name") == RESIZE for one in served):
        told = f"the server has no {RESIZE}: another number of cores is another pod"
        yield Check(IN_PLACE, "optional", told, "Kubernetes 1.33, or the feature gate")
    elif not api.may("patch", "", RESIZE, namespace):
        yield Check(IN_PLACE, "optional", f"not allowed: patch {RESIZE}", CHART)
    else:
        yield Check(IN_PLACE, "ok", f"{RESIZE} is served and allowed")


def _seldon(api: ClusterApi, settings: KubernetesConfig, namespace: str) -> Iterator[Check]:
    del namespace
    state: State = "missing" if settings.rendering == "seldon" else "optional"
    try:
        served = api.get(f"/apis/{SELDON}/v1").get("resources", ())
    except GiveUpError:
        served = ()
    if any(one.get("name") == "seldondeployments" for one in served):
        yield Check(SELDON_OBJECTS, "ok", "served")
    else:
        told = "the cluster does not know them; kubernetes.rendering: deployments needs none"
        yield Check(SELDON_OBJECTS, state, told, "install Seldon Core v1")


def _quotas(api: ClusterApi, namespace: str, start: Deployment) -> Iterator[Check]:
    try:
        found = api.get(f"/api/v1/namespaces/{namespace}/resourcequotas").get("items", ())
    except RefusedError:
        yield Check(QUOTAS, "unknown", "one may not look")
        return
    needed = sum((Decimal(str(s.option.cpu_cores)) * s.replicas for s in start), Decimal(0))
    if not found:
        yield Check(QUOTAS, "ok", f"none in namespace {namespace}")
    for one in found:
        status = one.get("status", {})
        for name in ("requests.cpu", "limits.cpu", "cpu"):
            if name in status.get("hard", {}):
                hard, used = status["hard"][name], status.get("used", {}).get(name, "0")
                left = quantity(hard) - quantity(used)
                told = f"{one['metadata']['name']}: {name} {used} of {hard} used"
                if left < 2 * needed:
                    fix = f"raise it: twice the {needed} cores that a run begins with, for rollouts"
                    yield Check(QUOTAS, "missing" if left < needed else "optional", told, fix)
                else:
                    yield Check(QUOTAS, "ok", told)


def _meters(url: str | None) -> Iterator[Check]:
    if url is None:
        told = "none is named: joules are estimated from busy time"
        yield Check(
            "Prometheus", "optional", told, "--prometheus URL, or kubernetes.prometheus_url"
        )
        return
    try:
        server = PrometheusServer(url)
        server.now_s()
    except (IpaEnergyError, ConfigError) as error:
        yield Check("Prometheus", "optional", str(error), "an address that is reached from here")
        return
    yield Check("Prometheus", "ok", url)
    for name, meter in (("Kepler", kepler_meter(server)), ("DCGM", dcgm_meter(server))):
        status = meter.probe()
        state: State = "ok" if status.usable else "optional"
        yield Check(name, state, status.reason, None if status.usable else status.fix)
