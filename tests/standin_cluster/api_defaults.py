"""What the server fills in: the defaults of the types, and what it adds to a new object."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from .api_types import FieldType, Resource

DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "V1Container": {
        "resources": {},
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
    },
    "V1ContainerPort": {"protocol": "TCP"},
    "V1Probe": {
        "timeoutSeconds": 1,
        "periodSeconds": 10,
        "successThreshold": 1,
        "failureThreshold": 3,
    },
    "V1HTTPGetAction": {"scheme": "HTTP", "path": "/"},
    "V1ObjectFieldSelector": {"apiVersion": "v1"},
    "V1ConfigMapVolumeSource": {"defaultMode": 0o644},
    "V1SecretVolumeSource": {"defaultMode": 0o644},
    "V1PodSpec": {
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "securityContext": {},
        "schedulerName": "default-scheduler",
    },
    "V1DeploymentSpec": {
        "replicas": 1,
        "strategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"},
        },
        "revisionHistoryLimit": 10,
        "progressDeadlineSeconds": 600,
    },
    "V1DeploymentStrategy": {"type": "RollingUpdate"},
    "V1RollingUpdateDeployment": {"maxUnavailable": "25%", "maxSurge": "25%"},
    "V1Deployment": {"status": {}},
    "V1DeploymentCondition": {"lastUpdateTime": None, "lastTransitionTime": None},
    "V1ReplicaSetSpec": {"replicas": 1},
    "V1Service": {"status": {"loadBalancer": {}}},
    "V1ServiceSpec": {
        "type": "ClusterIP",
        "sessionAffinity": "None",
        "internalTrafficPolicy": "Cluster",
    },
    "V1ServicePort": {"protocol": "TCP"},
    "V1PodStatus": {"phase": "Pending"},
    "V1PodCondition": {"lastProbeTime": None, "lastTransitionTime": None},
    "V1ContainerStatus": {
        "state": {},
        "lastState": {},
        "ready": False,
        "restartCount": 0,
        "image": "",
        "imageID": "",
    },
    "V1ContainerStateRunning": {"startedAt": None},
    "V1NodeCondition": {"lastHeartbeatTime": None, "lastTransitionTime": None},
    "V1CustomResourceDefinitionSpec": {"conversion": {"strategy": "None"}},
}
"""By the client's name of the type."""

SERVICE = {"ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"}

POD = {
    "tolerations": [
        {
            "key": f"node.kubernetes.io/{why}",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": 300,
        }
        for why in ("not-ready", "unreachable")
    ],
    "priority": 0,
    "preemptionPolicy": "PreemptLowerPriority",
}

NODE_STATUS = {
    "daemonEndpoints": {"kubeletEndpoint": {"Port": 0}},
    "nodeInfo": dict.fromkeys(
        (
            "machineID",
            "systemUUID",
            "bootID",
            "kernelVersion",
            "osImage",
            "containerRuntimeVersion",
            "kubeletVersion",
            "kubeProxyVersion",
            "operatingSystem",
            "architecture",
        ),
        "",
    ),
}

NOT_READY = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}

EMPTY: Mapping[str, Any] = {
    "Deployment": {
        "metadata": {},
        "spec": {
            "selector": None,
            "strategy": {},
            "template": {"metadata": {}, "spec": {"containers": None}},
        },
        "status": {},
    },
    "ReplicaSet": {"metadata": {}, "spec": {"selector": None}, "status": {"replicas": 0}},
    "Pod": {"metadata": {}, "spec": {"containers": None}, "status": {}},
    "Service": {"metadata": {}, "spec": {}, "status": {"loadBalancer": {}}},
}
"""What a new object is compared with to find out what its creator owns."""


def defaulted(value: dict[str, Any], of: FieldType) -> dict[str, Any]:
    """A struct with the defaults of its type."""
    for name, default in DEFAULTS.get(of.name, {}).items():
        if name not in value:
            value[name] = deepcopy(default)
    match of.name:
        case "V1Container" if "image" in value:
            tag = str(value["image"]).rpartition("/")[2].partition(":")[2]
            policy = "Always" if tag in ("", "latest") else "IfNotPresent"
            value.setdefault("imagePullPolicy", policy)
        case "V1ServicePort":
            value.setdefault("targetPort", value.get("port"))
        case "V1DeploymentStrategy" if value["type"] == "RollingUpdate":
            value.setdefault("rollingUpdate", {"maxUnavailable": "25%", "maxSurge": "25%"})
        case "V1CustomResourceDefinitionNames" if "kind" in value:
            value.setdefault("listKind", f"{value['kind']}List")
            value.setdefault("singular", str(value["kind"]).lower())
    return value


def prepared(resource: Resource, made: dict[str, Any]) -> None:
    """Add to a new object what counts as named by whoever creates it."""
    match resource.kind:
        case "Pod":
            spec = made.setdefault("spec", {})
            spec.setdefault("enableServiceLinks", True)
            for container in spec.get("containers", ()):
                resources = container["resources"]
                for what, amount in resources.get("limits", {}).items():
                    resources.setdefault("requests", {}).setdefault(what, amount)
        case "Namespace" if "name" in made["metadata"]:
            labels = made["metadata"].setdefault("labels", {})
            labels.setdefault("kubernetes.io/metadata.name", made["metadata"]["name"])


def admitted(resource: Resource, made: dict[str, Any], address: str) -> None:
    """Add to a new object what the server decides.

    Args:
        resource: what it is.
        made: the object; changed.
        address: an address nobody has, for a service.
    """
    match resource.kind:
        case "Service":
            spec = made.setdefault("spec", {})
            for name, decided in SERVICE.items():
                spec.setdefault(name, deepcopy(decided))
            spec.setdefault("clusterIP", address)
            spec.setdefault("clusterIPs", [spec["clusterIP"]])
            made["status"] = {"loadBalancer": {}}
        case "Pod":
            for name, value in POD.items():
                made["spec"].setdefault(name, deepcopy(value))
            made["status"] = {"phase": "Pending", "qosClass": qos_class(made["spec"])}
        case "Node":
            made.setdefault("spec", {}).setdefault("taints", []).append(dict(NOT_READY))
            made["status"] = {**deepcopy(NODE_STATUS), **made.get("status", {})}
        case "Namespace":
            made["spec"] = {"finalizers": ["kubernetes"]}
            made["status"] = {"phase": "Active"}
        case "CustomResourceDefinition":
            made["status"] = {
                "conditions": None,
                "acceptedNames": {"plural": "", "kind": ""},
                "storedVersions": [each["name"] for each in made["spec"]["versions"]],
            }


def qos_class(spec: Mapping[str, Any]) -> str:
    """Of a pod: whether its requests are its limits."""
    resources = [each.get("resources", {}) for each in spec.get("containers", ())]
    if not any(each.get("requests") or each.get("limits") for each in resources):
        return "BestEffort"
    guaranteed = all(
        each.get("requests") == each.get("limits")
        and {"cpu", "memory"} <= {*each.get("limits", {})}
        for each in resources
    )
    return "Guaranteed" if guaranteed else "Burstable"
