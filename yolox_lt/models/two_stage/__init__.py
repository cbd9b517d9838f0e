"""Detectors in two stages: proposals of regions, then their classification (Ren et al., Faster R-CNN, 2015)."""

from yolox_lt.models.two_stage.region_detector import RegionPredictions, TwoStageDetector, build_two_stage

__all__ = ["RegionPredictions", "TwoStageDetector", "build_two_stage"]
