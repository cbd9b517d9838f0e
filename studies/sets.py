"""Every set of the study by name."""

from __future__ import annotations

from studies.grid import Set, detectors, full_sets, losses, scans, two_stage
from studies.tail import KEPT, WIDE, tail, wide

SETS: dict[str, Set] = {
    "cpu": Set(losses(3)),
    "mechanism": Set(scans(3)),
    "two_stage": Set(two_stage(3)),
    "detectors": Set(detectors(3), KEPT),
    "tail": Set(tail(), KEPT),
    "wide": Set(wide(), WIDE),
    **full_sets(),
}


def chosen(name: str) -> dict[str, Set]:
    """The sets called `name`; "full" means all of the full study.

    Raises:
        KeyError: no such set.
    """
    if name == "full":
        return {key: value for key, value in SETS.items() if key.startswith("full-")}
    return {name: SETS[name]}
