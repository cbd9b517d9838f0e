"""yolox_lt: YOLOX-style training of detectors on long-tailed data (EFL, EQFL)."""

__version__ = "0.1.0"
