"""Experiments: classes whose attributes are the settings and whose methods build the parts of a run."""

from yolox_lt.exp.data import DataExp
from yolox_lt.exp.detection import DetectorExp
from yolox_lt.exp.glyph_data import GlyphExp, GlyphResNetExp, GlyphTwoStageExp
from yolox_lt.exp.load import get_exp
from yolox_lt.exp.lvis_data import LVIS05Data, LVISData, LVISExp, LVISStarExp
from yolox_lt.exp.openimages_data import OpenImagesData
from yolox_lt.exp.own_data import OwnDataExp
from yolox_lt.exp.resnet import ATSSExp, FCOSExp, PAAExp, ResNetExp, RetinaNetExp
from yolox_lt.exp.two_stage import ClassifierExp, TwoStageExp
from yolox_lt.exp.yolox import Exp, YOLOXStarExp

__all__ = [
    "ATSSExp",
    "ClassifierExp",
    "DataExp",
    "DetectorExp",
    "Exp",
    "FCOSExp",
    "GlyphExp",
    "GlyphResNetExp",
    "GlyphTwoStageExp",
    "LVIS05Data",
    "LVISData",
    "LVISExp",
    "LVISStarExp",
    "OpenImagesData",
    "OwnDataExp",
    "PAAExp",
    "ResNetExp",
    "RetinaNetExp",
    "StarExp",
    "TwoStageExp",
    "YOLOXStarExp",
    "get_exp",
]

StarExp = YOLOXStarExp
"""The earlier name, which users' files may have."""
