"""Remote Mediasoup: workers that run here for applications elsewhere (docs/remote.md)."""
