"""What can go wrong with the testbed.

TestbedError
├── NotPossibleError   this machine lacks something: root, a package, a program
├── CommandError       a program that we ran answered with an error or not in time
├── NotReadyError      a part did not become ready in time, or ended
└── NotRunningError    there is no testbed, or not that part of it
"""

from collections.abc import Sequence


class TestbedError(Exception):
    """Base of this package's errors. The message says what to do about it."""

    __test__ = False


class NotPossibleError(TestbedError):
    pass


class CommandError(TestbedError):
    """`command` ended with `code` (None: it hung and was ended); `said` is what it wrote to stderr."""

    def __init__(self, command: Sequence[str], code: int | None, said: str) -> None:
        self.code, self.said = code, said
        outcome = "hung and was ended" if code is None else f"failed with exit code {code}"
        super().__init__(f"{' '.join(command)} {outcome}: {said.strip() or '(it said nothing)'}")


class NotReadyError(TestbedError):
    pass


class NotRunningError(TestbedError):
    pass
