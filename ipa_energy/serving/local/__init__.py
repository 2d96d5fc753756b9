"""The pipeline served for real on this machine: queues, router, replicas, load generator."""
