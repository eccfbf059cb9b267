"""The front door: admits participants, picks a router for each, and proxies their signalling to it.

Stateless: any number of gateways run side by side. It reads the Kubernetes API and goes on with what it
knows when that is away; it asks the media servers themselves how they are.
"""
