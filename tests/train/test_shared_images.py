"""Decoded images of --cache, once for the ranks of a machine; warnings of all ranks in one log."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import torch
from loguru import logger

from tests.processes import start_ranks
from tests.tiny import tiny_exp
from yolox_lt.data.dataset import ImageStore
from yolox_lt.distributed.processes import ProcessInfo, free_port
from yolox_lt.train.callbacks.report import ReportCallback
from yolox_lt.train.engine import Trainer
from yolox_lt.train.options import TrainOptions


class Caching(Trainer):
    """Notes what the ranks have in memory, and lets each of them warn."""

    def prepare(self):
        super().prepare()
        store = self.run.data.dataset.store
        rank, decoded = self.options.process.rank, list(self.decoded)
        logger.warning(f"this is {rank}")
        maps = {line.split()[-2] for line in Path("/proc/self/maps").read_text().splitlines() if "yolox_lt-" in line}
        fresh = ImageStore(store.index, store.data_dir, store.folder)
        same = all(np.array_equal(store.memory[i], fresh.read(i)) for i in range(0, len(store.index), 50))
        noted = {"count": len(store.memory), "same": same, "maps": sorted(maps), "decoded": decoded}
        Path(self.exp.output_dir, f"{rank}.json").write_text(json.dumps(noted))


def cached_rank(rank, port, data, output):
    ReportCallback.write_report = lambda self: None
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    read, reads = ImageStore.read, []
    ImageStore.read = lambda self, position: (position in self.memory or reads.append(position), read(self, position))[
        1
    ]
    exp = tiny_exp(data, output, max_epoch=1, max_iter=1, data_num_workers=0)
    trainer = Caching(exp, TrainOptions(4, ProcessInfo(rank, 2, torch.device("cpu")), cache=True))
    trainer.decoded = reads
    trainer.train()


def test_cache__is_decoded_by_one_rank_and_mapped_by_the_other(data, tmp_path):
    (tmp_path / "tiny").mkdir()
    start_ranks(cached_rank, (free_port(), data, tmp_path), 2)
    noted = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert [n["count"] for n in noted] == [360, 360]
    assert noted[0]["same"]
    assert noted[1]["same"]
    assert len(noted[0]["maps"]) == 1
    assert noted[0]["maps"] == noted[1]["maps"]
    assert (len(noted[0]["decoded"]), noted[1]["decoded"]) == (360, [])
    assert not Path(noted[0]["maps"][0]).exists()  # nothing is left behind
    log = (tmp_path / "tiny/train.log").read_text()
    assert "| WARNING | this is 0" in log
    assert "| WARNING | rank 1: this is 1" in log
