"""Every setting that a message names exists: a remedy that names none helps nobody."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from yolox_lt.exp import ClassifierExp, Exp, GlyphExp, ResNetExp

PACKAGE = Path(__file__).resolve().parents[1] / "yolox_lt"
SETTINGS = frozenset().union(*(cls().attributes() for cls in (Exp, GlyphExp, ResNetExp, ClassifierExp)))

OTHERS = frozenset(
    # keys of annotation, result and checkpoint files
    {
        "category_id",
        "coco_url",
        "ema_state_dict",
        "file_name",
        "format_version",
        "image_count",
        "image_id",
        "parent_ids",
    }
    | {"per_category", "state_dict"}
    # methods of experiments
    | {"get_preprocessor", "get_transforms"}
    # values of settings and names of files
    | {
        "class_balanced",
        "convert_dataset",
        "instance_repeat_factor",
        "max_iou",
        "repeat_factor",
        "two_stage",
        "yolox_lt",
    }
    | {"faster_rcnn_r50_bags", "yolox_s_eqfl", "yoloxwarmcos_released"}
    # arguments of classes that Python users call
    | {"categories_json", "hsv_kind", "min_iou", "neg_iou", "num_anchors", "num_categories", "num_convs", "pos_iou"}
)
"""Words with an underscore in messages that are no settings."""


def words_of_messages() -> dict[str, set[str]]:
    """Words with an underscore in the texts of errors and warnings -> files."""
    found: dict[str, set[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = getattr(node, "func", None)
            if getattr(called, "id", getattr(called, "attr", "")) not in ("UserError", "unknown", "warning"):
                continue
            texts = [part.value for argument in node.args for part in ast.walk(argument) if is_text(part)]
            for word in re.findall(r"\b[a-z]+(?:_[a-z0-9]+)+\b", " ".join(texts)):
                found.setdefault(word, set()).add(path.name)
    return found


def is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def test_messages__name_settings_that_exist():
    words = words_of_messages()
    assert len(words.keys() & SETTINGS) > 20
    assert {word: files for word, files in words.items() if word not in SETTINGS | OTHERS} == {}
