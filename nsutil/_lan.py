"""Hosts on a bridge: NET namespaces joined by veth pairs, through pyroute2."""

from __future__ import annotations

import ipaddress

from ._recipe import Namespace, enter
from ._types import NET

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

    from ._file import NamespaceFile


class Host:
    """One host: its NET namespace and address.

    ``with host:`` moves the calling thread in; ``enter(host)`` is a recipe for
    anything else.
    """

    __slots__ = ("_entered", "address", "name", "namespace")

    def __init__(self, name: str, address: str, namespace: NamespaceFile) -> None:
        self.name = name
        self.address = address
        self.namespace = namespace
        self._entered = enter(namespace)

    def fileno(self) -> int:
        """The namespace's descriptor, which is what ``enter`` takes."""
        return self.namespace.fileno()

    def __enter__(self) -> Self:
        self._entered.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._entered.__exit__(*exc)

    def __repr__(self) -> str:
        return f"<Host {self.name} {self.address} in {self.namespace!r}>"


class Lan:
    """``hosts`` hosts with addresses of ``network``, on a bridge in a namespace of its own.

    ``hosts`` is the list of them.  A context manager that closes all.
    """

    def __init__(self, hosts: int, network: str) -> None:
        addresses = ipaddress.ip_network(network)
        if hosts < 1 or hosts > addresses.num_addresses - 2:
            raise ValueError(f"hosts must be between 1 and {addresses.num_addresses - 2} for {network}, not {hosts}")
        self._switch = Namespace(NET).create()
        self.hosts: list[Host] = []
        try:
            self._link(addresses, hosts)
        except BaseException:
            self.close()
            raise

    def _link(self, network: ipaddress.IPv4Network | ipaddress.IPv6Network, count: int) -> None:
        from pyroute2 import IPRoute

        with enter(self._switch.net), IPRoute() as switch:
            switch.link("add", ifname="br0", kind="bridge")
            bridge = switch.link_lookup(ifname="br0")[0]
            switch.link("set", index=bridge, state="up")
            for number, address in zip(range(1, count + 1), network.hosts(), strict=False):
                held = Namespace(NET).create()
                host = Host(f"host{number}", str(address), held.net)
                self.hosts.append(host)
                self._plug_in(switch, bridge, host, network.prefixlen)

    def _plug_in(self, switch: Any, bridge: int, host: Host, prefixlen: int) -> None:
        """One veth pair: eth0 in the host, a port of the bridge here."""
        from pyroute2 import IPRoute

        port = f"port-{host.name}"
        peer = {"ifname": "eth0", "net_ns_fd": host.fileno()}
        switch.link("add", ifname=port, kind="veth", peer=peer)
        index = switch.link_lookup(ifname=port)[0]
        switch.link("set", index=index, master=bridge, state="up")
        with enter(host.namespace), IPRoute() as inside:
            eth0 = inside.link_lookup(ifname="eth0")[0]
            inside.addr("add", index=eth0, address=host.address, prefixlen=prefixlen)
            inside.link("set", index=eth0, state="up")

    def close(self) -> None:
        """End the network: the kernel removes the links with their namespaces."""
        for host in self.hosts:
            host.namespace.close()
        self.hosts.clear()
        self._switch.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
