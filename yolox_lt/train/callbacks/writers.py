"""The callbacks of rank 0 that show a run: history of the balance, trackers, report."""

from __future__ import annotations

from yolox_lt.train.callbacks.balance_history import BalanceHistory
from yolox_lt.train.callbacks.callback import Callback
from yolox_lt.train.callbacks.report import ReportCallback
from yolox_lt.train.callbacks.trackers import TrackerCallback
from yolox_lt.train.run_description import describe_run, write_config
from yolox_lt.train.state import RunState


def make_writers(run: RunState) -> list[Callback]:
    """Say what the run is made of, write config.json, and make the callbacks.

    Raises:
        UserError: a tracker that cannot be used.
    """
    summary = describe_run(run)
    write_config(run.folder / "config.json", run.exp, run.options)
    loss, epochs, scored = run.criterion.cls_loss, run.progress.epochs, run.data.evaluator
    if scored is not None:
        balance = BalanceHistory(run.folder, loss, scored.groups, epochs, scored.in_order_of_index)
    else:
        index = run.data.index
        balance = BalanceHistory(run.folder, loss, index.groups(index.image_counts), epochs)
    return [
        balance,
        TrackerCallback(run.exp.trackers, run.folder),
        ReportCallback(run.folder, summary),
    ]
