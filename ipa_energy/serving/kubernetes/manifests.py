"""The objects that a plan is on a cluster: a pure function of the plan and the settings.

::

    desired(plan, rendering) ──▶  for each stage      Service
                                  for each option     Deployment (or SeldonDeployment)
                                  for the pipeline    router: Deployment, Service

Nothing here asks a cluster, so that the same plan is always the same text. Objects carry labels
that say whose they are, and annotations by which a later look tells what changed:
:data:`APPLIED` is a digest of all that was written, :data:`MODEL` of the pod without its cores,
:data:`CORES` what pods hold that were resized in place. Batch sizes and time-outs are the router's
and stand in no object: changing them moves no pod. So are the shares of a stage that runs several
options at once; each of these has a *slot* of the stage, which the labels say.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from ipa_energy.config.sections import KubernetesConfig
from ipa_energy.errors import ConfigError
from ipa_energy.pipeline_models import OPENMP
from ipa_energy.records import Allocation, Option
from ipa_energy.serving.deployment import DeployedStage, Deployment

Object = dict[str, Any]

OWNER = "ipa-energy"
"""Field manager of every write, and the value of the label that says whose an object is."""

MANAGED_BY = "app.kubernetes.io/managed-by"
PIPELINE = "app.kubernetes.io/part-of"
STAGE = "app.kubernetes.io/component"
SLOT = "ipa-energy.io/slot"
SERVER = "ipa-energy.io/server"
APPLIED, MODEL, CORES = (f"ipa-energy.io/{name}" for name in ("applied", "model", "cores"))

ROUTER = "router"
SERVICE_ACCOUNT = "ipa-energy-router"
HTTP, GRPC, METRICS, CONTROL, EXPORTER = 8080, 8081, 8082, 8083, 9095
TOKEN = "IPA_ENERGY_CONTROL_TOKEN"
"""Environment variable of the router: who may tell it what to do."""

PROGRESS_DEADLINE_S = 600
STOP_S = 10
"""MLServer finishes what it has begun in five seconds at most."""

USER = 10001
LONGEST_NAME = 46
"""Of 63, with room for what ReplicaSets and pods append."""

DEPLOYMENTS = ("apps/v1", "Deployment")
SELDONS = ("machinelearning.seldon.io/v1", "SeldonDeployment")
SERVICES = ("v1", "Service")


@dataclass(frozen=True, slots=True)
class Model:
    """What MLServer is to load.

    Attributes:
        implementation: dotted name of the class.
        extra: its parameters.
    """

    implementation: str
    extra: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Rendering:
    """All that a plan does not say.

    Attributes:
        pipeline: its name.
        namespace: where everything is.
        settings: of the YAML.
        model: stage and option → what a server of it loads.
        drain_s: stage → seconds that its longest batch may take.
        token: of the router's control.
        exports: True if the router offers figures to Prometheus.
    """

    pipeline: str
    namespace: str
    settings: KubernetesConfig
    model: Callable[[str, Option], Model]
    drain_s: Mapping[str, float] = field(default_factory=dict)
    token: str = ""
    exports: bool = False

    @property
    def workload(self) -> tuple[str, str]:
        """API version and kind of what a stage's pods are made by."""
        return SELDONS if self.settings.rendering == "seldon" else DEPLOYMENTS

    @property
    def owned(self) -> dict[str, str]:
        """The labels of everything that belongs to this pipeline."""
        return {MANAGED_BY: OWNER, PIPELINE: dns_name(self.pipeline)}


def dns_name(*parts: str) -> str:
    """A name that Kubernetes takes, of parts that it may not; different parts, different names."""
    whole = "-".join(parts)
    name = re.sub(r"[^a-z0-9]+", "-", whole.lower()).strip("-") or "x"
    if name == whole and len(name) <= LONGEST_NAME and name[0].isalpha():
        return name
    mark = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:6]
    begin = name if name[0].isalpha() else f"p-{name}"
    return f"{begin[: LONGEST_NAME - 7].rstrip('-')}-{mark}"


def server_name(option: Option) -> str:
    """What a server calls itself, by which the router knows what it runs; no batch in it."""
    return dns_name(option.variant, option.allocation.label)


def desired(
    plan: Deployment,
    rendering: Rendering,
    template_cores: Mapping[str, float] | None = None,
    slots: Mapping[str, Sequence[int]] | None = None,
) -> tuple[Object, ...]:
    """Every object of a pipeline that runs ``plan``, in the order in which they are made.

    Args:
        plan: what every stage runs.
        rendering: the rest.
        template_cores: stage → cores in its pods' template, where these were resized in place and
            new ones begin with what the template says.
        slots: stage → slot of each of its options; 0, 1 … where none are given.
    """
    kept, places = template_cores or {}, slots or {}
    objects = [router_deployment(rendering), router_service(rendering)]
    for stage in plan:
        objects.append(stage_service(stage.stage, rendering))
        lanes = stage.lanes
        mine = places.get(stage.stage, range(len(lanes)))
        objects += [
            stage_workload(lane, rendering, kept.get(stage.stage), slot)
            for lane, slot in zip(lanes, mine, strict=True)
        ]
    return tuple(objects)


def as_yaml(objects: Sequence[Object]) -> str:
    """Objects as ``kubectl apply -f -`` reads them."""
    return yaml.dump_all(objects, Dumper=_Plain, sort_keys=False, width=100)


class _Plain(yaml.SafeDumper):
    """Writes what occurs twice twice."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def stage_workload(
    stage: DeployedStage, rendering: Rendering, template_cores: float | None = None, slot: int = 0
) -> Object:
    """What makes the pods of one option of a stage; ``slot`` counts the options of a stage."""
    option = stage.option
    if template_cores is not None:
        option = with_cores(option, template_cores)
    labels = {**rendering.owned, STAGE: dns_name(stage.stage), SLOT: str(slot)}
    pod = stage_pod(stage.stage, option, rendering)
    template = {"metadata": {"labels": {**labels, SERVER: server_name(option)}}, "spec": pod}
    if rendering.settings.rendering == "seldon":
        spec = _seldon_spec(stage, rendering, template)
    else:
        spec = {
            "replicas": stage.replicas,
            "selector": {"matchLabels": labels},
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": 0, "maxSurge": "100%"},
            },
            "progressDeadlineSeconds": PROGRESS_DEADLINE_S,
            "revisionHistoryLimit": 2,
            "template": template,
        }
    blank = stage_pod(stage.stage, with_cores(option, 1.0), rendering)
    notes = {MODEL: digest(blank), CORES: cores_text(stage.option.cpu_cores)}
    name = dns_name(rendering.pipeline, stage.stage, str(slot))
    return _object(rendering.workload, name, rendering, labels=labels, spec=spec, notes=notes)


def stage_service(stage: str, rendering: Rendering) -> Object:
    """Headless: the router connects to each pod, and reads them from the service's slices."""
    labels = {**rendering.owned, STAGE: dns_name(stage)}
    spec = {
        "clusterIP": "None",
        "selector": labels,
        "ports": [_service_port("grpc", GRPC), _service_port("http", HTTP)],
    }
    return _object(
        SERVICES, service_name(rendering.pipeline, stage), rendering, labels=labels, spec=spec
    )


def service_name(pipeline: str, stage: str) -> str:
    """Of the service whose slices list a stage's pods."""
    return dns_name(pipeline, stage)


def router_service(rendering: Rendering) -> Object:
    """Where clients send requests."""
    labels = {**rendering.owned, STAGE: ROUTER}
    ports = [_service_port("grpc", GRPC), _service_port("control", CONTROL)]
    if rendering.exports:
        ports.append(_service_port("exporter", EXPORTER))
    spec = {"selector": labels, "ports": ports}
    return _object(
        SERVICES, service_name(rendering.pipeline, ROUTER), rendering, labels=labels, spec=spec
    )


def router_deployment(rendering: Rendering) -> Object:
    """The router's one pod: two would be two queues."""
    settings = rendering.settings
    labels = {**rendering.owned, STAGE: ROUTER}
    cores = cores_text(settings.router_cores)
    ports = [("grpc", GRPC), ("control", CONTROL)]
    ports += [("exporter", EXPORTER)] if rendering.exports else []
    container = {
        **_container(settings.router_image, "router", cores, settings.router_memory, {}),
        "command": ["python", "-m", "ipa_energy.serving.kubernetes.router_pod"],
        "env": _environment({"IPA_ENERGY_HOST": "0.0.0.0", TOKEN: rendering.token}),
        "ports": [_container_port(name, port) for name, port in ports],
        "readinessProbe": {"tcpSocket": {"port": "control"}, "periodSeconds": 1},
    }
    pod = {
        **_pod(settings, container, settings.node_selector),
        "serviceAccountName": SERVICE_ACCOUNT,
        "automountServiceAccountToken": True,
        "terminationGracePeriodSeconds": 30,
    }
    spec = {
        "replicas": 1,
        "selector": {"matchLabels": labels},
        "strategy": {"type": "Recreate"},
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }
    name = dns_name(rendering.pipeline, ROUTER)
    return _object(DEPLOYMENTS, name, rendering, labels=labels, spec=spec)


def stage_pod(stage: str, option: Option, rendering: Rendering) -> Object:
    """The pod of one replica: MLServer with one model, told everything by its environment."""
    settings, model = rendering.settings, rendering.model(stage, option)
    drain_s = max(2, math.ceil(rendering.drain_s.get(stage, 5.0)))
    ready = f"/v2/models/{option.variant}/ready"
    container = {
        **_container(
            settings.server_image,
            "model",
            cores_text(option.cpu_cores),
            settings.server_memory,
            further_resources(option.allocation, settings),
        ),
        "command": ["mlserver", "start", "."],
        "workingDir": "/tmp",
        "env": _environment(
            {
                "MLSERVER_HOST": "0.0.0.0",
                "MLSERVER_HTTP_PORT": str(HTTP),
                "MLSERVER_GRPC_PORT": str(GRPC),
                "MLSERVER_METRICS_PORT": str(METRICS),
                "MLSERVER_GRPC_MAX_MESSAGE_LENGTH": str(64 * 2**20),
                "MLSERVER_PARALLEL_WORKERS": "0",
                "MLSERVER_DEBUG": "false",
                "MLSERVER_GZIP_ENABLED": "false",
                "MLSERVER_SERVER_NAME": server_name(option),
                "MLSERVER_MODEL_NAME": option.variant,
                "MLSERVER_MODEL_IMPLEMENTATION": model.implementation,
                "MLSERVER_MODEL_EXTRA": json.dumps(model.extra, sort_keys=True),
                **OPENMP,
            }
        ),
        "ports": [_container_port(*port) for port in (("http", HTTP), ("grpc", GRPC))],
        "readinessProbe": {
            "httpGet": {"path": ready, "port": "http"},
            "periodSeconds": 1,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        },
        # The router stops sending when the pod begins to end; until it has noticed and the last
        # batch is answered the server stays.
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(drain_s)]}}},
    }
    nodes = {**settings.node_selector, **settings.hardware_nodes.get(option.hardware, {})}
    return {
        **_pod(settings, container, nodes),
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": drain_s + STOP_S,
    }


def _seldon_spec(stage: DeployedStage, rendering: Rendering, template: Object) -> Object:
    """IPA's: one predictor of one component, no engine between the router and the model."""
    name = dns_name(stage.stage)
    # Seldon probes and names by the graph: its model is the container of the same name.
    component = {"replicas": stage.replicas, **template}
    return {
        "name": name,
        "protocol": "v2",
        "annotations": {"seldon.io/no-engine": "true"},
        "predictors": [
            {
                "name": name,
                "graph": {"name": "model", "type": "MODEL", "children": []},
                "componentSpecs": [component],
            }
        ],
    }


def further_resources(allocation: Allocation, settings: KubernetesConfig) -> dict[str, str]:
    """What a replica holds beside cores and memory, as the cluster calls it.

    Raises:
        ConfigError: the cluster has no name for it, or hands it out whole only.
    """
    found = {}
    for name, units in allocation.resources:
        if name == "core":
            continue
        known = {"gpu": "nvidia.com/gpu"} | settings.resources
        target = known.get(name) or (f"nvidia.com/{name}" if name.startswith("mig-") else None)
        if target is None:
            raise ConfigError(
                f"resource {name} of the profile has no name in the cluster",
                where="kubernetes.resources",
                fix=f"kubernetes: {{resources: {{{name}: VENDOR/NAME}}}}",
            )
        if units != int(units):
            raise ConfigError(
                f"{units:g} of {target}, which a cluster hands out whole",
                where="profile",
                fix="profile slices (mig-1g.10gb), or whole GPUs",
            )
        found[target] = f"{int(units)}"
    return found


def cores_text(cores: float) -> str:
    """Cores as Kubernetes itself writes them: ``2``, ``500m``."""
    millicores = max(1, round(cores * 1000))
    return f"{millicores // 1000}" if millicores % 1000 == 0 else f"{millicores}m"


def with_cores(option: Option, cores: float) -> Option:
    """The same with other cores, wherever it was profiled."""
    units = {name: amount for name, amount in option.allocation.resources if name != "core"}
    resources = tuple(sorted({**units, "core": float(cores)}.items()))
    return replace(option, allocation=Allocation(resources, option.allocation.labels))


def digest(value: object) -> str:
    """A short text that differs where the value does."""
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _object(
    kind: tuple[str, str],
    name: str,
    rendering: Rendering,
    *,
    labels: Mapping[str, str],
    spec: Object,
    notes: Mapping[str, str] | None = None,
) -> Object:
    annotations = {APPLIED: digest([spec, dict(labels), dict(notes or {})]), **(notes or {})}
    return {
        "apiVersion": kind[0],
        "kind": kind[1],
        "metadata": {
            "name": name,
            "namespace": rendering.namespace,
            "labels": dict(labels),
            "annotations": annotations,
        },
        "spec": spec,
    }


def _pod(settings: KubernetesConfig, container: Object, nodes: Mapping[str, str]) -> Object:
    pod: Object = {
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }
    if nodes:
        pod["nodeSelector"] = dict(nodes)
    if settings.pull_secret is not None:
        pod["imagePullSecrets"] = [{"name": settings.pull_secret}]
    return pod


def _container(
    image: str, name: str, cores: str, memory: str, further: Mapping[str, str]
) -> Object:
    """Requests are limits: what a plan counts is what a replica holds."""
    held = {"cpu": cores, "memory": memory, **further}
    return {
        "name": name,
        "image": image,
        "resources": {"requests": dict(held), "limits": dict(held)},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }


def _environment(variables: Mapping[str, str]) -> list[Object]:
    return [{"name": name, "value": value} for name, value in variables.items()]


def _container_port(name: str, port: int) -> Object:
    return {"name": name, "containerPort": port, "protocol": "TCP"}


def _service_port(name: str, port: int) -> Object:
    return {"name": name, "port": port, "targetPort": name, "protocol": "TCP"}
