"""When a run is written to disk, and under which names."""

from __future__ import annotations

from collections.abc import Sequence

from yolox_lt.checkpoint import remove_old, save_checkpoint
from yolox_lt.distributed.collectives import broadcast
from yolox_lt.train.callbacks.callback import Callback, EpochRecord
from yolox_lt.train.state import RunState


class Checkpoints(Callback):
    """latest.pth, best.pth and epoch_N.pth; on every rank, since each adds its part.

    latest.pth is written last: a run that is killed before continues from the end of the epoch's steps, or from an
    earlier step, and everything that was written meanwhile is written again.
    """

    def on_train_start(self, run: RunState) -> None:
        self.save_unsaved(run)  # a run can be resumed from its first moment

    def on_iteration_end(self, run: RunState, losses: dict[str, float]) -> None:
        interval, done = run.exp.checkpoint_interval, run.iteration
        if interval is not None and done % interval == 0 and done % run.epoch_iterations:
            self.save(run)

    def on_evaluation_start(self, run: RunState) -> None:
        self.save_unsaved(run)

    def on_stop(self, run: RunState) -> None:
        self.save_unsaved(run)

    def on_epoch_record(self, run: RunState, record: EpochRecord) -> None:
        names = ["best.pth"] if record.is_best else []
        if record.report is not None and run.exp.save_history_ckpt:
            names.append(f"epoch_{record.epoch}.pth")
        # The other ranks wait here, without a pending collective of the training group, while rank 0 scores and saves.
        self.save(run, names)

    def save_unsaved(self, run: RunState) -> None:
        """Write latest.pth unless it holds everything that was done."""
        if not run.saved:
            self.save(run)

    def save(self, run: RunState, copies: Sequence[str] = ()) -> None:
        """Write latest.pth, on rank 0 also under the names `copies`, and first: what latest.pth tells of is there.

        All ranks call it together, and none continues before the files are there.
        """
        content = run.state_dict()
        if content is not None:
            for name in copies:
                save_checkpoint(run.folder / name, content)
            if copies:
                remove_old(run.folder, run.progress.epochs, run.exp.keep_checkpoints)
            save_checkpoint(run.folder / "latest.pth", content)
        broadcast(None, run.ranks.objects)
        run.saved = True
