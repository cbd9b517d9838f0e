"""What a conversion did, as a text, and the commands that use its result."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from yolox_lt.convert.official import KIND as OFFICIAL_KIND
from yolox_lt.convert.released import RESNET_KIND, YOLOX_KIND

PUBLISHED = {
    "YOLOX-S*": (("yolox_s_efl.py", "EFL", 23.3), ("yolox_s_eqfl.py", "EQFL", 24.2)),
    "YOLOX-M*": (("yolox_m_efl.py", "EFL", 30.0), ("yolox_m_eqfl.py", "EQFL", 31.0)),
    "ResNet-50": (("efl_r50.py", "EFL", 27.5),),
    "ResNet-101": (("efl_r101.py", "EFL", 29.2),),
}
"""Model -> (file below exps/lvis, loss, published AP on LVIS v1 val)."""

LVIS_CATEGORIES = 1203

PUBLISHED_KINDS = (YOLOX_KIND, RESNET_KIND)


@dataclass(frozen=True)
class Conversion:
    """A finished conversion.

    Attributes:
        source, target: the two files.
        kind: what the source is.
        model: short name of the model, for example YOLOX-S* (the star: with the EFL head) or ResNet-50.
        num_classes: categories, None for a backbone.
        place: where in the source the weights were, "" for the file itself.
        matched: our names of all tensors written.
        missing, unexpected: tensors of the model, or of the source, without a counterpart; empty, or nothing would have
            been written.
        reordered: our name -> what was reordered.
        dropped: source name -> why it was left out.
        notes: further sentences.
    """

    source: Path
    target: Path
    kind: str
    model: str
    num_classes: int | None
    place: str
    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    reordered: dict[str, str]
    dropped: dict[str, str]
    notes: tuple[str, ...]

    def text(self) -> str:
        """The report, one fact a line."""
        weights = f", weights under {self.place}" if self.place else ""
        categories = f", {self.num_classes} categories" if self.num_classes is not None else ""
        lines = [
            f"{self.source}: {self.kind}{weights}",
            f"{self.target}: {self.model}{categories}",
            f"  {len(self.matched)} tensors matched, {len(self.missing)} missing, {len(self.unexpected)} unexpected, "
            f"{len(self.reordered)} reordered, {len(self.dropped)} dropped",
            *group_lines("reordered", self.reordered),
            *group_lines("dropped", self.dropped),
            *(f"  {note}" for note in self.notes),
        ]
        return "\n".join(lines)

    def commands(self, exp_file: str | None = None) -> list[str]:
        """Command lines that use the result; `exp_file` is the experiment the conversion was given.

        The published AP stands beside a command as a comment: it has not been confirmed with the released files.
        """
        if self.num_classes is None:
            return [f"python tools/train.py -f EXP resnet_depth {self.model[7:]} backbone_weights {self.target}"]
        return [*self.scoring(exp_file), f"python tools/demo.py image --path PHOTO -c {self.target}"]

    def scoring(self, exp_file: str | None) -> list[str]:
        """The command that gives the AP: with the experiment given, else those of the stock files that fit."""
        is_lvis = self.kind in PUBLISHED_KINDS and self.num_classes == LVIS_CATEGORIES
        published = PUBLISHED.get(self.model, ()) if is_lvis else ()
        if exp_file is None and published:
            return [
                f"python tools/eval.py -f exps/lvis/{file} -c {self.target}"
                f"  # published AP {ap} if trained with {loss}, to be confirmed by whoever has the files"
                for file, loss, ap in published
            ]
        if exp_file is None and self.kind == OFFICIAL_KIND and self.model.startswith("YOLOX-"):
            return [f"python tools/eval.py -n {self.model.lower()} -c {self.target}"]
        return [f"python tools/eval.py -f {exp_file or 'EXP'} -c {self.target}"]


def group_lines(what: str, entries: dict[str, str]) -> list[str]:
    """One line per reason with the names it applies to."""
    reasons = list(dict.fromkeys(entries.values()))
    return [f"  {what} ({reason}): {', '.join(n for n, r in entries.items() if r == reason)}" for reason in reasons]
