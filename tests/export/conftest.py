"""Pictures, detectors and exported files, made once a session."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.export.detectors import pictures, random_detector
from yolox_lt.export import ExportOptions, export
from yolox_lt.export.compare import Difference
from yolox_lt.inference import LoadedDetector


@dataclass(frozen=True)
class Exported:
    """A detector, the file made of it, and the difference that was measured."""

    detector: LoadedDetector
    path: Path
    difference: Difference


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    return pictures(tmp_path_factory.mktemp("export") / "glyphs")


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, images: list[np.ndarray]) -> Callable[..., Exported]:
    """exported("star", format="onnx", nms=True, ...): the kind of detector and the options of the export."""
    folder, made = tmp_path_factory.mktemp("exported"), {}

    def make(kind: str, **options: object) -> Exported:
        key = (kind, *sorted(options.items()))
        if key not in made:
            detector = random_detector(kind, images)
            path = folder / f"{len(made)}.{options.get('format', 'onnx')}"
            made[key] = Exported(detector, path, export(detector, path, ExportOptions(**options), images))
        return made[key]

    return make
