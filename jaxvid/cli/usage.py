"""The error of a wrong command line."""


class UsageError(ValueError):
    """The command line itself is wrong."""
