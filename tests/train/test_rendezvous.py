"""Ranks agree on a start through a store that has seen earlier ones; the address that gloo would take."""

from __future__ import annotations

import socket
import threading

import pytest
import torch.distributed as dist

from yolox_lt.distributed import rendezvous
from yolox_lt.distributed.rendezvous import Start, agree_on_start, check_gloo_address, interface_towards
from yolox_lt.errors import UserError


def started(store: dist.Store, world: int, restarts: tuple[int, ...]) -> list[Start]:
    """What each rank of one start is told, rank r's agent having counted restarts[r]."""
    found: dict[int, Start] = {}

    def run(rank: int) -> None:
        found[rank] = agree_on_start(store, rank, world, restarts[rank])

    threads = [threading.Thread(target=run, args=(rank,)) for rank in reversed(range(world))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return [found[rank] for rank in range(world)]


def test_start__three_ranks_and_a_store_that_outlives_them():
    store = dist.HashStore()
    starts = [started(store, 3, counts) for counts in ((0, 0, 0), (1, 0, 1), (1, 1, 1))]
    for ranks in starts:
        assert ranks[0] == ranks[1] == ranks[2] or {r.prefix for r in ranks} == {ranks[0].prefix}
    assert len({ranks[0].prefix for ranks in starts}) == 3  # nobody reads the addresses of the processes before
    assert len({rank.launch for ranks in starts for rank in ranks}) == 1
    assert [[rank.again for rank in ranks] for ranks in starts] == [[False] * 3, [True] * 3, [True] * 3]


def test_start__a_rank_that_was_killed_while_it_asked_is_not_waited_for():
    store = dist.HashStore()
    store.set("start/asked/1", "of a process that is gone")
    first, second = started(store, 2, (0, 0))
    assert first == second
    assert not first.again


def test_start__of_another_store_is_another_launch():
    launches = {started(dist.HashStore(), 1, (count,))[0].launch for count in (0, 1)}
    assert len(launches) == 2
    assert started(dist.HashStore(), 1, (1,))[0].again  # the agent says so, the store is new


def test_start__rank_that_never_comes_is_named(monkeypatch):
    monkeypatch.setattr(rendezvous, "COLLECTIVE_TIMEOUT", rendezvous.COLLECTIVE_TIMEOUT * 0)
    with pytest.raises(UserError, match="rank 1 has not come"):
        agree_on_start(dist.HashStore(), 0, 2)


@pytest.mark.parametrize("hosts", [{}, {"node7": "127.0.1.1"}, {"node7": "192.0.2.7"}])
def test_gloo__host_name_that_other_nodes_cannot_reach_is_refused(monkeypatch, hosts):
    hosts = hosts | {"master": "192.0.2.1"}
    monkeypatch.setattr(socket, "gethostname", lambda: "node7")
    monkeypatch.setattr(rendezvous, "address_of", hosts.get)
    with pytest.raises(UserError, match=r"node7 stands for .* export GLOO_SOCKET_IFNAME=") as caught:
        check_gloo_address("master")
    assert (hosts.get("node7") or "no address") in str(caught.value)


def test_gloo__own_address_and_a_single_machine_are_taken(monkeypatch):
    monkeypatch.setattr(rendezvous, "address_of", {"node7": "192.0.2.7", "master": "192.0.2.1"}.get)
    monkeypatch.setattr(rendezvous, "is_own", lambda address: address == "192.0.2.7")
    monkeypatch.setattr(socket, "gethostname", lambda: "node7")
    check_gloo_address("master")
    monkeypatch.undo()
    check_gloo_address("localhost")


def test_interface__towards_this_machine_is_the_loopback_interface():
    assert interface_towards("127.0.0.1") == "lo"
    assert interface_towards("no such name") is None
