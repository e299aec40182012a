"""What can go wrong and may be shown to a user, free of HTTP.

Every message is a finished sentence: it quotes the bad value and says what to do.
Anything that is not a `NeuroLocalError` is a defect of ours and keeps its traceback
in the server's log.
"""

from __future__ import annotations

import errno as errno_module
from typing import Optional


class NeuroLocalError(Exception):
    """Base class: an error whose text is meant for the user."""


class InvalidRequest(NeuroLocalError):
    """The request can never succeed as it stands."""


class NotFound(NeuroLocalError):
    """The thing that was named does not exist."""


class NotRunning(NeuroLocalError):
    """The job exists, but the operation needs it running."""


class Unauthorized(NeuroLocalError):
    """No credential, or not this platform's."""


class Unsupported(NeuroLocalError):
    """The platform has this operation, neuro-local does not."""


class StorageError(NeuroLocalError):
    """The file system refused; `code` is the errno (EISDIR, ENOSPC, ...)."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code

    @property
    def symbol(self) -> str:
        """The errno's symbolic name, as the platform's clients expect it."""
        return errno_module.errorcode.get(self.code, str(self.code))


class StartFailed(NeuroLocalError):
    """The job could not be started; `reason` is the platform's word for why."""

    def __init__(self, message: str, reason: str = "ContainerCannotRun") -> None:
        super().__init__(message)
        self.reason = reason


class EngineUnavailable(NeuroLocalError):
    """This machine cannot run the engine; the text says what is missing."""


class SaveFailed(NeuroLocalError):
    """A running job could not be kept as an image."""


class UsageError(NeuroLocalError):
    """A command line or setting of neuro-local that cannot work."""

    def __init__(self, message: str, hint: Optional[str] = None) -> None:
        super().__init__(message if hint is None else f"{message}\n{hint}")
