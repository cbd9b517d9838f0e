"""The training: the step, the loop over steps, the end of an epoch.

Everything that depends on where in a run one is (batches, learning rate, input size) is a function of the iteration,
so a run continues from a checkpoint exactly as if it had never stopped. What is not a step (log, history of the
balance, trackers, report, checkpoints, an experiment's own functions) is a callback.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Iterator

import torch
from loguru import logger
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from yolox_lt.data.sampling.sampler import SamplerSegment
from yolox_lt.distributed.collectives import (
    any_rank,
    batchnorm_statistics,
    broadcast,
    lost_rank,
    main_first,
    rank_groups,
)
from yolox_lt.distributed.signals import Stopped, StopSignals
from yolox_lt.errors import UserError
from yolox_lt.evaluate.metrics import Report
from yolox_lt.exp.agreement import adopt_weights
from yolox_lt.exp.detection import DetectorExp
from yolox_lt.report.analysis.category_thresholds import category_thresholds
from yolox_lt.train.build import build_batches, build_data, build_run, choose_seed, micro_batch_size
from yolox_lt.train.callbacks.callback import Callback, ExpCallback
from yolox_lt.train.callbacks.checkpoints import Checkpoints
from yolox_lt.train.callbacks.log import RankWarnings, RunLog
from yolox_lt.train.callbacks.writers import make_writers
from yolox_lt.train.memory import keep_large_blocks
from yolox_lt.train.meter import IntervalMeter, epoch_record
from yolox_lt.train.nonfinite import NonFiniteGuard
from yolox_lt.train.options import TrainOptions
from yolox_lt.train.prior import prior_line
from yolox_lt.train.progress import Progress
from yolox_lt.train.restore import find_start, read_start, resume_as_begun, start_fresh, start_from
from yolox_lt.train.selection import check_metric, chosen_metrics
from yolox_lt.train.state import RunState, TrainData
from yolox_lt.types import Batch


class Trainer:
    """Trains one experiment; `train()` does everything.

    run: its state, made by `prepare`. callbacks: called in this order at the moments of `Callback`, none before the run
    is there. batch_stream: this rank's batches; a new run's loader processes start before its model is built.
    """

    run: RunState
    guard: NonFiniteGuard
    meter: IntervalMeter
    batch_stream: Iterator[Batch] | None = None
    prior_said: bool = False

    def __init__(self, exp: DetectorExp, options: TrainOptions) -> None:
        self.exp = exp
        self.options = options
        self.device = options.process.device
        # Looking at the losses lets the host wait for a GPU, which has the backward pass to do meanwhile; a step that
        # is dropped drops its gradients. A CPU is spared the pass.
        self.backward_first = self.device.type == "cuda"
        self.callbacks: list[Callback] = []

    def train(self) -> None:
        """Run from the start, or from where the checkpoint stopped, to the end.

        Raises:
            Stopped: a signal of `stop_signals` came; latest.pth holds everything that was done.
        """
        with StopSignals(self.exp.stop_signals) as self.stop:
            try:
                self.prepare()
                self.loop()
                self.call("on_train_end")
            except Stopped:
                self.say_stopped()
                raise
            except RuntimeError as error:
                # Another rank went first, in an evaluation.
                if self.stop.received is not None and self.callbacks and self.run.saved:
                    self.say_stopped()
                    raise Stopped from error
                if self.options.process.world_size > 1 and lost_rank(error):
                    raise UserError(
                        f"another rank has ended or does not answer ({str(error).splitlines()[0]}); the last "
                        "checkpoint is complete, continue with --resume"
                    ) from error
                raise
            finally:
                self.batch_stream = None  # loader processes end with their iterator, and not by signals
                # The checkpoint is whole by now, so an interrupted run gets its last images too.
                for callback in reversed(self.callbacks):
                    callback.close(self.run)

    def prepare(self) -> None:
        """Everything up to the first step."""
        exp = self.exp
        ranks = rank_groups()
        if not self.options.resume:  # a resumed run has the checkpoint's choices
            for choice in main_first(functools.partial(exp.settle, self.options.batch_size), ranks.objects):
                logger.info(f"chosen: {choice}")
        start = find_start(exp, self.options, ranks)
        checkpoint = read_start(start, ranks)
        resumed = checkpoint if start.resume else None
        if resumed is not None and start.path is not None:
            self.options = resume_as_begun(exp, self.options, resumed, start.path)
        elif checkpoint is not None and start.path is not None:
            for line in adopt_weights(exp, checkpoint, start.path):
                logger.info(line)
        options = self.options
        self.guard = NonFiniteGuard(exp.nonfinite, options.amp, exp.nonfinite_limit)
        self.meter = IntervalMeter(exp.print_interval, options.batch_size)
        micro_batch = micro_batch_size(exp, options)
        seed = choose_seed(exp, None if resumed is None else resumed["seed"], ranks)
        main_first(exp.read_annotations, ranks.objects)
        data = build_data(exp, options, seed, micro_batch, ranks)
        check_metric(exp.best_metric, exp.patience, data.evaluator)
        progress = Progress(SamplerSegment(options.process.world_size, micro_batch, 0))
        # Loader processes make the first batch of a new run while the rest is built; forking is safest before CUDA too.
        self.batch_stream = None if start.resume else self.batches(data, progress, seed)
        if self.device.type == "cpu":
            keep_large_blocks()  # of this process: loader processes need only small ones
        self.run = run = build_run(exp, options, data, seed, ranks, progress)
        if resumed is not None and start.path is not None:
            run.load_state_dict(resumed, start.path)
        elif checkpoint is not None and start.path is not None:
            names = data.index.category_names
            anew = exp.layers_anew(checkpoint, start.path, names)
            rows = exp.category_rows(checkpoint)
            start_from(run.model, run.ema, checkpoint, names, start.path, anew, exp.fresh_std, rows)
        else:
            start_fresh(exp, run.model, run.ema)
        self.callbacks = [ExpCallback(exp), Checkpoints()]
        if options.process.is_main:
            self.callbacks.insert(0, RunLog(run, start.resume))
            self.callbacks[1:1] = make_writers(run)
        else:
            self.callbacks.insert(0, RankWarnings(run))
        if self.batch_stream is None:
            self.batch_stream = self.batches(data, run.progress, seed)
        self.call("on_train_start")

    def batches(self, data: TrainData, progress: Progress, seed: int) -> Iterator[Batch]:
        """This rank's batches from the position `progress` on."""
        return build_batches(self.exp, data, progress, seed, self.options.process)

    def call(self, moment: str, *arguments: object) -> None:
        """Call all callbacks, see `Callback`."""
        for callback in self.callbacks:
            getattr(callback, moment)(self.run, *arguments)

    def loop(self) -> None:
        """The steps and the ends of epochs that are left."""
        run, exp, batches = self.run, self.exp, self.batch_stream
        assert batches is not None  # made by `prepare`
        run.model.train()
        self.stop.at_once = False
        mark = self.meter.restart()
        while run.iteration < run.total or run.progress.open.steps:
            if any_rank(self.stop.received is not None, run.ranks.control):
                self.call("on_stop")
                raise Stopped
            if run.progress.open.steps and run.iteration % run.epoch_iterations == 0:
                self.end_epoch()
                mark = self.meter.restart()
                continue
            if exp.patience is not None and run.best.stale >= exp.patience:
                self.say_enough()
                break
            if run.iteration >= run.data.no_aug_start and exp.l1 == "tail":
                run.criterion.use_l1 = True
            losses = self.step(batches)
            now = time.perf_counter()
            run.progress.open.seconds += now - mark
            mark = now
            values = self.meter.step(run, losses)
            if values is not None:
                self.call("on_log", values)
            self.call("on_iteration_end", losses)

    def step(self, batches: Iterator[Batch]) -> dict[str, float]:
        """One optimiser step over `accumulate` batches; returns this rank's mean losses by name."""
        run, accumulate = self.run, self.exp.accumulate
        means: dict[str, float] = {}
        dropped = False
        for group in run.optimizer.param_groups:
            group["lr"] = run.schedule(run.iteration)
        run.optimizer.zero_grad(set_to_none=True)
        # The forward pass moves BatchNorm's statistics before a step can be found bad.
        statistics = batchnorm_statistics(run.model) if self.guard.policy == "skip" else []
        before = [t.clone() for t in statistics]
        for part in range(accumulate):
            batch = next(batches)
            self.call("on_batch", batch)
            run.note_bad_images(batch)
            if dropped:
                continue  # the batch is used up all the same
            with self.gradients_stay() if part < accumulate - 1 else contextlib.nullcontext():
                losses = self.forward(batch.to(self.device))
                values = torch.stack(list(losses.values()))
                scaled = run.scaler.scale(values.sum() / accumulate)
                if self.backward_first:
                    scaled.backward()
                numbers = dict(zip(losses, values.tolist()))
                dropped = self.guard.must_drop(run, numbers, batch)
                if not (dropped or self.backward_first):
                    scaled.backward()
            for name, number in (numbers | {"loss": sum(numbers.values())}).items():
                means[name] = means.get(name, 0.0) + number / accumulate
        if dropped:
            run.optimizer.zero_grad(set_to_none=True)
            for own, value in zip(statistics, before):
                own.copy_(value)
        applied = not dropped and self.update()
        for state in run.criterion.step_states():
            if applied:
                state.commit()
            else:
                state.discard()
        if applied and run.ema is not None:
            run.ema.update(run.model)
        self.guard.dropped_in_a_row = self.guard.dropped_in_a_row + 1 if dropped else 0
        run.thresholds = None
        run.progress.step(means, self.options.batch_size, accumulate, dropped)
        run.saved = False
        return means

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Losses of one batch, the network under autocast, the criterion in float32."""
        size = self.exp.random_resize(self.run.iteration)
        images = self.run.preprocessor(batch.images, batch.image_sizes, size)
        with torch.autocast(self.device.type, dtype=self.options.amp, enabled=self.options.amp is not None):
            predictions, priors = self.run.network(images)
        if not self.prior_said:
            self.prior_said = True
            if not self.run.iteration and self.options.process.is_main and self.exp.class_scores() is None:
                from_weights = (self.options.checkpoint or self.exp.start_from) is not None
                logger.info(prior_line(predictions.cls_logits, self.exp.prior_prob, from_weights))
        boxes, sizes = resized_targets(batch, images)
        return self.run.criterion(predictions, priors, boxes, batch.labels, sizes)

    def update(self) -> bool:
        """Clip and change the weights; False, and nothing is changed, where gradients overflowed in fp16."""
        run, scaler = self.run, self.run.scaler
        if self.exp.clip_norm is not None:
            scaler.unscale_(run.optimizer)
            torch.nn.utils.clip_grad_norm_(run.model.parameters(), self.exp.clip_norm)
        scale = scaler.get_scale() if scaler.is_enabled() else 1.0
        scaler.step(run.optimizer)
        scaler.update()
        return not scaler.is_enabled() or scaler.get_scale() >= scale

    def gradients_stay(self) -> contextlib.AbstractContextManager[None]:
        """Keep the gradients of a partial batch on this rank: they cross the ranks once, with the last part."""
        network = self.run.network
        return network.no_sync() if isinstance(network, DistributedDataParallel) else contextlib.nullcontext()

    def end_epoch(self) -> None:
        """Evaluate if it is time, and let the callbacks write what the epoch leaves."""
        run, exp = self.run, self.exp
        epoch = run.progress.epochs + 1
        closing = run.iteration > run.data.no_aug_start and exp.no_aug_epochs > 0
        report = None
        evaluate = epoch % exp.eval_interval == 0 or closing or epoch == exp.max_epoch
        evaluate &= run.data.evaluator is not None
        if evaluate:
            self.call("on_evaluation_start")
        run.merge_ranks()
        if evaluate:
            with self.stop.saved():
                report = self.evaluate()
            self.call("on_evaluation_end", report)
        run.metrics = {} if report is None else chosen_metrics(exp.best_metric, run.evaluator, report)
        if report is not None and run.evaluator.detections is not None:
            run.thresholds = category_thresholds(
                run.evaluator.index, run.evaluator.detections, report, run.evaluator.labels
            )
        record = epoch_record(run, epoch, report)
        if evaluate:
            best = run.best if report is None else run.best.after(run.metrics[exp.best_metric])
            run.best = broadcast(best, run.ranks.objects)  # so all ranks stop together
        run.progress.end_epoch()
        self.call("on_epoch_record", record)
        self.call("on_epoch_end", epoch)

    def evaluate(self) -> Report | None:
        """Score the averaged weights if there are any; the report is on rank 0."""
        run = self.run
        model = run.ema.model if run.ema is not None else run.model
        report = self.exp.eval(model, run.evaluator, self.device, autocast=self.options.amp, group=run.ranks.objects)
        run.model.train()
        return report

    def say_enough(self) -> None:
        """Rank 0 says why the run ends before its last epoch, and what it has not done."""
        run, exp = self.run, self.exp
        if not self.options.process.is_main:
            return
        logger.info(
            f"stopped after epoch {run.progress.epochs} of {exp.max_epoch}: no better {exp.best_metric} than "
            f"{run.best.value:.4f} in {run.best.stale} evaluations (patience {exp.patience}); best.pth has it"
        )
        if run.iteration < run.data.no_aug_start < run.total:
            logger.info(
                f"the {exp.no_aug_epochs} closing epochs without mosaic (no_aug_epochs), which often bring most, were "
                "not trained; --resume with patience None continues to them"
            )

    def say_stopped(self) -> None:
        """Rank 0 says where the run has stopped."""
        if self.options.process.is_main:
            asked = self.stop.received.name if self.stop.received is not None else "another rank"
            done, total = (self.run.iteration, self.run.total) if self.callbacks else (0, 0)  # stopped before the start
            logger.info(f"stopped by {asked} after iteration {done} of {total}; continue with --resume")


def resized_targets(batch: Batch, images: Tensor) -> tuple[list[Tensor], list[tuple[int, int]]]:
    """Boxes [G, 4] of each image and the (height, width) of its content, in pixels of the network's input `images`."""
    (rows, columns), (height, width) = batch.images.shape[2:], images.shape[2:]
    boxes = batch.boxes
    if (height, width) != (rows, columns):
        factor = torch.tensor([width / columns, height / rows] * 2).to(images.device, non_blocking=True)
        boxes = [b * factor for b in boxes]
    vertical, horizontal = height / rows, width / columns
    return boxes, [(round(h * vertical), round(w * horizontal)) for h, w in batch.image_sizes.tolist()]
