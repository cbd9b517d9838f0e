"""Ranks end with their work: no thread of a process group is left when Python ends."""

import atexit
import functools
import sys
from pathlib import Path

import torch.distributed as dist

from yolox_lt.distributed.collectives import gather_to_main, rank_groups
from yolox_lt.distributed.processes import launch


def thread_names() -> list[str]:
    return [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]


def write_threads(folder: Path, rank: int) -> None:
    (folder / f"end{rank}").write_text("\n".join(thread_names()))


def work(process, folder: Path) -> None:
    """Does what holds a group: an import that takes it as a default, and objects that refer to each other."""
    atexit.register(functools.partial(write_threads, folder, process.rank))
    groups = rank_groups()
    assert "torchvision" not in sys.modules
    import torchvision  # noqa: F401

    circle: list[object] = [groups]
    circle.append(circle)
    gathered = gather_to_main(process.rank, groups.objects)
    (folder / f"start{process.rank}").write_text("\n".join([str(gathered), *thread_names()]))
    assert dist.is_initialized()


def test_ranks__leave_no_thread_of_a_group(tmp_path):
    launch(work, 2, "cpu", (tmp_path,))
    starts = [(tmp_path / f"start{rank}").read_text().split("\n") for rank in (0, 1)]
    assert [start[0] for start in starts] == ["[0, 1]", "None"]
    for rank, start in enumerate(starts):
        assert [name for name in start if "gloo" in name], "no names of threads to compare with"
        end = (tmp_path / f"end{rank}").read_text().split("\n")
        assert [name for name in end if "gloo" in name] == []
