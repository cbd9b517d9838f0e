"""Two ranks in trouble: none waits for ever, all say why they end, what one lacks counts as nothing."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pytest
import torch

from tests.processes import run_script
from tests.tiny import tiny_exp
from tests.train.rank_cases import GLYPHS
from yolox_lt.checkpoint import load_checkpoint
from yolox_lt.data.sampling.sampler import epoch_permutation, share
from yolox_lt.distributed.collectives import batchnorm_statistics
from yolox_lt.distributed.signals import EXIT_STATUS
from yolox_lt.train.engine import Trainer
from yolox_lt.train.options import TrainOptions

pytestmark = pytest.mark.xdist_group("ranks")

SECONDS = 30.0
"""Within which a rank ends after another one has."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    done = run_script("tests.train.rank_cases", folder)
    assert done.returncode == 0, done.stderr
    return folder


def noted(folder, name):
    """What ranks 0 and 1 noted, None for one that was killed."""
    paths = [folder / f"{name}_{rank}.json" for rank in (0, 1)]
    return [json.loads(path.read_text()) if path.exists() else None for path in paths]


@pytest.mark.parametrize("name", ["Killed", "Failing"])
def test_lost_rank__the_other_ends_in_time_with_a_message(folder, name):
    other, lost = noted(folder, name)
    assert other["status"] == 1
    assert other["message"].startswith("another rank has ended or does not answer (")
    assert "the last checkpoint is complete, continue with --resume" in other["message"]
    assert other["end"] - float((folder / name / "moment").read_text()) < SECONDS
    if name == "Killed":
        assert lost is None
    else:
        assert "callback on_iteration_end of tiny failed: ValueError: no such thing" in lost["message"]
    assert load_checkpoint(folder / name / "tiny/latest.pth")["iteration"] == 0


def test_empty_shard__of_an_evaluation_is_scored_as_nothing(folder):
    assert [rank["status"] for rank in noted(folder, "EmptyShard")] == [0, 0]
    content = load_checkpoint(folder / "EmptyShard/tiny/latest.pth")
    assert (content["epoch"], content["iteration"]) == (1, 2)
    assert math.isfinite(content["metrics"]["AP"])


def test_long_evaluation__on_rank_0_is_waited_for(folder):
    """It takes 1.5 times as long as a collective may take."""
    assert [rank["status"] for rank in noted(folder, "LongEvaluation")] == [0, 0]
    assert load_checkpoint(folder / "LongEvaluation/tiny/latest.pth")["epoch"] == 1


def test_rank_without_positives__adds_zeros(folder):
    full, empty = noted(folder, "NoPositives")
    assert full["status"] == empty["status"] == 0
    assert empty["losses"]["box"] == empty["losses"]["quality"] == 0
    assert math.isfinite(empty["losses"]["cls"])
    ((pos, neg),), ((no_pos, more_neg),) = full["contributions"], empty["contributions"]
    assert not any(no_pos)
    assert any(pos)
    for rank in (full, empty):
        assert rank["pos_grad"] == torch.tensor(pos).tolist()  # rounded to float32, nothing added
        torch.testing.assert_close(torch.tensor(rank["neg_grad"]), torch.tensor(neg) + torch.tensor(more_neg))
    assert full["weights"] == empty["weights"]


def test_accumulation__over_ranks_counts_the_statistic_once_a_step(folder):
    ranks = noted(folder, "Accumulating")
    assert [rank["status"] for rank in ranks] == [0, 0]
    assert [rank["commits"] for rank in ranks] == [2, 2]
    assert [len(rank["contributions"]) for rank in ranks] == [4, 4]  # two steps of two batches
    total = torch.tensor([rank["contributions"] for rank in ranks]).double().sum(dim=(0, 1))  # [2, C]
    for rank in ranks:
        torch.testing.assert_close(
            torch.tensor([rank["pos_grad"], rank["neg_grad"]]).double(), total, rtol=1e-6, atol=0
        )
    assert ranks[0]["weights"] == ranks[1]["weights"]


def test_skip__a_loss_that_is_not_finite_on_one_rank_leaves_the_step_out_on_both(folder):
    ranks = noted(folder, "Skipping")
    assert [rank["status"] for rank in ranks] == [0, 0]
    assert [rank["commits"] for rank in ranks] == [[1, 1, 2, 3]] * 2
    assert ranks[0]["weights"] == ranks[1]["weights"]
    assert math.isfinite(ranks[0]["weights"])


def test_stop__asked_of_one_rank_stops_both_after_the_same_step(folder):
    assert [rank["status"] for rank in noted(folder, "Asked")] == [EXIT_STATUS] * 2
    content = load_checkpoint(folder / "Asked/tiny/latest.pth")
    assert (content["iteration"], content["epoch"], len(content["ranks"])) == (2, 0, 2)
    # Inside an epoch the ranks have their own BatchNorm statistics.
    a, b = (rank["buffers"] for rank in content["ranks"])
    assert any(not torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_first_start__rank_0_alone_parses_the_annotations(folder):
    main, other = noted(folder, "FirstStart")
    assert main["status"] == other["status"] == 0
    assert main["parsed"] == ["unread_train.json", "unread_val.json"]
    assert other["parsed"] == []
    assert other["found"]
    assert all(other["found"])


class Noting(Trainer):
    """Keeps the ids of the images of every step."""

    def batches(self, *position):
        self.seen: list[int] = []
        for batch in super().batches(*position):
            self.seen += batch.image_ids.tolist()
            yield batch


def test_resume__of_two_ranks_with_one_draws_what_they_left(folder, tmp_path):
    shutil.copytree(folder / "Asked/tiny", tmp_path / "tiny")
    content = load_checkpoint(tmp_path / "tiny/latest.pth")
    exp = tiny_exp(folder / "data", tmp_path, max_epoch=1, **GLYPHS)
    started = []
    exp.on_train_start = lambda trainer: started.extend(t.clone() for t in batchnorm_statistics(trainer.model))
    trainer = Noting(exp, TrainOptions(4, resume=True))
    trainer.train()
    a, b = (rank["buffers"] for rank in content["ranks"])
    assert len(started) > 0
    for own, x, y in zip(started, a, b):  # those of the average come after those of the model
        torch.testing.assert_close(own, (x + y) / 2)
    ids = trainer.run.data.index.image_ids[trainer.run.data.dataset.images]
    order = epoch_permutation(trainer.run.data.factors, 0, 0)
    blocks = [share(order, rank, 2)[:4] for rank in (0, 1)]  # two steps of two images on each rank
    before = ids[np.concatenate(blocks)].tolist()
    assert len(trainer.seen) == 8 * 4
    assert len({*before, *trainer.seen}) == len(before) + len(trainer.seen) == 40  # of 137 in the pass
    content = load_checkpoint(tmp_path / "tiny/latest.pth")
    assert content["deals"] == [[2, 2, 2], [1, 4, 8]]
    assert (content["epoch"], content["iteration"], content["sampler_position"]) == (1, 10, 40)
