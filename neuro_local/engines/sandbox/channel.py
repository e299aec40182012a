"""The engine's end of its conversation with a job's init (see init.py)."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from typing import Any, Dict, List, Mapping, Sequence, Tuple

from ...errors import NotRunning, StartFailed
from ..base import KILLED

Answer = Tuple[Mapping[str, Any], List[int]]


class Channel:
    """Requests to a job's init, matched with its answers; exits as they happen."""

    def __init__(self, end: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = end
        self._last_id = 0
        self._answers: Dict[int, asyncio.Future[Answer]] = {0: self._loop.create_future()}
        self._exits: Dict[int, asyncio.Future[int]] = {}
        self._open = True
        end.setblocking(False)
        self._loop.add_reader(end, self._receive)

    async def greeting(self) -> Answer:
        """Return init's first words, said unasked. Raises NotRunning when it never spoke."""
        return await self._answers[0]

    async def request(self, do: str, descriptors: Sequence[int] = (), **fields: Any) -> Answer:
        """Ask init and return its answer. Raises NotRunning."""
        return await self._ask(self._next_id(), do, descriptors, fields)

    async def start(
        self, request: Mapping[str, Any], descriptors: Sequence[int]
    ) -> Tuple[asyncio.Future[int], List[int]]:
        """Start a process; return its exit code to come and, on a terminal, our end of that.

        Raises StartFailed or NotRunning.
        """
        number = self._next_id()
        exit_code = self._exits[number] = self._loop.create_future()
        answer, terminal = await self._ask(number, "start", descriptors, request)
        if "error" in answer:
            del self._exits[number]
            raise StartFailed(answer["error"])
        return exit_code, terminal

    def close(self) -> None:
        """Take what init has still said, then hang up: it kills all that is left of the job."""
        while self._open and self._receive():
            pass
        self._hang_up()

    def _hang_up(self) -> None:
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._end)
        self._end.close()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(NotRunning("The job has ended."))
                answer.exception()  # seen, in case nobody waits any more
        for code in self._exits.values():
            code.set_result(KILLED)

    def _next_id(self) -> int:
        self._last_id += 1
        return self._last_id

    async def _ask(
        self, number: int, do: str, descriptors: Sequence[int], fields: Mapping[str, Any]
    ) -> Answer:
        if not self._open:
            raise NotRunning("The job has ended.")
        answer = self._answers[number] = self._loop.create_future()
        await self._send({"id": number, "do": do, **fields}, descriptors)
        return await answer

    async def _send(self, message: Mapping[str, Any], descriptors: Sequence[int]) -> None:
        payload = os.memfd_create("request")
        try:
            with open(payload, "wb", closefd=False) as writing:
                writing.write(json.dumps(message).encode())
            while self._open:
                try:
                    socket.send_fds(self._end, [b"?"], [payload, *descriptors])
                    return
                except BlockingIOError:  # init is behind by hundreds of requests
                    await asyncio.sleep(0.01)
                except OSError:
                    self.close()
        finally:
            os.close(payload)

    def _receive(self) -> bool:
        """Take one packet; False when there is none."""
        try:
            packet, descriptors, _, _ = socket.recv_fds(self._end, 65536, 4)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            # Init ended with requests unread: Linux says so once, before it gives its last words.
            return True
        except OSError:
            packet, descriptors = b"", []
        if not packet:
            self._hang_up()
            return False
        for descriptor in descriptors:  # recv_fds itself has no way to ask for this
            os.set_inheritable(descriptor, False)
        message = json.loads(packet)
        if "exited" in message:
            self._exits.pop(message["exited"]).set_result(message["code"])
            return True
        answer = self._answers[message["id"]]
        if message["id"]:
            del self._answers[message["id"]]
        if answer.cancelled():
            for descriptor in descriptors:
                os.close(descriptor)
        else:
            answer.set_result((message, descriptors))
        return True
