"""What a part says, measures and decides; every line is written at once."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

PASS, FAIL, MISSED, NOT_RUN = "PASS", "FAIL", "MISSED REACH", "NOT RUN"


@dataclass(frozen=True)
class Setup:
    """How a part runs.

    device: cuda, or cpu for a rehearsal. tiny: small sizes. out: folder of results. work: folder of data and runs,
    which nobody needs afterwards.
    """

    device: str
    tiny: bool
    out: Path
    work: Path


@dataclass
class Report:
    """Lines and figures of one part.

    figures: what was measured, by name. failed: checks that do not hold. missed: reaches that are not met.
    reason: why the part, or some of it, could not run.
    """

    stream: TextIO = sys.stdout
    figures: dict[str, Any] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    reason: str = ""

    def say(self, text: str) -> None:
        """One line."""
        print(text, file=self.stream, flush=True)

    def figure(self, name: str, value: float | int | str, unit: str = "") -> None:
        """A figure that was measured."""
        self.figures[name] = value
        shown = f"{value:.4g}" if isinstance(value, float) else str(value)
        self.say(f"{name}: {shown} {unit}".rstrip())

    def check(self, name: str, holds: bool) -> None:
        """Something that must hold."""
        self.say(f"{'ok' if holds else 'FAILED'}: {name}")
        if not holds:
            self.failed.append(name)

    def reach(self, name: str, value: float, bound: float, at_least: bool = True) -> None:
        """A figure with a bound that is asked for."""
        met = value >= bound if at_least else value <= bound
        self.figures[name] = value
        self.say(f"{name}: {value:.4g}, asked for {'at least' if at_least else 'at most'} {bound:g}: {met}")
        if not met:
            self.missed.append(name)

    def not_run(self, reason: str) -> None:
        """The part cannot run here."""
        self.reason = reason

    def verdict(self) -> str:
        """PASS, FAIL, MISSED REACH or NOT RUN; a failed check counts more than a missed reach."""
        if self.failed:
            return FAIL
        if self.missed:
            return MISSED
        return NOT_RUN if self.reason and not self.figures else PASS

    def as_dict(self) -> dict[str, Any]:
        """For the result file."""
        parts = {"verdict": self.verdict(), "failed": self.failed, "missed": self.missed, "reason": self.reason}
        return {**parts, "figures": self.figures}


def read_result(path: Path) -> dict[str, Any] | None:
    """What a part has left, None if it ended before."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
