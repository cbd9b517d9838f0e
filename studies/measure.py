"""One run: the project's trainer, data, losses and evaluator; what is measured becomes rows of two csv files."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from studies.compare import rank_correlation
from studies.grid import EXP_FILE, START_FILES, STARTS, Case, Settings
from yolox_lt.checkpoint import load_checkpoint, save_checkpoint
from yolox_lt.distributed.processes import ProcessInfo
from yolox_lt.evaluate import Report, evaluate_lvis
from yolox_lt.exp import DetectorExp, get_exp
from yolox_lt.losses import DenseLoss, EQLv2FocalLoss, RegionLoss
from yolox_lt.losses.equalized import EqualizedLoss
from yolox_lt.losses.kernel import DenseResult
from yolox_lt.losses.ratios import gradient_ratio
from yolox_lt.report.analysis.analysis import analyse
from yolox_lt.train.callbacks.callback import Callback
from yolox_lt.train.callbacks.report import ReportCallback
from yolox_lt.train.engine import Trainer
from yolox_lt.train.options import TrainOptions
from yolox_lt.train.restore import CLASSIFIERS
from yolox_lt.train.run_description import git_state
from yolox_lt.train.state import RunState
from yolox_lt.types import IGNORED

CAPS = (300, 100, 20)
METRICS = ("AP", "AP50", "APr", "APc", "APf")
GROUPS = ("r", "c", "f")
PLACES = ("output_dir", "data_dir")
"""Settings that say where files are: of no meaning to others."""

Row = dict[str, Any]


class Watch(Callback):
    """Sums of absolute gradients by category of any dense loss, and their course at 1, 2, 5, 10, 20, 50 ... iterations.

    pos, neg: float64 [C], over all iterations so far, as the loss itself computes them.
    positives: int64 [C], priors of the category so far; priors: all of them.
    marks: percent of the run -> g float64 [C] then, at 10, 50 and 100 percent.
    """

    def __init__(self, loss: DenseLoss, num_classes: int) -> None:
        self.loss = loss
        self.pos = torch.zeros(num_classes, dtype=torch.float64)
        self.neg = torch.zeros(num_classes, dtype=torch.float64)
        self.positives = torch.zeros(num_classes, dtype=torch.int64)
        self.priors = 0
        self.course: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        self.marks: dict[int, Tensor] = {}
        own = loss.update_balance

        def update_balance(result: DenseResult, labels: Tensor) -> None:
            own(result, labels)
            self.pos += result.pos_grad.double().cpu()
            self.neg += result.neg_grad.double().cpu()

        def count(_: nn.Module, arguments: tuple[Any, ...], __: Tensor) -> None:
            labels = arguments[1]
            self.positives += torch.bincount(labels[labels >= 0], minlength=num_classes).cpu()
            self.priors += int((labels != IGNORED).sum())

        loss.update_balance = update_balance  # type: ignore[method-assign]
        loss.register_forward_hook(count)

    def on_iteration_end(self, run: RunState, losses: dict[str, float]) -> None:
        done = run.iteration
        if str(done).rstrip("0") in ("1", "2", "5") or done == run.total:
            self.note(done)
        for percent in (10, 50, 100):
            if done == max(1, run.total * percent // 100):
                self.marks[percent] = self.ratio()

    def note(self, iteration: int) -> None:
        """Keep the sums and g after this many iterations."""
        self.course[iteration] = self.pos.clone(), self.neg.clone(), self.ratio()

    def ratio(self) -> Tensor:
        """g float64 [C]: the loss's own, whatever form it has; of a loss without one, EFL's ratio of its gradients."""
        if isinstance(self.loss, EqualizedLoss):
            return self.loss.ratio.double().cpu()
        return gradient_ratio(self.pos, self.neg)

    def rows(self, groups: np.ndarray) -> Iterator[Row]:
        """One row for each kept iteration and group."""
        for iteration, (pos, neg, ratio) in self.course.items():
            for group in GROUPS:
                if (groups == group).any():
                    yield {"iteration": iteration, "group": group, **self.describe(pos, neg, ratio, groups == group)}

    def describe(self, pos: Tensor, neg: Tensor, ratio: Tensor, members: np.ndarray) -> Row:
        """Means over a group: g, gamma and weight that follow, and the group's share of gradients."""
        of = torch.from_numpy(members)
        g = ratio[of]
        gamma, weight = factors(self.loss, g)
        total = float((pos + neg).sum())
        return {
            "g": float(g.mean()),
            "saturated": float((g == 1).double().mean()),
            "gamma": float(gamma.mean()),
            "weight": float(weight.mean()),
            "pos_share": float(pos[of].sum()) / max(total, 1e-12),
            "neg_share": float(neg[of].sum()) / max(total, 1e-12),
        }


def factors(loss: DenseLoss, g: Tensor) -> tuple[Tensor, Tensor]:
    """Exponent and weight [n] of categories with the ratios g [n]; constant for a loss without balance."""
    if isinstance(loss, EqualizedLoss):
        lifted = loss.gamma + loss.scale * (1 - g)
        plain = torch.full_like(g, loss.gamma)
        return (lifted if loss.focusing else plain), (lifted if loss.weighting else plain) / loss.gamma
    gamma = torch.full_like(g, getattr(loss, "gamma", 0.0))
    # EQLv2 has two weights for a category, one for its positives and one for its negatives.
    return gamma, torch.full_like(g, math.nan if isinstance(loss, EQLv2FocalLoss) else 1.0)


class StudyTrainer(Trainer):
    """The trainer, watched: nothing of what it computes is changed. Images and pages, which nobody looks at in a study
    and which take seconds a run, are left out. watch: None for two stages, whose losses have no gradients of this kind.
    """

    watch: Watch | None = None

    def prepare(self) -> None:
        super().prepare()
        self.callbacks = [c for c in self.callbacks if not isinstance(c, ReportCallback)]
        if not isinstance(self.run.criterion.cls_loss, RegionLoss):
            self.watch = Watch(self.run.criterion.cls_loss, self.exp.num_classes)
            self.callbacks.append(self.watch)


def experiment(settings: Settings, folder: Path, name: str, exp_file: str = EXP_FILE) -> DetectorExp:
    """The experiment of the study with some settings, its run folder below `folder`."""
    exp = get_exp(exp_file)
    for key, value in settings.items():
        if not hasattr(exp, key):
            raise KeyError(key)
        setattr(exp, key, value)
    if exp.glyph_categories == "balanced":  # type: ignore[attr-defined]
        exp.glyph_categories = str(balanced_counts(folder, exp.num_classes))  # type: ignore[attr-defined]
    exp.output_dir, exp.exp_name = str(folder / "runs"), name
    return exp


def balanced_counts(folder: Path, categories: int) -> Path:
    """A table of equal counts, larger than any data set here: it is scaled down to what the images hold."""
    path = folder / f"balanced_{categories}.json"
    if not path.exists():
        content = {"categories": [{"id": i + 1, "image_count": 10_000} for i in range(categories)]}
        temporary = path.with_name(f"{path.name}.{time.time_ns()}")
        temporary.write_text(json.dumps(content), encoding="utf-8")
        temporary.replace(path)
    return path


def make_start(key: str, folder: Path, device: torch.device) -> Row:
    """Train what every run starts from, and keep it as start_KEY.pth without its classifier."""
    settings = STARTS[key]
    case = Case(key, settings, 1, None, exp_file=START_FILES.get(key, EXP_FILE))
    _, row, _ = run(case, settings["seed"], {}, folder, device, f"start_{key}")
    content = load_checkpoint(folder / "runs" / f"start_{key}" / "latest.pth")
    save_checkpoint(folder / f"start_{key}.pth", without_classifier(content))
    return row


def without_classifier(content: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint that does not know the classifier's parameters: a run that starts from it has a fresh one."""

    def strip(state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: value for name, value in state.items() if not name.startswith(CLASSIFIERS)}

    ema = content["ema"]
    return content | {
        "model": strip(content["model"]),
        "ema": None if ema is None else ema | {"model": strip(ema["model"])},
    }


def run(
    case: Case,
    seed: int,
    common: Settings,
    folder: Path,
    device: torch.device,
    name: str,
    start: Path | None = None,
) -> tuple[StudyTrainer, Row, list[Row]]:
    """Train and score one run.

    Args:
        case, seed, common: its settings; common ones are those of the set. folder: of the study. name: of its folder.
        start: checkpoint to start from.

    Returns:
        The trainer, the run's row, the rows of its course.
    """
    exp = experiment({**common, **case.settings, "seed": seed}, folder, name, case.exp_file)
    amp = None if case.amp is None else getattr(torch, case.amp)
    process = ProcessInfo(0, 1, device)
    trainer = StudyTrainer(
        exp, TrainOptions(exp.batch_size, process, amp, None if start is None else str(start), cache=True)
    )
    wall, processor = time.perf_counter(), time.process_time()
    trainer.train()
    row = {
        "iterations": trainer.run.total,
        "seconds": round(time.perf_counter() - wall, 1),
        "processor_seconds": round(time.process_time() - processor, 1),
        "device": device.type,
        "torch": torch.__version__,
        "commit": git_state(),
    }
    found = trainer.run.evaluator.detections
    assert found is not None  # the last epoch is always evaluated
    index, groups = trainer.run.evaluator.index, trainer.run.evaluator.groups
    assert groups is not None
    for cap in CAPS:
        report = evaluate_lvis(index, found, cap, groups)
        row |= metrics_of(report, str(cap))
        if cap == exp.max_detections:
            row |= margins(trainer, report)
    row |= metrics_of(evaluate_lvis(index, found, groups=groups, protocol="fixed"), "fixed")
    for group in GROUPS:
        if trainer.watch is not None and (groups == group).any():
            watch = trainer.watch
            state = watch.describe(watch.pos, watch.neg, watch.ratio(), groups == group)
            row |= {f"{key}_{group}": round(value, 5) for key, value in state.items()}
    if trainer.watch is not None:
        counts = trainer.run.data.dataset.store.index.image_counts
        for percent, ratio in trainer.watch.marks.items():
            row[f"rank_{percent}"] = round(rank_correlation(ratio.numpy(), counts), 4)
    row |= {f"loss_{key}": round(value, 5) for key, value in last_losses(exp).items()}
    row |= {key: value for key, value in exp.attributes().items() if key not in PLACES}
    row["glyph_categories"] = Path(str(row["glyph_categories"])).name if row["glyph_categories"] else None
    seen = [] if trainer.watch is None else trainer.watch.rows(groups)
    course = [{k: round(v, 5) if isinstance(v, float) else v for k, v in r.items()} for r in seen]
    return trainer, row, course


def metrics_of(report: Report, suffix: str) -> Row:
    """The metrics in percent under names such as AP_300."""
    return {f"{name}_{suffix}": round(100 * report.metrics[name], 3) for name in METRICS}


def margins(trainer: StudyTrainer, report: Report) -> Row:
    """Mean score of true and of false positives at IoU 0.5, means over the categories of a group (paper, Figure 4)."""
    found = trainer.run.evaluator.detections
    assert found is not None
    analysis, _ = analyse(trainer.run.evaluator.index, found, report, images_per_kind=0)
    row: Row = {}
    for group in GROUPS:
        of = analysis.groups == group
        for name, values in (("pos_score", analysis.positive_score[of]), ("neg_score", analysis.negative_score[of])):
            values = values[~np.isnan(values)]
            row[f"{name}_{group}"] = round(float(values.mean()), 5) if len(values) else None
    return row


def last_losses(exp: DetectorExp) -> dict[str, float]:
    """Means of the losses over the last epoch, from the run's metrics.csv."""
    import csv

    with open(Path(exp.output_dir) / exp.exp_name / "metrics.csv", newline="") as file:
        last = list(csv.DictReader(file))[-1]
    return {name: float(last[name]) for name in ("cls", "box", "quality", "obj", "l1") if name in last}
