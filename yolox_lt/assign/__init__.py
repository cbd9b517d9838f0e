"""Label assigners: which prior answers for which object. One algorithm a file, no state, no gradient."""

from .atss import ATSSAssigner
from .simota import SimOTAAssigner

__all__ = ["ATSSAssigner", "SimOTAAssigner"]
