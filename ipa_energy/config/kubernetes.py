"""The key ``kubernetes`` of a pipeline YAML: where and as what its servers run on a cluster."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ipa_energy.config.fields import HttpUrl, Name, Positive, StrictModel, Text, optional

Quantity = Annotated[
    str,
    Field(
        pattern=r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$",
        json_schema_extra={"x-allowed": "an amount as Kubernetes writes it: 512Mi, 2Gi"},
    ),
]
Namespace = Annotated[
    str,
    Field(
        pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$",
        max_length=63,
        json_schema_extra={"x-allowed": "a name of lower-case letters, digits and -"},
    ),
]
Labels = dict[Text, Text]


class KubernetesConfig(StrictModel):
    """What ``--backend kubernetes`` makes of a pipeline."""

    namespace: Namespace | None = optional(
        None, "Where everything is made; null: the kubeconfig's, or the pod's own."
    )
    rendering: Literal["deployments", "seldon"] = optional(
        "deployments",
        "Deployments, or IPA's SeldonDeployments, which need Seldon Core v1 in the cluster.",
    )
    server_image: Text = optional(
        "ipa-energy-server:latest", "Image of the model servers (configs/kubernetes/images)."
    )
    router_image: Text = optional("ipa-energy-router:latest", "Image of the router.")
    pull_secret: Name | None = optional(None, "Secret of the registry; null: none is needed.")
    server_memory: Quantity = optional("2Gi", "Memory that one replica holds.")
    router_cores: Positive = optional(
        1, "Cores that the router holds, its load generator included."
    )
    router_memory: Quantity = optional("1Gi", "Memory that the router holds.")
    node_selector: Labels = optional({}, "Labels of the nodes that anything may run on.")
    hardware_nodes: dict[Text, Labels] = optional(
        {}, "Hardware of the profile: labels of the nodes that have it."
    )
    resources: dict[Text, Text] = optional(
        {},
        "Resource of the profile: its name in the cluster. gpu is nvidia.com/gpu and mig-1g.10gb"
        " is nvidia.com/mig-1g.10gb unless this says otherwise.",
    )
    prometheus_url: HttpUrl | None = optional(
        None,
        "Prometheus that scrapes Kepler and DCGM, as seen by whoever decides; null: joules are"
        " estimated from how long replicas were busy.",
    )
