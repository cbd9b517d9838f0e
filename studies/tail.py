"""Cases of the study of the tail: what lifts rare categories when the scores of a fresh classifier start at the prior.

Every case starts its classifier small (`fresh_std`). The set "tail" has the data and the start of the set cpu, "wide"
has 640 categories with LVIS's image counts.
"""

from __future__ import annotations

from studies.grid import COUNTS, LOSSES, RFS, Case, Settings

KEPT: Settings = {"fresh_std": 0.001}
"""Scores of the new classifier are the prior's to a few percent."""

EQFL = LOSSES["EQFL"]

FORMS: dict[str, Settings] = {
    "EQFL relative": {**EQFL, "loss_ratio": "relative"},
    "EQFL samples": {**EQFL, "loss_ratio": "samples"},
    "EQFL samples, negatives": {**EQFL, "loss_ratio": "samples", "loss_focus": "negatives"},
    "EQFL window": {**EQFL, "loss_horizon": 150},
    "EQFL negatives": {**EQFL, "loss_focus": "negatives"},
    "EVFL": {"cls_loss": "evfl"},
}
"""Other forms of EQFL. A horizon of 150 steps is one pass over the images."""

BEST = "EQFL samples, negatives"
"""The form that the demo's pair favoured before this study."""

PRIORS_FILE = "studies/priors.py"

REPEATS: dict[str, Settings] = {"power 1": {"repeat_power": 1.0}, "cap 3": {"repeat_cap": 3.0}}
"""Repeat factors (t / f)^power, at most cap; RFS has power 0.5 and no cap: at most 5.8 here."""

LONG: Settings = {"max_epoch": 6}

PASTE: Settings = {"copy_paste": 1.0}

EQLV2: Settings = {"cls_loss": "eqlv2_focal"}

WIDE: Settings = {
    **KEPT,
    "num_classes": 640,
    "data_folder": "glyphs_wide",
    "glyph_profile": "lvis",
    "glyph_categories": str(COUNTS),
    "glyph_train_images": 4800,
    "glyph_val_images": 800,
    "repeat_thresh": 0.01,
    "prior_prob": 0.001,
}
"""Twice the images of the set tail for seven times the categories."""


def tail() -> tuple[Case, ...]:
    """Where a verdict hangs on it eight seeds, else three; what decides the default comes first."""
    with_rfs = {"QFL": LOSSES["QFL"], "EQFL": EQFL, **FORMS}
    low: Settings = {"prior_prob": 0.01}
    priors: dict[str, Settings] = {"": {}, "prior 0.01, ": low}
    return (
        *(Case(f"{name}, RFS", {**with_rfs[name], **RFS}, 8) for name in ("QFL", "EQFL", BEST)),
        *(Case(f"{name}, prior 0.01, RFS", {**with_rfs[name], **low, **RFS}, 8) for name in ("QFL", "EQFL", BEST)),
        *(Case(f"{name}, RFS", {**FORMS[name], **RFS}, 8) for name in ("EQFL relative", "EQFL samples", "EQFL window")),
        *(Case(f"{n}, paste, RFS", {**with_rfs[n], **PASTE, **RFS}, 8) for n in ("QFL", "EQFL", BEST)),
        *(Case(name, LOSSES[name], 8) for name in ("QFL", "EQFL")),
        *(
            Case(f"{name}, prior {kind}, RFS", {**LOSSES[name], "category_prior": kind, **RFS}, 3, exp_file=PRIORS_FILE)
            for kind in ("rest", "share")
            for name in ("QFL", "EQFL")
        ),
        *(Case(f"{name}, RFS", {**FORMS[name], **RFS}, 3) for name in ("EQFL negatives", "EVFL")),
        *(Case(name, LOSSES[name], 3) for name in ("FL", "EFL")),
        *(Case(f"{name}, RFS", {**LOSSES[name], **RFS}, 3) for name in ("FL", "EFL")),
        *(Case(f"QFL, {n}RFS, 6 epochs", {**LOSSES["QFL"], **s, **RFS, **LONG}, 3) for n, s in priors.items()),
        *(Case(f"QFL, RFS {name}", {**LOSSES["QFL"], **RFS, **repeats}, 8) for name, repeats in REPEATS.items()),
        *(Case(f"{n}, RFS power 1", {**with_rfs[n], **RFS, **REPEATS["power 1"]}, 8) for n in ("EQFL", BEST)),
        *(Case(f"QFL, prior 0.01, RFS {n}", {**LOSSES["QFL"], **low, **RFS, **r}, 3) for n, r in REPEATS.items()),
        Case("EQLv2 & FL", EQLV2, 3),
        Case("EQLv2 & FL, RFS", {**EQLV2, **RFS}, 3),
        *(Case(f"{name}, clipped", {**LOSSES[name], "clip_norm": 35.0}, 3) for name in ("FL", "EFL")),
        *(Case(f"{name}, short warm-up", {**LOSSES[name], "warmup_epochs": 0.03}, 3) for name in ("FL", "EFL")),
    )


def wide() -> tuple[Case, ...]:
    """The losses and the form that the demo favoured, with the prior of own data of that size and with a higher one."""
    named = {"QFL": LOSSES["QFL"], "EQFL": EQFL, BEST: FORMS[BEST]}
    high: Settings = {"prior_prob": 0.03}
    middle: Settings = {"prior_prob": 0.01}
    return (
        *(
            Case(f"{name}, prior rest, RFS", {**named[name], "category_prior": "rest", **RFS}, 3, exp_file=PRIORS_FILE)
            for name in ("QFL", BEST)
        ),
        *(Case(f"{n}, prior 0.01, RFS", {**named[n], **middle, **RFS}, 3) for n in ("QFL", BEST)),
        *(Case(f"{name}, RFS", {**settings, **RFS}, 3) for name, settings in named.items()),
        *(Case(f"{name}, prior 0.03, RFS", {**settings, **high, **RFS}, 3) for name, settings in named.items()),
        *(Case(f"{n}, prior 0.03, RFS power 1", {**named[n], **high, **RFS, **REPEATS["power 1"]}, 3) for n in named),
        Case("QFL, prior 0.01, RFS power 1", {**LOSSES["QFL"], **middle, **RFS, **REPEATS["power 1"]}, 3),
        *(Case(f"{n}, paste, prior 0.03, RFS", {**named[n], **PASTE, **high, **RFS}, 3) for n in ("QFL", "EQFL")),
        *(Case(name, LOSSES[name], 3) for name in ("QFL", "EQFL")),
    )
