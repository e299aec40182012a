"""Which of a client's two streams shows a job's output, so that it is shown once.

`neuro run` in the foreground opens the job's log and its attach stream together, shows the log
until the first attach frame arrives, and drops the log when attach ends. Once the job has
finished, the newer client probes attach again and prints the whole log a second time. Neither
says that its streams belong together, so they are paired by time: a log and an attach of one job
that open within a moment are taken for one client's.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Dict, List, Optional

# How long a stream of a running job holds its first byte, for its partner to appear. Seconds.
HOLD = 0.4
# How far apart the two streams of one client may open.
PAIRING_WINDOW = 2.0
# How long after the probe the newer client may come for its second copy of the log.
ECHO_WINDOW = 10.0


@dataclass(eq=False)
class LogView:
    """A client's log stream; `muted` when its attach stream shows the output instead."""

    opened_at: float
    decided: asyncio.Event = field(default_factory=asyncio.Event)
    done: asyncio.Event = field(default_factory=asyncio.Event)
    muted: bool = False
    paired: bool = False

    @property
    def held(self) -> bool:
        """Whether it still waits for its partner, and has shown nothing yet."""
        return not self.decided.is_set()

    def mute(self) -> None:
        """Have it show nothing: another stream of the same client does, or has."""
        self.muted = self.paired = True
        self.decided.set()

    def show(self) -> None:
        """Let it go on, and show the output unless it is muted."""
        self.decided.set()


@dataclass(eq=False)
class AttachView:
    """A client's attach stream. `partner` shows the output in its stead; without one it shows
    the output itself, all of it if a log stream was muted for it (`from_start`)."""

    partner: Optional[LogView] = None
    from_start: bool = False
    log_came: asyncio.Event = field(default_factory=asyncio.Event)


class Viewers:
    """The streams that clients have open on jobs' output, and which of them belong together."""

    def __init__(self) -> None:
        self._logs: Dict[str, List[LogView]] = {}
        self._waiting: Dict[str, AttachView] = {}
        self._shown: Dict[str, float] = {}
        self._echoes: Dict[str, float] = {}

    async def open_log(self, job_id: str, *, running: bool) -> LogView:
        """Register a log stream; return once it is known whether it is to show the output."""
        view = LogView(time.monotonic())
        if self._echoes.pop(job_id, 0.0) > time.monotonic():
            view.mute()
        elif running:
            self._logs.setdefault(job_id, []).append(view)
            attach = self._waiting.pop(job_id, None)
            if attach is not None:
                view.mute()
                attach.from_start = True
                attach.log_came.set()
            await _wait(view.decided, HOLD)
        view.show()
        return view

    def close_log(self, job_id: str, view: LogView) -> None:
        """Forget a log stream that has ended; an attach stream that left the output to it takes
        over. Repeatable."""
        view.done.set()
        views = self._logs.get(job_id, [])
        if view in views:
            views.remove(view)
            if not views:
                del self._logs[job_id]

    async def open_attach(self, job_id: str) -> AttachView:
        """Register an attach stream of the newer client: it shows the output if it can."""
        attach = AttachView()
        log = self._unpaired_log(job_id)
        if log is None:
            self._waiting[job_id] = attach
            await _wait(attach.log_came, HOLD)
            self._waiting.pop(job_id, None)
        elif log.held:
            log.mute()
            attach.from_start = True
        else:
            # Part of the output is on its way on the other connection. Frames of this one
            # might overtake it, and the client would drop it.
            log.paired = True
            attach.partner = log
        if attach.from_start or attach.partner:
            self._shown[job_id] = time.monotonic()
        return attach

    async def open_legacy_attach(self, job_id: str) -> AttachView:
        """Register an attach stream of the older client: the log shows the output if there is
        one, since that client reads nothing from attach when the job ends early."""
        attach = AttachView(from_start=True)
        log = self._unpaired_log(job_id)
        if log is not None:
            log.paired = True
            log.show()
            attach.partner = log
        return attach

    def refuse_attach(self, job_id: str, *, probe: bool) -> None:
        """Note that a job was no longer there to attach to."""
        if probe:
            if self._shown.pop(job_id, None) is not None:
                self._echoes[job_id] = time.monotonic() + ECHO_WINDOW
        else:
            # The client drops this log stream now and comes back for the whole log.
            log = self._unpaired_log(job_id)
            if log is not None and log.held:
                log.mute()

    def _unpaired_log(self, job_id: str) -> Optional[LogView]:
        earliest = time.monotonic() - PAIRING_WINDOW
        for view in reversed(self._logs.get(job_id, [])):
            if not view.paired and view.opened_at >= earliest:
                return view
        return None


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except asyncio.TimeoutError:
        pass
