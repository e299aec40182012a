"""Which sockets of this machine listen, and whose they are, from the kernel's own tables."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterator, List, Set, Union

from processes import open_files

PROC = Path("/proc")

# In proc(5) the state is in hexadecimal: LISTEN, and for UDP that of a socket that takes datagrams
# from anybody.
LISTENING = {"tcp": "0A", "tcp6": "0A", "udp": "07", "udp6": "07"}


@dataclass(frozen=True)
class Listener:
    """A socket that others can reach. `inode` tells it from all others of the machine."""

    protocol: str
    host: Union[ipaddress.IPv4Address, ipaddress.IPv6Address]
    port: int
    inode: str

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it."""
        return (getattr(self.host, "ipv4_mapped", None) or self.host).is_loopback


def listeners(pid: Union[int, str] = "self") -> List[Listener]:
    """Return what listens in the network that a process is in."""
    tables = {protocol: PROC / str(pid) / "net" / protocol for protocol in LISTENING}
    return [
        listener
        for protocol, table in tables.items()
        if table.exists()  # a machine without IPv6 has two of them
        for listener in read_table(protocol, table.read_text())
    ]


def read_table(protocol: str, table: str) -> Iterator[Listener]:
    for line in table.splitlines()[1:]:
        fields = line.split()
        if fields[3] == LISTENING[protocol]:
            host, port = fields[1].split(":")
            yield Listener(protocol, _address(host), int(port, 16), fields[9])


def _address(field: str) -> Union[ipaddress.IPv4Address, ipaddress.IPv6Address]:
    """Return an address that is written as words in the byte order of this machine."""
    words = [int(field[start : start + 8], 16) for start in range(0, len(field), 8)]
    return ipaddress.ip_address(b"".join(struct.pack("=I", word) for word in words))


def networks(pids: Set[int]) -> Dict[str, int]:
    """Return the network namespaces that the processes are in, each with one of them."""
    found = {}
    for pid in pids:
        with suppress(FileNotFoundError):  # it has ended
            found[os.readlink(PROC / str(pid) / "ns/net")] = pid
    return found


def family(*pids: int) -> Set[int]:
    """Return the processes and all that descend from them."""
    children: Dict[int, List[int]] = {}
    for folder in PROC.iterdir():
        if folder.name.isdecimal():
            with suppress(OSError):  # it has ended
                # The name of the program, in brackets, may hold anything.
                stat = (folder / "stat").read_text().rpartition(")")[2].split()
                children.setdefault(int(stat[1]), []).append(int(folder.name))
    found: Set[int] = set()
    waiting = list(pids)
    while waiting:
        pid = waiting.pop()
        found.add(pid)
        waiting.extend(children.get(pid, []))
    return found


def sockets_of(pids: Set[int]) -> Set[str]:
    """Return the inodes of all sockets that the processes hold."""
    links = [link for pid in pids for link in open_files(pid)]
    return {match[1] for match in map(re.compile(r"socket:\[(\d+)\]").fullmatch, links) if match}


def addresses() -> Set[str]:
    """Return the addresses of this machine, those of its loopback included."""
    trie = (PROC / "net/fib_trie").read_text()
    found = set(re.findall(r"-- (\S+)\n\s*/32 host LOCAL", trie))
    if (PROC / "net/if_inet6").exists():
        for line in (PROC / "net/if_inet6").read_text().splitlines():
            host, index = line.split()[:2]
            address = ipaddress.IPv6Address(bytes.fromhex(host))
            scope = f"%{int(index, 16)}" if address.is_link_local else ""
            found.add(f"{address}{scope}")
    return found


def answers(host: str, port: int) -> bool:
    """Whether something takes a TCP connection there."""
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError:
        return False
    return True
