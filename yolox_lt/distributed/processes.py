"""Processes: who we are, and how the others are started.

The only place besides the data root that reads environment variables: RANK, LOCAL_RANK, WORLD_SIZE,
LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT and TORCHELASTIC_RESTART_COUNT as set by torchrun, or SLURM_PROCID,
SLURM_LOCALID, SLURM_NTASKS and SLURM_NTASKS_PER_NODE as set by srun, and GLOO_SOCKET_IFNAME.
"""

from __future__ import annotations

import gc
import importlib
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from yolox_lt.distributed.collectives import COLLECTIVE_TIMEOUT
from yolox_lt.distributed.rendezvous import agree_on_start, check_gloo_address
from yolox_lt.distributed.signals import EXIT_STATUS, Stopped, passing_on
from yolox_lt.errors import UserError


@dataclass(frozen=True)
class ProcessInfo:
    """One process of a run.

    device: where its model lives. launch: the same through all restarts by torchrun's agent, empty without it.
    restarted: the agent has started this run before.
    """

    rank: int
    world_size: int
    device: torch.device
    launch: str = ""
    restarted: bool = False

    @property
    def is_main(self) -> bool:
        """Whether this process is rank 0, which writes and says."""
        return self.rank == 0


def launched_externally(devices: int | None = None) -> bool:
    """Whether torchrun or SLURM started several processes of this program, of which this is one.

    Args:
        devices: the number given with -d, None without. It wins over the environment, but for torchrun's.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return True
    return devices is None and world_variable() is not None


def world_variable() -> str | None:
    """Name of the environment variable that says that there are several processes; None for one."""
    if "RANK" in os.environ:
        return "WORLD_SIZE" if int(os.environ.get("WORLD_SIZE", "1")) > 1 else None
    in_srun = "SLURM_STEP_ID" in os.environ and int(os.environ.get("SLURM_NTASKS", "1")) > 1
    return "SLURM_NTASKS" if in_srun else None


def pick_device(name: str | None, local_rank: int) -> torch.device:
    """The device of this process: `name` if given, else a GPU if there is one, else the CPU."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: this machine has no CUDA GPU; use --device cpu or leave the option out")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    visible = torch.cuda.device_count()
    if visible == 1:  # a launcher that shows each process its own GPU
        return torch.device("cuda", 0)
    if local_rank >= visible:
        raise UserError(
            f"process {local_rank} of this machine has no GPU, there are {visible}; start {visible} processes"
        )
    return torch.device("cuda", local_rank)


EXTERNAL = 0
"""In place of a number of processes to start: they are started already."""


def count_processes(devices: int | None, device: str | None = None) -> int:
    """Processes to start for `-d N` (None: all GPUs, or one process without any); EXTERNAL if torchrun or SLURM did.

    Raises:
        UserError: more processes asked for than there are GPUs.
    """
    if launched_externally(devices):
        return EXTERNAL
    gpus = 0 if device == "cpu" else torch.cuda.device_count()
    if devices is None:
        return max(gpus, 1)
    if devices < 1:
        raise UserError(f"-d {devices}: give at least 1 device")
    if gpus and devices > gpus:
        raise UserError(f"-d {devices}: this machine has {gpus} GPU{'s' if gpus > 1 else ''}; use -d {gpus}")
    cores = os.cpu_count() or 1
    if not gpus and devices > cores:
        raise UserError(
            f"-d {devices}: this machine has no GPU and {cores} CPU cores; use -d 1 to train on the CPU "
            f"(up to -d {cores}), or run on a machine with {devices} GPUs"
        )
    return devices


def launch(
    function: Callable[..., None],
    devices: int,
    device: str | None,
    args: tuple[Any, ...],
    stop_signals: Sequence[str] = (),
) -> None:
    """Run function(process, *args) in `devices` processes, or in those that torchrun or SLURM has started (EXTERNAL).

    Signals named in `stop_signals` are passed on to the processes started here.

    Raises:
        Stopped: a process was asked to stop and has saved.
        UserError: a process was killed, or failed with one.
    """
    if devices == EXTERNAL:
        rank = int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")))
        world = int(os.environ.get("WORLD_SIZE", os.environ.get("SLURM_NTASKS", "1")))
        local = int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")))
        if "MASTER_ADDR" not in os.environ or "MASTER_PORT" not in os.environ:
            raise UserError(
                f"{world_variable()} says that this is one of {world} processes, but MASTER_ADDR or MASTER_PORT is not "
                "set; give -d 1 for a process of its own, or export both of the first node, or use torchrun"
            )
        _run(local, function, rank, world, "env://", device, args)
    elif devices == 1:
        _run(0, function, 0, 1, None, device, args)
    else:
        url = f"tcp://127.0.0.1:{free_port()}"
        context = torch.multiprocessing.spawn(
            _spawned, (function, devices, url, device, args), nprocs=devices, join=False
        )
        with passing_on(stop_signals, context.pids()):
            _join(context)


def _join(context: torch.multiprocessing.ProcessContext) -> None:
    """Wait for all processes. When one fails the others get SIGTERM, and SIGKILL 30 seconds later."""
    try:
        while not context.join():
            pass
    except torch.multiprocessing.ProcessExitedException as error:
        if any(process.exitcode == EXIT_STATUS for process in context.processes):
            raise Stopped from error
        how = f"was ended by {error.signal_name}" if error.signal_name else f"ended with status {error.exit_code}"
        raise UserError(
            f"rank {error.error_index} {how}, so the others were ended; look for a full memory, "
            "then continue with --resume"
        ) from error


def _spawned(rank: int, function: Callable[..., None], world: int, url: str, device: str | None, args: tuple) -> None:
    # Processes that share CPU cores would otherwise each start as many threads as there are cores.
    if device == "cpu" or not torch.cuda.is_available():
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // world))
    _run(rank, function, rank, world, url, device, args)


def _run(
    local_rank: int,
    function: Callable[..., None],
    rank: int,
    world: int,
    url: str | None,
    device: str | None,
    args: tuple,
) -> None:
    chosen = pick_device(device, local_rank)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if url is None:
        function(ProcessInfo(rank, world, chosen), *args)
        return
    if url == "env://" and world > processes_here(world) and "GLOO_SOCKET_IFNAME" not in os.environ:
        check_gloo_address(os.environ["MASTER_ADDR"])
    # Its functions take the default group as the default of an argument. Imported after the group is made, by a module
    # that needs it, they would hold the group for ever.
    importlib.import_module("torch.distributed.nn.functional")
    backend = "nccl" if chosen.type == "cuda" else "gloo"
    store, rank, world = next(rendezvous(url, rank, world, timeout=COLLECTIVE_TIMEOUT))
    start = agree_on_start(store, rank, world, int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")))
    store = dist.PrefixStore(f"start/{start.prefix}", store)
    dist.init_process_group(backend, timeout=COLLECTIVE_TIMEOUT, store=store, rank=rank, world_size=world)
    function(ProcessInfo(rank, world, chosen, start.launch, start.again), *args)
    # A group ends with its last reference. Threads of gloo that live on while Python ends can abort the process, after
    # all its work is done.
    gc.collect()
    # Only after success: tearing NCCL down waits for ranks that an error here has left inside a collective.
    dist.destroy_process_group()


def processes_here(world: int) -> int:
    """Processes of this run on this machine as the launcher says; all `world` of them where it says nothing."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("SLURM_NTASKS_PER_NODE", world)))


def free_port() -> int:
    """A TCP port that is free on this machine at the moment."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def use_fast_products(device: torch.device, tf32: bool, fixed_size: bool) -> None:
    """How this process multiplies float32 numbers on a GPU; nothing changes on a CPU.

    Args:
        tf32: products of matrices and convolutions with mantissas of 10 bits, summed in float32 (Ampere and later).
            PyTorch does so for convolutions alone; the classifier is a product of matrices.
        fixed_size: images of one size come again and again: cuDNN measures once which convolution is fastest.
    """
    if device.type != "cuda":
        return
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = fixed_size and not torch.are_deterministic_algorithms_enabled()


def use_deterministic_algorithms() -> None:
    """Let this process compute the same from the same; PyTorch raises an error for an operation that cannot."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read by cuBLAS at its first use
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
