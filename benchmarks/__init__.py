"""Benchmarks: `.venv/bin/python -m benchmarks.NAME --json` prints one JSON object on stdout."""
