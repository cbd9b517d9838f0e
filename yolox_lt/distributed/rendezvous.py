"""How the processes of a run find each other: torchrun's store through restarts, and the address that gloo takes."""

from __future__ import annotations

import fcntl
import socket
import struct
import time
import uuid
from dataclasses import dataclass

import torch.distributed as dist

from yolox_lt.distributed.collectives import COLLECTIVE_TIMEOUT
from yolox_lt.errors import UserError

SIOCGIFADDR = 0x8915
"""Linux's request for the IPv4 address of a network interface (man 7 netdevice)."""


@dataclass(frozen=True)
class Start:
    """One start of the processes by a launcher.

    prefix: of this start's keys in the store. launch: the same for all starts by the same launcher. again: the launcher
    has started this run before.
    """

    prefix: str
    launch: str
    again: bool


def agree_on_start(store: dist.Store, rank: int, world: int, restarts: int = 0) -> Start:
    """What this start of the processes is called; all ranks call it together.

    torchrun's store outlives a restart, with the addresses of the processes before in it. A count of restarts does not
    tell the starts apart: every node's agent has its own, and a node that joins again counts as none.

    Args:
        store: of the launcher. restarts: what this node's agent has counted.

    Raises:
        UserError: a rank does not come.
    """
    own = uuid.uuid4().hex
    if rank > 0:
        store.set(f"start/asked/{rank}", own)
        prefix = store.get(f"start/answer/{own}").decode()  # waits for rank 0
        store.set(f"start/taken/{prefix}/{rank}", "1")
    else:
        prefix = own
        store.compare_set("start/launch", "", own)
        store.set(f"start/number/{own}", str(store.add("start/count", 1)))
        missing, end = set(range(1, world)), time.monotonic() + COLLECTIVE_TIMEOUT.total_seconds()
        # What was asked may be of a process before, so the answer is given until its rank has taken it.
        while missing:
            for other in sorted(missing):
                if store.check([f"start/asked/{other}"]):
                    store.set(f"start/answer/{store.get(f'start/asked/{other}').decode()}", own)
                if store.check([f"start/taken/{own}/{other}"]):
                    missing.discard(other)
            if missing and time.monotonic() > end:
                raise UserError(f"rank {min(missing)} has not come within {COLLECTIVE_TIMEOUT}; start all nodes again")
            time.sleep(0.01)
    number = int(store.get(f"start/number/{prefix}"))
    return Start(prefix, store.get("start/launch").decode(), number > 1 or restarts > 0)


def check_gloo_address(master: str) -> None:
    """Refuse to start on several nodes where gloo would tell the others an address that they cannot reach.

    Without GLOO_SOCKET_IFNAME gloo takes the address of this machine's host name, or the loopback address where that
    is none of this machine's.

    Args:
        master: name or address of rank 0's machine; a loopback address means that all "nodes" are one machine.

    Raises:
        UserError: it would be the loopback address.
    """
    if is_loopback(address_of(master)):
        return
    name = socket.gethostname()
    address = address_of(name)
    if address is not None and not is_loopback(address) and is_own(address):
        return
    found = interface_towards(master)
    raise UserError(
        f"the host name {name} stands for {address or 'no address'}, so other nodes would get the loopback address "
        f"of this one; export GLOO_SOCKET_IFNAME={found or 'NAME'} on every node, the network interface that leads to "
        f"{master} (`ip -br address` lists them)"
    )


def address_of(name: str) -> str | None:
    """First IPv4 address of a host name, None where it has none."""
    try:
        return str(socket.getaddrinfo(name, None, socket.AF_INET)[0][4][0])
    except OSError:
        return None


def is_loopback(address: str | None) -> bool:
    """Whether an IPv4 address leads to the same machine."""
    return address is not None and address.startswith("127.")


def is_own(address: str) -> bool:
    """Whether the address belongs to an interface of this machine."""
    with socket.socket() as s:
        try:
            s.bind((address, 0))
        except OSError:
            return False
    return True


def interface_towards(host: str) -> str | None:
    """The network interface by which packets to `host` leave, None where that cannot be told."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        try:
            s.connect((host, 9))  # a datagram socket sends nothing for that
            own = s.getsockname()[0]
        except OSError:
            return None
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(s.fileno(), SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:
                continue  # an interface without an IPv4 address
            if socket.inet_ntoa(answer[20:24]) == own:
                return name
    return None
