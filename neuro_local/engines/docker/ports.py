"""Ways to a port inside a container, of which none is published on this machine.

A container of this kernel has an address that leads to what listens on all of its addresses. What
listens on the container's loopback alone, and any container of a virtual machine, is reached by a
relay: a process in the container that joins its own streams with a connection.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import Awaitable, Callable, Optional, Sequence, Set

from ..base import STDOUT, Process

BLOCK = 65536
# An address that takes longer than this does not lead anywhere. Seconds.
NEAR = 1.0

Start = Callable[[Sequence[str]], Awaitable[Process]]

# Says "+" once it is connected.
_IN_PYTHON = """
import os, socket, sys, threading
for host in "127.0.0.1", "::1":
    try:
        connection = socket.create_connection((host, int(sys.argv[1])))
        break
    except (OSError, socket.error):
        pass
else:
    sys.exit(1)
def send():
    while True:
        data = os.read(0, 65536)
        if not data:
            return connection.shutdown(socket.SHUT_WR)
        connection.sendall(data)
sender = threading.Thread(target=send)
sender.daemon = True
sender.start()
data = b"+"
while data:
    while data:
        data = data[os.write(1, data):]
    data = connection.recv(65536)
os._exit(0)
"""

_IN_BASH = """
exec 4<&0
{ exec 3<>"/dev/tcp/127.0.0.1/$1" || exec 3<>"/dev/tcp/::1/$1"; } 2>/dev/null || exit 1
printf +
cat <&4 >&3 &
cat <&3
kill $!
"""

# With what the image has; the system's own table tells, of the port in hexadecimal digits, whether
# anything listens (state 0A), for not every nc says so.
_RELAY = """
listens=":$(printf %04X "$1") [0-9A-F]*:0000 0A "
cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | grep -q "$listens" || exit 1
command -v python3 >/dev/null && exec python3 -S -E -c "$2" "$1"
command -v python >/dev/null && exec python -S -E -c "$2" "$1"
command -v bash >/dev/null && exec bash -c "$3" bash "$1"
command -v nc >/dev/null && printf + && exec nc 127.0.0.1 "$1"
exit 1
"""


class Ports:
    """The ports of one container: at its `address`, if it has one here, or by what `start` starts
    in it."""

    def __init__(self, address: Optional[str], start: Start) -> None:
        self._address = address
        self._start = start
        self._pumps: Set[asyncio.Task[None]] = set()

    async def connect(self, port: int) -> socket.socket:
        """Return a connected, non-blocking stream socket. Raises ConnectionRefusedError."""
        if self._address:
            with suppress(ConnectionRefusedError):
                found = await self._straight(self._address, port)
                if found is not None:
                    return found
                self._address = None  # the engine is further away than it looked
        return await self._relayed(port)

    def close(self) -> None:
        """End all relays."""
        for pump in self._pumps:
            pump.cancel()

    async def _straight(self, address: str, port: int) -> Optional[socket.socket]:
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        connection.setblocking(False)
        connecting = asyncio.get_running_loop().sock_connect(connection, (address, port))
        try:
            await asyncio.wait_for(connecting, NEAR)
        except ConnectionRefusedError:
            connection.close()
            raise
        except (OSError, asyncio.TimeoutError):
            connection.close()
            return None
        except BaseException:
            connection.close()
            raise
        return connection

    async def _relayed(self, port: int) -> socket.socket:
        words = ["sh", "-c", _RELAY, "sh", str(port), _IN_PYTHON, _IN_BASH]
        relay = await self._start(words)
        output = relay.output()
        first = b""
        async for chunk in output:
            if chunk.channel == STDOUT:
                first = chunk.data
                break
        if not first:
            raise ConnectionRefusedError(f"nothing listens on port {port} of the job")
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=theirs)
        writer.write(first[1:])

        async def send() -> None:
            with suppress(OSError):
                while data := await reader.read(BLOCK):
                    await relay.write(data)
            await relay.close_stdin()

        async def receive() -> None:
            sending = asyncio.create_task(send())
            try:
                async for chunk in output:
                    if chunk.channel == STDOUT:
                        writer.write(chunk.data)
                        await writer.drain()
            except OSError:  # nobody listens any more
                pass
            finally:
                sending.cancel()
                writer.close()

        pump = asyncio.create_task(receive())
        self._pumps.add(pump)
        pump.add_done_callback(self._pumps.discard)
        return ours
