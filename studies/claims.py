"""What the paper claims, and what the controls ask, as paired comparisons of two cases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from studies.grid import DETECTORS
from studies.tail import BEST

Run = tuple[str, str]
"""(set, case): what all seeds of a comparison share."""


@dataclass(frozen=True)
class Claim:
    """ "`ours` has more of `metric` than `theirs`", or as much, within `within` points."""

    text: str
    ours: Run
    theirs: Run
    metric: str
    kind: Literal["more", "same"] = "more"
    within: float = 1.0


def main(name: str) -> Run:
    return "cpu", name


def scan(name: str) -> Run:
    return "mechanism", name


def both(text: str, ours: str, theirs: str, metric: str, kind: Literal["more", "same"] = "more") -> list[Claim]:
    """A claim without and with RFS."""
    return [
        Claim(text, main(ours), main(theirs), metric, kind),
        Claim(f"{text}, with RFS", main(f"{ours}, RFS"), main(f"{theirs}, RFS"), metric, kind),
    ]


def rare_and_all(text: str, ours: Run, theirs: Run) -> list[Claim]:
    """A claim by AP_r and by AP: one may hide what the other shows."""
    return [Claim(text, ours, theirs, metric) for metric in ("APr_300", "AP_300")]


LOSS_CLAIMS: list[Claim] = [
    *both("EFL lifts rare categories over FL (Tables 1, 2, 6)", "EFL", "FL", "APr_300"),
    *both("EFL lifts AP over FL", "EFL", "FL", "AP_300"),
    *both("Frequent categories lose at most a point by EFL", "EFL", "FL", "APf_300", "same"),
    *both("EQFL lifts rare categories over QFL (Table 8)", "EQFL", "QFL", "APr_300"),
    *both("EQFL lifts AP over QFL", "EQFL", "QFL", "AP_300"),
    *both("QFL is better than FL (Table 8)", "QFL", "FL", "AP_300"),
    *both("FL is better than the sigmoid loss (Table 8, there with other changes)", "FL", "sigmoid", "AP_300"),
    Claim(
        "FL is better than the sigmoid loss, both with prior 0.01",
        scan("FL, prior 0.01"),
        scan("sigmoid, prior 0.01"),
        "AP_300",
    ),
    *both("EFL widens the score margin of rare categories (Figure 4)", "EFL", "FL", "margin_r"),
]

PART_CLAIMS: list[Claim] = [
    *rare_and_all("The weighting factor alone helps (Table 3)", scan("EFL, weighting only"), main("FL")),
    *rare_and_all("The focusing factor alone helps (Table 3)", scan("EFL, focusing only"), main("FL")),
    *rare_and_all("Both are better than weighting alone (Table 3)", main("EFL"), scan("EFL, weighting only")),
    *rare_and_all("Both are better than focusing alone (Table 3)", main("EFL"), scan("EFL, focusing only")),
    *rare_and_all("s = 4 is better than s = 1 (Table 4)", main("EFL"), scan("EFL, s 1")),
    *rare_and_all("s = 4 is better than s = 2 (Table 4)", main("EFL"), scan("EFL, s 2")),
    *rare_and_all("s = 8 is better than s = 2 (Table 4)", scan("EFL, s 8"), scan("EFL, s 2")),
    *rare_and_all("s = 8 is better than s = 4 (Table 4)", scan("EFL, s 8"), main("EFL")),
    *rare_and_all("s = 8 is better than s = 12 (Table 4)", scan("EFL, s 8"), scan("EFL, s 12")),
    Claim(
        "On balanced data EFL equals FL (Table 9)",
        scan("EFL, balanced data"),
        scan("FL, balanced data"),
        "AP_300",
        "same",
    ),
    Claim("Decay of the classifier's bias helps EFL (section 5)", main("EFL"), scan("EFL, bias decay none"), "AP_300"),
]

CLAIMS = [*LOSS_CLAIMS, *PART_CLAIMS]

WEIGHT_CONTROLS: list[Claim] = [
    Claim("Three times the classification loss lifts FL", main("FL x 3"), main("FL"), "APr_300"),
    Claim("EFL beats FL of three times its weight", main("EFL"), main("FL x 3"), "APr_300"),
    *both("At three times the weight EFL still beats FL", "EFL x 3", "FL x 3", "APr_300"),
    *both("At three times the weight EFL still has more AP", "EFL x 3", "FL x 3", "AP_300"),
    Claim("With SGD, three times the classification loss lifts FL", scan("FL x 3, SGD"), scan("FL, SGD"), "APr_300"),
    Claim("With SGD, three times the classification loss lifts FL", scan("FL x 3, SGD"), scan("FL, SGD"), "AP_300"),
    *rare_and_all("With SGD, EFL beats FL of three times its weight", scan("EFL, SGD"), scan("FL x 3, SGD")),
    Claim("With SGD, EFL beats FL", scan("EFL, SGD"), scan("FL, SGD"), "APr_300"),
    Claim("With SGD, EFL beats FL at three times the weight", scan("EFL x 3, SGD"), scan("FL x 3, SGD"), "APr_300"),
    Claim("Three times the classification loss lifts EFL", main("EFL x 3"), main("EFL"), "AP_300"),
    Claim("With SGD, three times the classification loss lifts EFL", scan("EFL x 3, SGD"), scan("EFL, SGD"), "AP_300"),
]

SAMPLING_CONTROLS: list[Claim] = [
    *both("EFL beats FL at 20 detections an image", "EFL", "FL", "APr_20"),
    *both("EQFL beats QFL at 20 detections an image", "EQFL", "QFL", "APr_20"),
    Claim("EFL beats FL by AP-fixed", main("EFL"), main("FL"), "APr_fixed"),
    Claim("EQFL beats QFL by AP-fixed", main("EQFL"), main("QFL"), "APr_fixed"),
    Claim("RFS lifts FL", main("FL, RFS"), main("FL"), "APr_300"),
    Claim("RFS lifts EFL", main("EFL, RFS"), main("EFL"), "APr_300"),
    Claim("RFS lifts EQFL", main("EQFL, RFS"), main("EQFL"), "APr_300"),
    Claim("RFS lifts frequent categories of FL", main("FL, RFS"), main("FL"), "APf_300"),
    Claim("RFS lifts frequent categories of EFL", main("EFL, RFS"), main("EFL"), "APf_300"),
    Claim("RFS lifts frequent categories of EQFL", main("EQFL, RFS"), main("EQFL"), "APf_300"),
    *both("EQFL is better than EFL", "EQFL", "EFL", "AP_300"),
]

SETTING_CONTROLS: list[Claim] = [
    Claim("A statistic without alpha is better for EFL", scan("EFL, statistic without alpha"), main("EFL"), "APr_300"),
    Claim("A stronger decay of the bias helps EFL", scan("EFL, bias decay 15"), main("EFL"), "APr_300"),
    Claim("With prior 0.01 EFL is better than FL", scan("EFL, prior 0.01"), scan("FL, prior 0.01"), "APr_300"),
    Claim("With prior 0.1 EFL is better than FL", scan("EFL, prior 0.1"), scan("FL, prior 0.1"), "APr_300"),
    Claim("EFL is better with prior 0.05 than with 0.01", main("EFL"), scan("EFL, prior 0.01"), "AP_300"),
    Claim("EFL is better with prior 0.05 than with 0.1", main("EFL"), scan("EFL, prior 0.1"), "AP_300"),
    Claim("FL is better with prior 0.05 than with 0.01", main("FL"), scan("FL, prior 0.01"), "AP_300"),
    *rare_and_all("EFL with prior 0.05 beats FL with 0.01", main("EFL"), scan("FL, prior 0.01")),
]

CONTROLS = [*WEIGHT_CONTROLS, *SAMPLING_CONTROLS, *SETTING_CONTROLS]

SOFTMAX = ("two_stage", "Faster R-CNN, softmax")

TWO_STAGE: list[Claim] = [
    claim
    for case in ("Faster R-CNN, EQL", "Faster R-CNN, EQLv2", "Faster R-CNN, Seesaw", "cRT", "BAGS")
    for claim in rare_and_all(f"{case} is better than softmax (Tables 1, 2)", ("two_stage", case), SOFTMAX)
]

DETECTOR_CLAIMS: list[Claim] = [
    claim
    for name in DETECTORS
    for claim in rare_and_all(
        f"EFL is better than FL on {name} (Table 6)", ("detectors", f"{name}, EFL"), ("detectors", f"{name}, FL")
    )
]

FORM_PAIRS = [
    ("uniform, EQFL", "uniform, QFL"),
    ("RFS, EQFL", "RFS, QFL"),
    ("RFS, EQFL, loss_ratio relative", "RFS, QFL"),
    ("RFS, EQFL, loss_ratio samples", "RFS, QFL"),
    ("RFS, EQFL, loss_ratio samples, loss_focus negatives", "RFS, QFL"),
    ("RFS, EQFL, loss_ratio samples, loss_focus negatives", "RFS, EQFL"),
]
"""Cases of ratio.csv that are compared with each other."""


def tail(name: str) -> Run:
    return "tail", name


def wide(name: str) -> Run:
    return "wide", name


KEPT_CLAIMS: list[Claim] = [
    *rare_and_all("EFL is better than FL", tail("EFL"), tail("FL")),
    *rare_and_all("EFL is better than FL, with RFS", tail("EFL, RFS"), tail("FL, RFS")),
    *rare_and_all("EQFL is better than QFL", tail("EQFL"), tail("QFL")),
    *rare_and_all("EQFL is better than QFL, with RFS", tail("EQFL, RFS"), tail("QFL, RFS")),
    *rare_and_all("RFS lifts QFL", tail("QFL, RFS"), tail("QFL")),
    *rare_and_all("EQLv2 & FL is better than FL (Table 1)", tail("EQLv2 & FL"), tail("FL")),
    *rare_and_all("EQLv2 & FL is better than FL, with RFS (Table 1)", tail("EQLv2 & FL, RFS"), tail("FL, RFS")),
    *rare_and_all("EFL is better than EQLv2 & FL, with RFS (Table 1)", tail("EFL, RFS"), tail("EQLv2 & FL, RFS")),
    Claim("Clipping at norm 35 helps EFL (Table 5)", tail("EFL, clipped"), tail("EFL"), "AP_300"),
    Claim("The longer warm-up helps EFL (Table 5)", tail("EFL"), tail("EFL, short warm-up"), "AP_300"),
    Claim("The longer warm-up helps FL (Table 5)", tail("FL"), tail("FL, short warm-up"), "AP_300"),
]
"""The main comparisons, and those of Tables 1 and 5 of the paper, with the prior kept."""

TAIL_PAIRS: list[tuple[Run, Run]] = [
    *((tail(f"{name}, RFS"), tail("QFL, RFS")) for name in ("EQFL", "EQFL samples, negatives", "EQFL relative")),
    *((tail(f"{name}, RFS"), tail("QFL, RFS")) for name in ("EQFL samples", "EQFL window", "EQFL negatives", "EVFL")),
    *((tail(f"{n}, prior 0.01, RFS"), tail("QFL, prior 0.01, RFS")) for n in ("EQFL", "EQFL samples, negatives")),
    (tail("EQFL samples, negatives, RFS"), tail("EQFL, RFS")),
    *((tail(f"{n}, paste, RFS"), tail(f"{n}, RFS")) for n in ("QFL", "EQFL", "EQFL samples, negatives")),
    (tail("QFL, RFS"), tail("QFL, prior 0.01, RFS")),
    (tail("QFL, RFS, 6 epochs"), tail("QFL, prior 0.01, RFS, 6 epochs")),
    (tail("EQFL, RFS"), tail("QFL, prior 0.01, RFS")),
    (tail("EQFL samples, negatives, prior 0.01, RFS"), tail("EQFL, RFS")),
    *((tail(f"QFL, prior {kind}, RFS"), tail("QFL, RFS")) for kind in ("rest", "share")),
    *((tail(f"EQFL, prior {kind}, RFS"), tail(f"QFL, prior {kind}, RFS")) for kind in ("rest", "share")),
    *((tail(f"{name}, prior rest, RFS"), tail("EQFL, RFS")) for name in ("QFL", "EQFL")),
]
"""What is compared for the default of own data."""

WIDE_PAIRS: list[tuple[Run, Run]] = [
    *((wide(f"{name}, RFS"), wide("QFL, RFS")) for name in ("EQFL", "EQFL samples, negatives")),
    *((wide(f"{n}, prior 0.03, RFS"), wide("QFL, prior 0.03, RFS")) for n in ("EQFL", "EQFL samples, negatives")),
    (wide("QFL, prior 0.03, RFS"), wide("QFL, prior 0.01, RFS")),
    (wide("QFL, prior 0.01, RFS"), wide("QFL, RFS")),
    *((wide(f"{n}, prior 0.03, RFS"), wide("QFL, RFS")) for n in ("EQFL", "EQFL samples, negatives")),
    *((wide(f"{n}, paste, prior 0.03, RFS"), wide(f"{n}, prior 0.03, RFS")) for n in ("QFL", "EQFL")),
    (wide("EQFL"), wide("QFL")),
    (wide("QFL, RFS"), wide("QFL")),
    (wide("QFL, prior rest, RFS"), wide("QFL, prior 0.03, RFS")),
    (wide("EQFL samples, negatives, prior rest, RFS"), wide("QFL, prior rest, RFS")),
]
"""The same with 640 categories."""

REPEAT_PAIRS: list[tuple[Run, Run]] = [
    *((tail(f"QFL, RFS {repeats}"), tail("QFL, RFS")) for repeats in ("power 1", "cap 3")),
    (tail("QFL, prior 0.01, RFS power 1"), tail("QFL, prior 0.01, RFS")),
    *((wide(f"QFL, prior {p}, RFS power 1"), wide(f"QFL, prior {p}, RFS")) for p in ("0.03", "0.01")),
    *((tail("QFL, RFS power 1"), tail(f"{name}, RFS")) for name in ("EQFL", BEST)),
    (wide("QFL, prior 0.03, RFS power 1"), wide("EQFL, prior 0.03, RFS")),
    *((tail(f"{name}, RFS power 1"), tail(f"{name}, RFS")) for name in ("EQFL", BEST)),
    *((wide(f"{n}, prior 0.03, RFS power 1"), wide(f"{n}, prior 0.03, RFS")) for n in ("EQFL", BEST)),
    *((tail(f"{name}, RFS power 1"), tail("QFL, RFS power 1")) for name in ("EQFL", BEST)),
    *((wide(f"{n}, prior 0.03, RFS power 1"), wide("QFL, prior 0.03, RFS power 1")) for n in ("EQFL", BEST)),
]
"""Repeat factors of power 1, or with a cap, against those of power 0.5, and against losses and on top of them."""

OWN_PAIRS: list[tuple[Run, Run]] = [
    *(
        (("muscima", name), ("muscima", "QFL"))
        for name in ("EQFL", "EQFL samples, negatives", "QFL, paste", "QFL, prior rest")
    ),
    *(
        (("glyphs60", name), ("glyphs60", "QFL"))
        for name in ("EQFL samples, negatives", "QFL, paste", "QFL, prior 0.05")
    ),
    (("muscima", "QFL, power 1"), ("muscima", "QFL")),
    (("glyphs60", "QFL, no mosaic"), ("glyphs60", "QFL")),
    (("glyphs60", "QFL, no mosaic, power 1"), ("glyphs60", "QFL, no mosaic")),
]
"""Cases of own.csv that are compared."""
