"""What can go wrong with the embedded cluster.

LocalClusterError
├── BinariesMissingError  a program of the control plane is not there
├── NoFreePortsError      no port, or no run of ports, is free
├── DirectoryInUseError   the directory is another cluster's, or holds something that is not ours
├── NotRunningError       no cluster lives in that directory
├── StartFailedError      a program ended, or was not ready in time
├── StopFailedError       a process does not go away
└── KubectlFailedError    kubectl answered with an error or not in time
"""


class LocalClusterError(Exception):
    """Base of this package's errors. The message says what to do about it."""


class BinariesMissingError(LocalClusterError):
    pass


class NoFreePortsError(LocalClusterError):
    pass


class DirectoryInUseError(LocalClusterError):
    pass


class NotRunningError(LocalClusterError):
    pass


class StartFailedError(LocalClusterError):
    pass


class StopFailedError(LocalClusterError):
    pass


class KubectlFailedError(LocalClusterError):
    """kubectl ended with `code` (None: it hung and was ended); `stderr` is what it said."""

    def __init__(self, arguments: tuple[str, ...], code: int | None, stderr: str) -> None:
        self.arguments, self.code, self.stderr = arguments, code, stderr
        said = stderr.strip() or "(it said nothing)"
        outcome = "hung" if code is None else f"failed with exit code {code}"
        super().__init__(f"kubectl {' '.join(arguments)} {outcome}: {said}")
