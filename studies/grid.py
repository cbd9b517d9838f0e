"""Which runs there are: cases (settings by name) in sets, each repeated with several seeds."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

EXP_FILE = "exps/glyphs/study.py"
TWO_STAGE_FILE = "exps/glyphs/study_two_stage.py"
RESNET_FILE = "exps/glyphs/study_r18.py"

COUNTS = Path("tests/golden/lvis_v1_categories.json")
"""The image count of every LVIS category: the real profile of the full study."""

Settings = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One row of a comparison.

    name: in tables. settings: of the experiment, on top of `exp_file` and of the set's own. seeds: how many.
    start: key of `STARTS`, None for random weights. amp: None, "float16" or "bfloat16".
    needs: a setting that this version must know, else the case is not run.
    after: name of a case of the same set: the run starts from the end of that case's run with the same seed.
    """

    name: str
    settings: Settings
    seeds: int
    start: str | None = "glyphs"
    amp: str | None = None
    needs: str | None = None
    exp_file: str = EXP_FILE
    after: str | None = None


@dataclass(frozen=True)
class Set:
    """Cases that share their settings. gpu: too long for a CPU of today, though it would run on one."""

    cases: tuple[Case, ...]
    settings: Settings = field(default_factory=dict)
    gpu: bool = False


BALANCED: Settings = {"glyph_profile": "lvis", "glyph_categories": "balanced", "glyph_seed": 1}
"""Every category in equally many images; "balanced" becomes a file of equal counts when a run starts."""

RFS: Settings = {"sampler": "repeat_factor"}

SGD: Settings = {"optimizer": "sgd", "basic_lr_per_img": 0.02 / 16, "weight_decay": 5e-4, "cls_bias_decay": 5e-4}
"""AdamW divides by the size of the gradients and so hides the scale of a loss; SGD does not."""

LOSSES: dict[str, Settings] = {
    "sigmoid": {"cls_loss": "sigmoid"},
    "FL": {"cls_loss": "focal"},
    "FL x 3": {"cls_loss": "focal", "cls_weight": 3.0},
    "QFL": {"cls_loss": "qfl"},
    "EFL": {"cls_loss": "efl"},
    "EFL x 3": {"cls_loss": "efl", "cls_weight": 3.0},
    "EQFL": {"cls_loss": "eqfl"},
}

MAIN_ORDER = ("FL", "EFL", "QFL", "EQFL", "FL x 3", "EFL x 3", "sigmoid")

YOLOX: Settings = {
    "cls_loss": "sigmoid",
    "quality": "obj",
    "assigner": "simota",
    "anchor_scales": (1,),
    "neck_shortcut": False,
    "l1": "tail",
    "recipe": "official",
    "scheduler": "yoloxwarmcos",
    "cls_bias_decay": None,
}
"""Official YOLOX on the data and schedule of the study."""


def losses(seeds: int) -> tuple[Case, ...]:
    """Every loss and both scale controls, without and with RFS; the most important comparisons first."""
    plain = [Case(name, LOSSES[name], seeds) for name in MAIN_ORDER]
    return tuple(plain + [Case(f"{c.name}, RFS", {**c.settings, **RFS}, seeds) for c in plain])


def scans(seeds: int, start: str | None = "glyphs") -> tuple[Case, ...]:
    """One setting at a time, from EFL with s = 4 and uniform sampling. The case itself is in `losses`."""
    efl = LOSSES["EFL"]

    def variants(of: tuple[str, ...], words: str, changes: Settings) -> list[Case]:
        return [Case(f"{name}, {words}", {**LOSSES[name], **changes}, seeds, start) for name in of]

    return (
        *variants(("sigmoid", "FL", "EFL"), "prior 0.01", {"prior_prob": 0.01}),
        *variants(("FL", "FL x 3", "EFL", "EFL x 3"), "SGD", SGD),
        Case("EFL, weighting only", {**efl, "loss_focusing": False}, seeds, start),
        Case("EFL, focusing only", {**efl, "loss_weighting": False}, seeds, start),
        *(Case(f"EFL, s {s}", {**efl, "loss_scale": float(s)}, seeds, start) for s in (8, 1, 2, 12)),
        *variants(("FL", "EFL"), "balanced data", BALANCED),
        Case("EFL, bias decay none", {**efl, "cls_bias_decay": None}, seeds, start),
        Case("EFL, bias decay 15", {**efl, "cls_bias_decay": 15.0}, seeds, start),
        Case("EFL, statistic without alpha", {**efl, "loss_alpha_in_statistic": False}, seeds, start),
        *variants(("FL", "EFL"), "prior 0.1", {"prior_prob": 0.1}),
    )


FULL: Settings = {
    "num_classes": 1203,
    "glyph_profile": "lvis",
    "glyph_categories": str(COUNTS),
    "glyph_image_size": 128,
    "glyph_train_images": 60_000,
    "glyph_val_images": 5_000,
    "input_size": (128, 128),
    "test_size": (128, 128),
    "width": 0.375,
    "batch_size": 64,
    "max_epoch": 8,
    "prior_prob": 0.001,
    "repeat_thresh": 0.001,
    "data_num_workers": 8,
}
"""1203 glyphs with the image counts of LVIS, scaled to 60,000 images; the groups are LVIS's own."""

FULL_BALANCED: Settings = {"glyph_categories": "balanced", "glyph_seed": 2}

FROM_SCRATCH: Settings = {
    **BALANCED,
    "cls_loss": "focal",
    "cls_weight": 5.0,
    "warmup_epochs": 0.3,
    "prior_prob": 0.01,
    "seed": 100,
}
"""Leaves the plateau, where every category looks alike, within a few hundred iterations."""

STARTS: dict[str, Settings] = {
    "glyphs": {**FROM_SCRATCH, "num_classes": 30, "batch_size": 8, "basic_lr_per_img": 0.004 / 8, "max_epoch": 5},
    "glyphs_two_stage": {
        **BALANCED,
        **{"num_classes": 30, "batch_size": 8, "max_epoch": 3, "warmup_iters": 100, "sampler": "uniform", "seed": 100},
    },
    "glyphs_r18": {**FROM_SCRATCH, "num_classes": 30, "batch_size": 8, "basic_lr_per_img": 0.004 / 8, "max_epoch": 3},
    "glyphs_full": {**FULL, **FROM_SCRATCH, "num_classes": 300, "glyph_train_images": 20_000, "max_epoch": 20},
}
"""What runs start from: detectors of equally frequent glyphs, whose classifier is taken out afterwards."""

START_FILES = {"glyphs_two_stage": TWO_STAGE_FILE, "glyphs_r18": RESNET_FILE}
"""The experiments of starts that have another than `EXP_FILE`."""


def two_stage(seeds: int) -> tuple[Case, ...]:
    """Faster R-CNN with each loss, then the second trainings on the trained softmax model."""
    plain: dict[str, Settings] = {
        "softmax": {},
        "EQL": {"cls_loss": "eql"},
        "EQLv2": {"cls_loss": "eqlv2"},
        "Seesaw": {"cls_loss": "seesaw", "normed_classifier": True},
    }
    second: Settings = {"classifier_only": True, "sampler": "class_balanced"}
    softmax = "Faster R-CNN, softmax"
    return (
        *(Case(f"Faster R-CNN, {n}", s, seeds, "glyphs_two_stage", exp_file=TWO_STAGE_FILE) for n, s in plain.items()),
        Case("cRT", second, seeds, None, exp_file=TWO_STAGE_FILE, after=softmax),
        Case("BAGS", {**second, "cls_loss": "bags"}, seeds, None, exp_file=TWO_STAGE_FILE, after=softmax),
    )


DETECTORS: dict[str, Settings] = {
    "RetinaNet": {
        **{"anchor_scales": (1.5, 1.5 * 2 ** (1 / 3), 1.5 * 2 ** (2 / 3)), "anchor_ratios": (0.5, 1.0, 2.0)},
        **{"quality": None, "assigner": "max_iou", "box_loss": "l1"},
    },
    "FCOS": {"anchor_scales": (1,), "quality": "centerness", "assigner": "fcos", "box_code": "distances"},
    "ATSS": {"quality": "centerness", "clip_norm": None},
    "PAA": {"assigner": "paa", "box_weight": 1.3, "quality_weight": 0.5, "clip_norm": None},
}
"""The detectors of the paper's Table 6 by their differences from its baseline, as in exp/resnet.py; smaller anchors."""


def detectors(seeds: int) -> tuple[Case, ...]:
    """Every detector of Table 6 with FL and with EFL, from one start: its backbone, FPN and towers."""
    return tuple(
        Case(f"{name}, {loss}", {**settings, **LOSSES[loss]}, seeds, "glyphs_r18", exp_file=RESNET_FILE)
        for name, settings in DETECTORS.items()
        for loss in ("FL", "EFL")
    )


def full_sets() -> dict[str, Set]:
    """What one GPU does in hours. Each set can be run alone."""
    fl, efl, start = LOSSES["FL"], LOSSES["EFL"], "glyphs_full"
    schedule = [
        Case(f"{name}, {epochs} epochs", {**LOSSES[name], "max_epoch": epochs}, 3, start)
        for epochs in (2, 4, 16, 32)
        for name in ("FL", "EFL")
    ]
    balanced = [Case(f"{n}, balanced data", {**LOSSES[n], **FULL_BALANCED}, 5, start) for n in ("FL", "EFL")]
    mosaic: Settings = {"mosaic_prob": 1.0, "enable_mixup": True, "no_aug_epochs": 1, **RFS}
    partners = [
        Case(
            f"{name}, {kind} partners",
            {**LOSSES[name], **mosaic, "partners": kind},
            3,
            start,
            None,
            "partners",
        )
        for kind in ("uniform", "same")
        for name in ("FL", "EFL")
    ]
    scratch: Settings = {"max_epoch": 40, **RFS}
    yolox = [
        Case("YOLOX as it is", {**YOLOX, **scratch}, 3, None),
        *(Case(f"YOLOX*, {n}", {**LOSSES[n], **scratch}, 3, None) for n in ("sigmoid", "FL", "EFL", "QFL", "EQFL")),
    ]
    precision = [Case(f"EFL, {amp or 'float32'}", efl, 3, start, amp) for amp in (None, "bfloat16", "float16")]
    sgd: Settings = {**SGD, "basic_lr_per_img": 0.02 / 64}
    decay = [
        Case(f"EFL, SGD, bias decay {d}", {**efl, **sgd, "cls_bias_decay": d}, 3, start) for d in (None, 1e-4, 5e-4)
    ]
    main = tuple(Case(c.name, c.settings, 5, start) for c in losses(5))
    cases = {
        "full-losses": main,
        "full-scans": (
            *(c for c in scans(3, start) if "balanced" not in c.name),
            Case("EFL, s 0", {**efl, "loss_scale": 0.0}, 3, start),
            Case("EFL, s 4", efl, 3, start),
        ),
        "full-schedule": tuple(schedule),
        "full-balanced": tuple(balanced),
        "full-partners": tuple(partners),
        "full-yolox": tuple(yolox),
        "full-precision": tuple(precision),
        "full-decay": tuple(decay),
        "full-scale": (
            Case("FL x 2", {**fl, "cls_weight": 2.0}, 3, start),
            Case("FL x 5", {**fl, "cls_weight": 5.0}, 3, start),
        ),
    }
    return {name: Set(tuple(found), FULL, gpu=True) for name, found in cases.items()}
