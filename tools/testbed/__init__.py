"""A Kubernetes of several nodes on one machine, in network namespaces, without Docker: `tools/cluster`."""
