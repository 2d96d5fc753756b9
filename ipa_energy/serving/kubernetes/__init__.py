"""The pipeline served on a Kubernetes cluster: the same run, its replicas and its router in pods.

::

    run (decides) ──API server──▶ Deployments or SeldonDeployments ──▶ pods with MLServer
        │                                                              ▲ gRPC
        └──control, TCP──▶ router pod: queues, load generator ─────────┘
                             └──watches EndpointSlices: which pods are ready
"""
