"""The two packages that bring `neuro`; users have one or the other, so both are tried.

What a test can see of the differences between them stands here, so that it says of each what
that one does.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Tuple

from machine import impossible

BIN = Path(sys.executable).parent

# Without them a client reports its use to its makers, and asks PyPI whether it is the newest. The
# older one, on Python 3.10 and later, fails when it is done before it has an answer.
OPTIONS = ("--skip-stats", "--disable-pypi-version-check")


@dataclass(frozen=True)
class Client:
    """A `neuro`, and what is its own."""

    package: str
    program: Path
    # Where neuro-local keeps its login, in client/.
    config: str
    # What `exec` ends with in a job that does not run.
    not_running: int
    # Where it notes what it sends and receives, in the user's home; the older one does not.
    logs: Optional[str] = None

    def __str__(self) -> str:
        return self.package

    def require(self) -> None:
        """Skip the test where this client could not be installed; on CI fail it."""
        if not self.program.exists():
            impossible(f"{self.package} is not installed; `make test` says why")

    @property
    def command(self) -> Tuple[str, ...]:
        return (str(self.program), *OPTIONS)


APOLO = Client(
    package="apolo-cli",
    program=BIN / "neuro",
    config="apolo",
    not_running=72,
    logs=".apolo/logs",
)
NEUROMATION = Client(
    package="neuromation",
    program=BIN.parent / "neuromation" / "bin" / "neuro",
    config="neuromation",
    not_running=65,
)
CLIENTS = (APOLO, NEUROMATION)
