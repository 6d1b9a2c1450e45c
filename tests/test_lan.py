"""The networks of ns_lan by themselves; what goes through them is tested with the fixture (test_pytest_plugin.py)."""

from __future__ import annotations

import resource

import pytest
from support import in_child, needs_root, open_fds

from nsutil._lan import Lan

pytestmark = needs_root
pytest.importorskip("pyroute2")


def test_a_network_ends_with_its_block(leak_check: None) -> None:
    with Lan(2, "192.0.2.0/29") as lan:
        assert [host.address for host in lan.hosts] == ["192.0.2.1", "192.0.2.2"]
        assert repr(lan.hosts[0]).startswith("<Host host1 192.0.2.1 in ")
        held = [host.fileno() for host in lan.hosts]
        assert set(held) <= open_fds().keys()
    assert lan.hosts == []


@pytest.mark.parametrize("hosts", [0, -1, 7])
def test_as_many_hosts_as_there_are_addresses(hosts: int) -> None:
    with pytest.raises(ValueError, match=r"hosts must be between 1 and 6 for 192\.0\.2\.0/29, not "):
        Lan(hosts, "192.0.2.0/29")


def test_a_network_that_cannot_be_finished_keeps_no_namespace() -> None:
    """A loop that pyroute2 could not finish either may stay: asyncio forgets its selector."""

    def body() -> list[str]:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        with pytest.raises(OSError):
            Lan(60, "192.0.2.0/24")
        return [target for target in open_fds().values() if target.startswith("net:")]

    assert in_child(body) == []
