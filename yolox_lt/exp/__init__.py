"""Experiments: classes whose attributes are the settings and whose methods build the parts of a run."""

from yolox_lt.exp.build import get_exp
from yolox_lt.exp.glyphs import GlyphExp
from yolox_lt.exp.lvis import LVISExp, LVISStarExp
from yolox_lt.exp.yolox import Exp, StarExp

__all__ = ["Exp", "GlyphExp", "LVISExp", "LVISStarExp", "StarExp", "get_exp"]
