"""Foreign checkpoints become ours: official YOLOX, released EFL/EQFL files, torchvision's ResNets."""

from yolox_lt.convert.conversion import convert
from yolox_lt.convert.conversion_report import Conversion

__all__ = ["Conversion", "convert"]
