"""yolox_lt: YOLOX-style training of detectors on long-tailed data (EFL, EQFL)."""

from yolox_lt.api import LoadedDetector, load
from yolox_lt.errors import UserError

__all__ = ["LoadedDetector", "UserError", "load"]
__version__ = "0.1.0"
