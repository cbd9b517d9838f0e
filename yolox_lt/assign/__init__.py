"""Label assigners: which prior answers for which object. One algorithm a file, no state, no gradient."""

from yolox_lt.assign.atss import ATSSAssigner
from yolox_lt.assign.base import BaseAssigner, Targets
from yolox_lt.assign.fcos import FCOSAssigner
from yolox_lt.assign.max_iou import MaxIoUAssigner
from yolox_lt.assign.paa import PAAAssigner
from yolox_lt.assign.roi_assigner import BalancedSampler, RoIAssigner
from yolox_lt.assign.rpn_assigner import RPNAssigner
from yolox_lt.assign.simota import SimOTAAssigner

__all__ = [
    "ATSSAssigner",
    "BalancedSampler",
    "BaseAssigner",
    "FCOSAssigner",
    "MaxIoUAssigner",
    "PAAAssigner",
    "RPNAssigner",
    "RoIAssigner",
    "SimOTAAssigner",
    "Targets",
]
