"""As much of Seldon Core as a test needs: the definition of its resource, and what it makes."""

from __future__ import annotations

from typing import Any

from .api_store import Object

GROUP, PLURAL = "machinelearning.seldon.io", "seldondeployments"

_OPEN: Object = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
_COMPONENT: Object = {
    "type": "object",
    "properties": {
        "replicas": {"type": "integer", "format": "int32", "minimum": 0},
        "metadata": _OPEN,
        "spec": _OPEN,
    },
}
_PREDICTOR: Object = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {"type": "string"},
        "replicas": {"type": "integer", "format": "int32"},
        "annotations": _OPEN,
        "graph": _OPEN,
        "componentSpecs": {"type": "array", "items": _COMPONENT},
    },
}

DEFINITION: Object = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": f"{PLURAL}.{GROUP}"},
    "spec": {
        "group": GROUP,
        "scope": "Namespaced",
        "names": {
            "plural": PLURAL,
            "singular": "seldondeployment",
            "kind": "SeldonDeployment",
            "shortNames": ["sdep"],
        },
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "properties": {
                                    "name": {"type": "string"},
                                    "protocol": {"type": "string"},
                                    "annotations": _OPEN,
                                    "predictors": {"type": "array", "items": _PREDICTOR},
                                },
                            },
                            "status": _OPEN,
                        },
                    }
                },
            }
        ],
    },
}
"""The fields that this project writes; Seldon's own definition has 20,000 lines."""


def deployments_of(seldon: Object) -> list[Object]:
    """The Deployments that Seldon makes of a SeldonDeployment, one for each component."""
    metadata = seldon["metadata"]
    found = []
    for predictor in seldon["spec"]["predictors"]:
        for n, component in enumerate(predictor.get("componentSpecs", ())):
            containers = component.get("spec", {}).get("containers", ())
            if not containers:
                continue
            name = "-".join((metadata["name"], predictor["name"], str(n), containers[0]["name"]))
            labels = {
                **component.get("metadata", {}).get("labels", {}),
                "seldon-deployment-id": metadata["name"],
                "seldon-app-svc": name,
            }
            template: Any = {"metadata": {"labels": labels}, "spec": component["spec"]}
            owner = {
                "apiVersion": f"{GROUP}/v1",
                "kind": "SeldonDeployment",
                "name": metadata["name"],
                "uid": metadata["uid"],
                "controller": True,
            }
            spec = {
                "replicas": component.get("replicas", 1),
                "selector": {"matchLabels": {"seldon-app-svc": name}},
                "template": template,
            }
            found.append(
                {
                    "apiVersion": "apps/v1",
                    "kind": "Deployment",
                    "metadata": {
                        "name": name,
                        "namespace": metadata["namespace"],
                        "labels": labels,
                        "ownerReferences": [owner],
                    },
                    "spec": spec,
                }
            )
    return found
