"""What can go wrong with the demo itself; faults of the processes are LocalClusterErrors."""


class DemoError(Exception):
    """A step did not hold, or can't be tried; the message says which and what was seen instead."""
