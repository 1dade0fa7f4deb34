"""Errors a person can act on: each message is one line that says what is wrong, where, and what to do next."""

from __future__ import annotations


class PipelinesError(Exception):
    """Base of every error this package raises for a user's mistake or a missing resource; never needs a traceback."""


class SettingsError(PipelinesError):
    """Indicates that a setting is unknown, has a value that is not allowed, or that a configuration file is missing or unreadable.

    Attributes:
        key: Dotted name of the setting (``training.epochs``), or the file that could not be read.
        value: The value as given; None when the key itself is wrong.
        allowed: What would have been accepted, in words.
        nearest: The most similar name that exists, when there is one.
    """

    def __init__(self, message: str, *, key: str, value: object = None, allowed: str = "", nearest: str | None = None) -> None:
        super().__init__(" ".join(message.split()))  # whatever was given, the message stays one line
        self.key = key
        self.value = value
        self.allowed = allowed
        self.nearest = nearest


class PlatformError(PipelinesError):
    """Indicates that something the pipeline needs in the account (stack, bucket, role, model) is missing or refused."""


class DefinitionError(PipelinesError):
    """Indicates that the pipeline's source or its rendered definition is wrong; nothing was created or started."""


class RunError(PipelinesError):
    """Indicates that an execution could not be started or followed."""


class InputDataError(RunError):
    """Indicates that there are no staged images where an execution shall take them from."""
