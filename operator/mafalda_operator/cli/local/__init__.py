"""The embedded cluster: a Kubernetes control plane on loopback, without root, for trying out and for tests.

`cluster.LocalCluster` starts and stops it, `commands.local` is the `mafalda local` command, `ports` finds
free ports and `processes` runs processes that can be found, stopped and cleaned up by another process later.
"""
