"""Cleans up after a starter that dies.

A keeper is a small process that waits for the end of a pipe whose other end only its starter holds. When the
starter is gone, however it ended, the keeper ends every process of the directory and removes the directory.
The starter lets it go by `release` (what was started stays) or `close` (the starter has cleaned up itself).
"""

import os
import sys
from pathlib import Path

from mafalda_operator.cli.local.directory import remove
from mafalda_operator.cli.local.processes import ProcessRecord, identify, wait

_RELEASE = b"release"


class Keeper:
    """The starter's end."""

    def __init__(self, directory: Path) -> None:
        """Starts a keeper of `directory`."""
        reading, self._writing = os.pipe()
        try:
            pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-m", __name__, str(directory)],
                {**os.environ, "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)},
                file_actions=[(os.POSIX_SPAWN_DUP2, reading, 0)],
                setsid=True,
            )
        except BaseException:
            os.close(self._writing)
            raise
        finally:
            os.close(reading)
        self._record: ProcessRecord | None = identify(pid)

    def release(self) -> None:
        """The directory's processes stay when this process ends."""
        if self._record is not None:
            os.write(self._writing, _RELEASE)
        self.close()

    def close(self) -> None:
        """Ends the keeper. Call it after cleaning up: what is still there then, the keeper removes.
        Idempotent.
        """
        record, self._record = self._record, None
        if record is not None:
            os.close(self._writing)
            wait(record, 15.0)


def main(directory: Path) -> None:
    received = sys.stdin.buffer.read()
    if received != _RELEASE and directory.is_dir():
        remove(directory)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
