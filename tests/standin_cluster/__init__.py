"""A Kubernetes cluster in this process, for tests: an API server, its controllers and a node.

It answers as a recorded kube-apiserver 1.36 did (a test replays the recording against it) in what
this project uses: typed objects with versions and field ownership, patches, watches, rights, and
the controllers that make pods of Deployments. There is no kubelet and no network: pods become
ready after a delay, or a :class:`~.node_agent.NodeAgent` starts them as
processes of this machine.
"""
