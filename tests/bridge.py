"""A network of containers beside those of any other engine, with a way out of this machine.

A Docker engine empties the rules of any other when it makes its own (it has one set of chains), so
the tests' engine makes none: these three, of this bridge alone, stand in for them.
"""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Tuple

from calling import CommandFailed, attempt, call

NAME = "neurotest{}"
SUBNET = "10.213.{}.0/24"


@dataclass(frozen=True)
class Bridge:
    number: int

    @property
    def name(self) -> str:
        return NAME.format(self.number)

    @property
    def subnet(self) -> ipaddress.IPv4Network:
        return ipaddress.IPv4Network(SUBNET.format(self.number))

    def make(self) -> None:
        """Raises CommandFailed, also if another engine has just taken the name."""
        call("ip", "link", "add", self.name, "type", "bridge")
        try:
            address = f"{self.subnet[1]}/{self.subnet.prefixlen}"
            call("ip", "address", "add", address, "dev", self.name)
            call("ip", "link", "set", self.name, "up")
            for table, chain, *rule in self._rules:
                call("iptables", "--wait", "--table", table, "--insert", chain, *rule)
        except CommandFailed:
            self.remove()
            raise

    def remove(self) -> None:
        """Remove what there is of it."""
        for table, chain, *rule in self._rules:
            attempt("iptables", "--wait", "--table", table, "--delete", chain, *rule)
        attempt("ip", "link", "delete", self.name)

    @property
    def _rules(self) -> List[Tuple[str, ...]]:
        subnet = str(self.subnet)
        return [
            ("nat", "POSTROUTING", "-s", subnet, "!", "-o", self.name, "-j", "MASQUERADE"),
            ("filter", "FORWARD", "-i", self.name, "-j", "ACCEPT"),
            ("filter", "FORWARD", "-o", self.name, "-j", "ACCEPT"),
        ]


def make_free() -> Bridge:
    """Make a bridge whose name and addresses nobody uses. Raises CommandFailed."""
    routes = _routes()
    taken = [ipaddress.ip_network(route["dst"]) for route in routes if route["dst"] != "default"]
    for number in range(256):
        bridge = Bridge(number)
        if not any(bridge.subnet.overlaps(network) for network in taken):
            try:
                bridge.make()
                return bridge
            except CommandFailed:
                if not Path("/sys/class/net", bridge.name).exists():
                    raise
    raise CommandFailed(f"All networks of {SUBNET.format('*')} are taken.")


def mtu() -> int:
    """Return the longest packet that leaves this machine, which containers cannot find out."""
    ways = [route["dev"] for route in _routes() if route["dst"] == "default"]
    sizes = [int(Path("/sys/class/net", way, "mtu").read_text()) for way in ways]
    return min([1500, *sizes])


def _routes() -> List[Dict[str, Any]]:
    routes: List[Dict[str, Any]] = json.loads(call("ip", "-json", "-4", "route"))
    return routes
