"""The front door: admits participants, picks a router for each, and proxies their signalling to it.

Beside it applications come in for workers, each of which it relays to the media server that runs it.

Stateless: any number of gateways run side by side. It reads the Kubernetes API and goes on with what it
knows when that is away; it asks the media servers themselves how they are.
"""
