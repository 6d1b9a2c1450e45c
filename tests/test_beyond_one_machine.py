"""Recipes travel: the workers of a real dask.distributed cluster call functions in namespaces."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from nsutil import PID, USER, UTS, Namespace

distributed = pytest.importorskip("distributed", reason="dask.distributed is not installed")

if TYPE_CHECKING:
    from distributed import Client

pytestmark = [
    pytest.mark.slow,
    # Ports, event loops and child processes of the cluster's own making.
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=2, processes=True, dashboard_address=None, host="127.0.0.1"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def inside() -> Callable[[int], dict[str, Any]]:
    """A function that travels by value: the workers cannot import this file."""

    def look(number: int) -> dict[str, Any]:
        import os
        import socket

        return {
            "number": number * number,
            "pid": os.getpid(),
            "uid": os.getuid(),
            "name": socket.gethostname(),
            "uts": os.readlink("/proc/self/ns/uts"),
        }

    return look


def test_workers_call_functions_in_namespaces(client: Client) -> None:
    box = Namespace([USER, UTS, PID], uid_map="root", hostname="inside")
    jobs = client.map(box.call, [inside()] * 8, range(8))
    found = client.gather(jobs)
    assert [each["number"] for each in found] == [n * n for n in range(8)]
    assert {each["name"] for each in found} == {"inside"}
    assert {each["pid"] for each in found} == {2}
    assert {each["uid"] for each in found} == {0}
    # Each call had namespaces of its own, none of them ours or the workers'.
    outside = os.readlink("/proc/self/ns/uts")
    assert outside not in {each["uts"] for each in found}
    assert set(client.run(os.readlink, "/proc/self/ns/uts").values()) == {outside}


def test_a_recipe_arrives_as_it_was(client: Client) -> None:
    box = Namespace([USER, UTS, PID], uid_map="root", hostname="inside", timeout=30)
    assert client.submit(lambda recipe: (recipe, repr(recipe)), box).result() == (box, repr(box))


def test_exceptions_come_through_both(client: Client) -> None:
    def fail() -> None:
        raise LookupError("inside a namespace on a worker")

    with pytest.raises(LookupError, match="on a worker"):
        client.submit(Namespace([USER, UTS]).call, fail).result()


def test_workers_are_left_clean(client: Client) -> None:
    def children() -> int:
        from pathlib import Path

        texts = [path.read_text() for path in Path("/proc/self/task").glob("*/children")]
        return sum(len(text.split()) for text in texts)

    assert set(client.run(children).values()) == {0}
