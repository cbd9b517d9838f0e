"""What the ranks exchange beside DDP's gradients."""

from __future__ import annotations

import datetime
import socket
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

COLLECTIVE_TIMEOUT = datetime.timedelta(minutes=10)
"""How long a rank waits for the others inside a step, before it ends with an error."""

EVALUATION_TIMEOUT = datetime.timedelta(hours=12)
"""How long a rank waits for rank 0 to score and save: longer than any evaluation."""

T = TypeVar("T")


class RankGroups(NamedTuple):
    """Process groups beside the one that reduces gradients; None for a single process.

    objects: gloo with a long time-out, for Python objects. control: gloo with the time-out of a step, for what the
    ranks decide together between two steps.
    """

    objects: dist.ProcessGroup | None
    control: dist.ProcessGroup | None


def rank_groups() -> RankGroups:
    """Make both groups; all ranks call it together."""
    if world_size() == 1:
        return RankGroups(None, None)
    objects = dist.new_group(backend="gloo", timeout=EVALUATION_TIMEOUT)
    is_gloo = dist.get_backend() == "gloo"
    control = dist.group.WORLD if is_gloo else dist.new_group(backend="gloo", timeout=COLLECTIVE_TIMEOUT)
    assert isinstance(objects, dist.ProcessGroup)  # every rank is a member
    assert isinstance(control, dist.ProcessGroup)
    return RankGroups(objects, control)


def world_size() -> int:
    """Ranks of this run, 1 outside a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def batchnorm_statistics(model: nn.Module) -> list[Tensor]:
    """Running mean and variance of every BatchNorm."""
    tensors: list[Tensor] = []
    for module in model.modules():
        if isinstance(module, _BatchNorm) and module.running_mean is not None and module.running_var is not None:
            tensors += [module.running_mean, module.running_var]
    return tensors


def average_batchnorm(model: nn.Module) -> None:
    """Average the running statistics of every BatchNorm over the ranks, as released, before an evaluation."""
    tensors = batchnorm_statistics(model)
    if world_size() == 1 or not tensors:
        return
    flat = torch.cat([t.flatten() for t in tensors])
    dist.all_reduce(flat)
    flat /= world_size()
    first = 0
    for t in tensors:
        t.copy_(flat[first : first + t.numel()].view_as(t))
        first += t.numel()


def any_rank(value: bool, group: dist.ProcessGroup | None) -> bool:
    """Whether `value` is true on any rank; the same answer on all."""
    if group is None:
        return value
    flag = torch.tensor(value, dtype=torch.uint8)
    dist.all_reduce(flag, dist.ReduceOp.MAX, group=group)
    return bool(flag)


def lost_rank(error: RuntimeError) -> bool:
    """Whether the error says that another rank is gone or does not answer."""
    signs = (
        "Connection closed by peer",
        "Connection reset by peer",
        "Connection refused",
        "Timed out",
        "gloo/transport",
    )
    return isinstance(error, dist.DistError) or any(sign in str(error) for sign in signs)


def gather_to_main(value: Any, group: dist.ProcessGroup | None) -> list[Any] | None:
    """The values of all ranks in rank order on rank 0, None elsewhere."""
    if group is None:
        return [value]
    gathered: list[Any] | None = [None] * world_size() if dist.get_rank() == 0 else None
    dist.gather_object(value, gathered, dst=0, group=group)
    return gathered


def broadcast(value: Any, group: dist.ProcessGroup | None) -> Any:
    """Rank 0's value on every rank."""
    if group is None:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, group=group)
    return box[0]


def main_first(function: Callable[[], T], group: dist.ProcessGroup | None) -> T:
    """Call `function` on rank 0, then on the first rank of every other machine, then on the rest.

    For what is written to disk by the first who needs it, like the index of annotations: rank 0 makes it, and the
    others find it, on other machines too where they see the same disk.
    """
    if group is None:
        return function()
    hosts: list[Any] = [None] * world_size()
    dist.all_gather_object(hosts, socket.gethostname(), group=group)
    rank = dist.get_rank()
    turn = 0 if rank == 0 else 1 if hosts.index(hosts[rank]) == rank else 2
    for now in range(3):
        if now == turn:
            result = function()
        dist.barrier(group=group)
    return result
