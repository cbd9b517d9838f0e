"""The training loop: one optimiser step after the other, evaluation, checkpoints.

Everything that depends on where in a run one is (batches, learning rate, input size) is a function of the iteration,
so a run continues from a checkpoint exactly as if it had never stopped. The parts of the trainer, each on top of the
one before: `build` (what a run is made of), `state` (checkpoint and back), `step`, `epoch` (its end), and this loop.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from loguru import logger

from yolox_lt.data.sampling.sampler import SampleSampler, resume_stream
from yolox_lt.distributed.processes import any_rank, control_group, lost_rank, object_group
from yolox_lt.distributed.signals import Stopped, StopSignals
from yolox_lt.errors import UserError
from yolox_lt.train.callbacks import call
from yolox_lt.train.epoch import TrainerEpoch
from yolox_lt.train.follow import ReportCallback
from yolox_lt.train.log import RunLog, memory_megabytes
from yolox_lt.train.memory import keep_large_blocks
from yolox_lt.train.run_description import describe_run, write_config
from yolox_lt.types import Batch


class Trainer(TrainerEpoch):
    """Trains one experiment. `train()` does everything; the other methods are its steps.

    early: batches whose loader processes have started before the model was built.
    """

    early: Iterator[Batch] | None = None

    def train(self) -> None:
        """Run from the start, or from where the checkpoint stopped, to the end.

        Raises:
            Stopped: a signal of `stop_signals` came; latest.pth holds everything that was done.
        """
        if self.exp.nonfinite not in ("stop", "skip"):
            raise UserError(f"nonfinite {self.exp.nonfinite!r} is unknown; choose one of stop, skip")
        with StopSignals(self.exp.stop_signals) as self.stop:
            try:
                self.prepare()
                self.run()
                call(self.exp, "on_train_end", self)
            except Stopped:
                self.say_stopped()
                raise
            except RuntimeError as error:
                if self.stop.received is not None and self.saved:  # another rank went first, in an evaluation
                    self.say_stopped()
                    raise Stopped from error
                if self.process.world_size > 1 and lost_rank(error):
                    raise UserError(
                        f"another rank has ended or does not answer ({str(error).splitlines()[0]}); the last "
                        "checkpoint is whole, continue with --resume"
                    ) from error
                raise
            finally:
                self.early = None  # loader processes end with their iterator, and not by signals
                # The checkpoint is whole by now, so an interrupted run gets its last images too.
                if hasattr(self, "follower"):
                    self.follower.finish()
                if hasattr(self, "log"):
                    self.log.close()

    def prepare(self) -> None:
        """Everything up to the first step."""
        self.objects, self.control = object_group(), control_group()
        checkpoint = self.read_checkpoint()
        self.choose_seed(checkpoint)
        self.build_data()
        # Loader processes make the first batch of a new run while the rest is built; forking is safest before CUDA too.
        self.early = None if self.resuming else self.batches()
        if self.device.type == "cpu":
            keep_large_blocks()  # of this process: loader processes need only small ones
        self.build_model()
        if checkpoint is not None:
            self.restore(checkpoint)
        else:
            self.load_pretrained()
        epoch = self.progress.epochs
        main_folder = self.folder if self.process.is_main else None
        rows = checkpoint["log_rows"] if self.resuming and checkpoint is not None else None
        self.log = RunLog(main_folder, epoch, self.iteration, self.total, rows)
        if self.process.is_main:
            summary = describe_run(
                self.exp, self.model, self.dataset, self.factors, self.epoch_iterations, self.options
            )
            write_config(self.folder / "config.json", self.exp, self.options)
            self.follower = ReportCallback(
                self.exp, self.folder, summary, self.evaluator, self.criterion.cls_loss, epoch
            )
        call(self.exp, "on_train_start", self)

    def batches(self) -> Iterator[Batch]:
        exp, process, accumulate = self.exp, self.process, self.exp.accumulate
        stream = exp.get_sampler(self.factors, self.seed, process.rank, process.world_size)
        sampler = SampleSampler(
            resume_stream(stream, self.progress.segments, self.groups),
            self.micro_batch,
            self.iteration * accumulate,
            self.total * accumulate,
            self.no_aug_start * accumulate,
            self.groups,
            self.progress.segment.batches,
        )
        return iter(exp.get_data_loader(self.dataset, sampler, self.device.type == "cuda"))

    def run(self) -> None:
        """The steps and the ends of epochs that are left."""
        batches, self.early = self.early or self.batches(), None
        self.model.train()
        if not self.saved:
            self.save()  # a run can be resumed from its first moment
        self.stop.at_once = False
        mark = window_start = time.perf_counter()
        steps = 0  # since the last printed line
        while self.iteration < self.total or self.progress.open.steps:
            self.stop_if_asked()
            if self.progress.open.steps and self.iteration % self.epoch_iterations == 0:
                self.end_epoch()
                mark = window_start = time.perf_counter()
                steps = 0
                continue
            if self.iteration >= self.no_aug_start and self.exp.l1 == "tail":
                self.criterion.use_l1 = True
            losses, lr = self.step(batches)
            done = self.iteration
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
            self.log.step(done - 1, values)
            if self.process.is_main:
                self.follower.step(done, values)
            call(self.exp, "on_iteration_end", self, losses)
            now = time.perf_counter()
            self.progress.open.seconds += now - mark
            mark = now
            interval = self.exp.checkpoint_interval
            if interval is not None and done % interval == 0 and done % self.epoch_iterations:
                self.save()

    def stop_if_asked(self) -> None:
        """Between two steps, all ranks together: save and end if a signal has asked any of them to."""
        if any_rank(self.stop.received is not None, self.control):
            if not self.saved:
                self.save()
            raise Stopped

    def say_stopped(self) -> None:
        if self.process.is_main:
            asked = self.stop.received.name if self.stop.received is not None else "another rank"
            total = getattr(self, "total", 0)
            logger.info(f"stopped by {asked} after iteration {self.iteration} of {total}; continue with --resume")
