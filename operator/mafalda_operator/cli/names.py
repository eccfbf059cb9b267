"""Names of objects on the command line: `shop/standup`."""

from __future__ import annotations

import click

from mafalda_operator.model import ObjectKey


class Name(click.ParamType[ObjectKey]):
    """`NAMESPACE/NAME`."""

    name = "NAMESPACE/NAME"

    def convert(
        self, value: str | ObjectKey, param: click.Parameter | None, ctx: click.Context | None
    ) -> ObjectKey:
        if isinstance(value, ObjectKey):
            return value
        namespace, _, name = value.partition("/")
        if not namespace or not name or "/" in name:
            self.fail("must be NAMESPACE/NAME", param, ctx)
        return ObjectKey(namespace, name)


NAME = Name()
