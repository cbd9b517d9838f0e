"""Experiments: classes whose attributes are the settings and whose methods build the parts of a run."""

from yolox_lt.exp.build import get_exp
from yolox_lt.exp.data import DataExp
from yolox_lt.exp.detection import DetectorExp
from yolox_lt.exp.glyphs import GlyphExp, GlyphResNetExp
from yolox_lt.exp.lvis import LVIS05Data, LVISData, LVISExp, LVISStarExp
from yolox_lt.exp.openimages import OpenImagesData
from yolox_lt.exp.resnet import ATSSExp, FCOSExp, PAAExp, ResNetExp, RetinaNetExp
from yolox_lt.exp.yolox import Exp, StarExp

__all__ = [
    "ATSSExp",
    "DataExp",
    "DetectorExp",
    "Exp",
    "FCOSExp",
    "GlyphExp",
    "GlyphResNetExp",
    "LVIS05Data",
    "LVISData",
    "LVISExp",
    "LVISStarExp",
    "OpenImagesData",
    "PAAExp",
    "ResNetExp",
    "RetinaNetExp",
    "StarExp",
    "get_exp",
]
