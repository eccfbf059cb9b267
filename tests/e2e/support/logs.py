"""What the operator's pods logged, as JSON lines."""

import json

from e2e.support.chart import NAMESPACE, OPERATORS
from e2e.support.kubernetes import Document, kubectl, listing, name_of


async def operator_logs(*, previous: bool = False) -> list[Document]:
    """Every event of all the operator's pods; `pod` names whose. In no order between pods. Fails on a line
    that is not JSON.
    """
    found = []
    for pod in await listing("pods", NAMESPACE, OPERATORS):
        which = ["--previous"] if previous else []
        text = await kubectl("-n", NAMESPACE, "logs", name_of(pod), "--tail=-1", *which)
        found += [{**_parsed(line), "pod": name_of(pod)} for line in text.splitlines() if line.strip()]
    return found


def _parsed(line: str) -> Document:
    try:
        event: Document = json.loads(line)
    except ValueError as error:
        raise AssertionError(f"the operator logged a line that is no JSON: {line}") from error
    return event


def about(events: list[Document], session: str) -> list[Document]:
    """The events that name this session (`namespace/name`)."""
    return [event for event in events if event.get("session") == session]
