"""`mafalda join`: takes part in a session from the command line."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from pathlib import Path

import click

from mafalda_operator.cli.durations import DURATION
from mafalda_operator.cli.join_output import Output
from mafalda_operator.cli.participant import Participant, ParticipantError, Source, VideoFormat, parse
from mafalda_operator.cli.participant.address import claims_of
from mafalda_operator.cli.participant.recording import Recorder, RecordingError


class _Size(click.ParamType[VideoFormat]):
    """`320x240@15`."""

    name = "WIDTHxHEIGHT@RATE"

    def convert(
        self, value: str | VideoFormat, param: click.Parameter | None, ctx: click.Context | None
    ) -> VideoFormat:
        if isinstance(value, VideoFormat):
            return value
        size, _, rate = value.partition("@")
        width, _, height = size.partition("x")
        try:
            form = VideoFormat(int(width), int(height), int(rate or 15))
        except ValueError:
            self.fail(f"{value!r} is not like 320x240@15", param, ctx)
        if min(form.width, form.height) < 16 or form.width % 2 or form.height % 2 or not 0 < form.rate <= 60:
            self.fail("width and height must be even and 16 or more, the rate 1 to 60", param, ctx)
        return form


@click.command()
@click.argument("url")
@click.option("--token", "token", required=True, envvar="MAFALDA_TOKEN", help="From `mafalda token`.")
@click.option(
    "--publish",
    metavar="SOURCE",
    multiple=True,
    help="What to send: `audio` (a tone), `video` (a moving picture), or a media file in a loop. Repeatable.",
)
@click.option("--size", type=_Size(), default="320x240@15", show_default=True, help="Of the moving picture.")
@click.option(
    "--record",
    type=click.Path(path_type=Path, dir_okay=False, writable=True),
    help="Write the first picture and sound of one participant to this file (.webm, .mkv, .mp4).",
)
@click.option("--duration", type=DURATION, help="Leave after this time. If absent: on Ctrl-C.")
@click.option("--name", default="", help="Display name. If absent: the token's participant.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="json: an object a line.",
)
def join(
    url: str,
    token: str,
    publish: tuple[str, ...],
    size: VideoFormat,
    record: Path | None,
    duration: float | None,
    name: str,
    output: str,
) -> None:
    """Join the session at URL (a MediaSession's status.url), print what is received, send what is asked.

    Dials again by itself after faults. Exit code 1 when the call could not be joined or the server ended it.
    """
    try:
        peer_id = claims_of(token).sub
        sources = [source for given in publish for source in parse(given, seed=peer_id, form=size)]
        asyncio.run(_take_part(url, token, name, sources, record, duration, Output(output == "json")))
    except ParticipantError as error:
        raise click.ClickException(str(error)) from error


async def _take_part(
    url: str,
    token: str,
    name: str,
    sources: list[Source],
    record: Path | None,
    duration: float | None,
    output: Output,
) -> None:
    recorder = Recorder(record) if record is not None else None
    participant = Participant(
        url,
        token,
        name=name,
        publish=sources,
        on_event=output.event,
        on_frame=None if recorder is None else recorder.take,
    )
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        async with participant:
            printing = asyncio.create_task(output.keep_printing(participant))
            try:
                await _until(participant, stop, duration)
            finally:
                printing.cancel()
                await asyncio.wait((printing,))
    except BaseException:
        if recorder is not None:
            with contextlib.suppress(RecordingError):  # what ended the call is the error to show
                await recorder.close()
        raise
    finally:
        output.summary(participant)
    if recorder is not None:
        await recorder.close()


async def _until(participant: Participant, stop: asyncio.Event, duration: float | None) -> None:
    stopped, over = asyncio.create_task(stop.wait()), asyncio.create_task(participant.wait())
    try:
        await asyncio.wait((stopped, over), timeout=duration, return_when=asyncio.FIRST_COMPLETED)
        if over.done():
            over.result()
    finally:
        for task in (stopped, over):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, ParticipantError):
                await task
