"""yolox_lt: YOLOX-style training of detectors on long-tailed data (EFL, EQFL)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from yolox_lt.errors import UserError
from yolox_lt.version import __version__

if TYPE_CHECKING:
    from yolox_lt.api import load
    from yolox_lt.inference import LoadedDetector

__all__ = ["LoadedDetector", "UserError", "__version__", "load"]


def __getattr__(name: str) -> Any:
    """`load` and `LoadedDetector`, imported when first used: the command line sets up OpenMP before torch is loaded."""
    if name in ("LoadedDetector", "load"):
        from yolox_lt import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
