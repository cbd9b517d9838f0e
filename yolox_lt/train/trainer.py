"""The training loop: one optimiser step after the other, evaluation, checkpoints.

Everything that depends on where in a run one is (batches, learning rate, input size) is a function of the iteration,
so a run continues from a checkpoint exactly as if it had never stopped. The parts of the trainer, each on top of the
one before: `build` (what a run is made of), `state` (checkpoint and back), `step`, `epoch` (its end), and this loop.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from yolox_lt.data.sampler import DrawSampler
from yolox_lt.train.callbacks import call
from yolox_lt.train.dist import object_group
from yolox_lt.train.epoch import TrainerEpoch
from yolox_lt.train.follow import Follower
from yolox_lt.train.log import RunLog, memory_megabytes
from yolox_lt.train.record import describe_run, write_config
from yolox_lt.types import Batch


class Trainer(TrainerEpoch):
    """Trains one experiment. `train()` does everything; the other methods are its steps."""

    def train(self) -> None:
        """Run from the start, or from where the checkpoint stopped, to the end."""
        self.objects = object_group()
        checkpoint = self.read_checkpoint()
        self.choose_seed(checkpoint)
        self.build_data()
        self.build_model()
        if checkpoint is not None:
            self.restore(checkpoint)
        else:
            self.load_pretrained()
        epoch = self.iteration // self.epoch_iterations
        main_folder = self.folder if self.place.is_main else None
        self.log = RunLog(main_folder, epoch, self.iteration, self.total)
        if self.place.is_main:
            describe_run(self.exp, self.model, self.train_index, self.factors, self.epoch_iterations, self.options)
            write_config(self.folder / "config.json", self.exp, self.options)
            self.follower = Follower(
                self.exp, self.folder, self.train_index, self.evaluator, self.criterion.cls_loss, epoch
            )
        try:
            call(self.exp, "on_train_start", self)
            self.run()
            if self.place.is_main:
                self.follower.finish()
            call(self.exp, "on_train_end", self)
        finally:
            self.log.close()

    def batches(self) -> Iterator[Batch]:
        stream = self.exp.get_sampler(self.factors, self.seed, self.place.rank, self.place.world)
        accumulate = self.exp.accumulate
        sampler = DrawSampler(
            stream,
            self.micro_batch,
            self.iteration * accumulate,
            self.total * accumulate,
            self.plain_from * accumulate,
            self.groups,
        )
        return iter(self.exp.get_data_loader(self.dataset, sampler, self.device.type == "cuda"))

    def run(self) -> None:
        batches = self.batches()
        self.model.train()
        self.sums: dict[str, float] = {}
        self.bad_images: dict[str, int] = {}
        epoch_start = window_start = time.perf_counter()
        steps = 0  # since the last printed line
        while self.iteration < self.total:
            if self.iteration >= self.plain_from and self.exp.l1 == "tail":
                self.criterion.use_l1 = True
            losses, lr = self.step(batches)
            done = self.iteration + 1
            values = None
            steps += 1
            if done % self.exp.print_interval == 0 or done == self.total:
                now = time.perf_counter()
                values = {
                    "epoch": (done - 1) // self.epoch_iterations + 1,
                    **losses,
                    "lr": lr,
                    "images/s": steps * self.options.batch_size / (now - window_start),
                    "memory_MB": memory_megabytes(self.device),
                }
                window_start, steps = now, 0
            self.log.step(self.iteration, values)
            self.iteration = done
            if self.place.is_main:
                self.follower.step(done, values)
            call(self.exp, "on_iteration_end", self, losses)
            if done % self.epoch_iterations == 0:
                self.end_epoch(lr, time.perf_counter() - epoch_start)
                epoch_start = window_start = time.perf_counter()
                steps = 0
