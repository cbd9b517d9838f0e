"""YOLOX-M* on LVIS v1 with equalized focal loss (paper, Table 8)."""

from yolox_lt.exp import LVISStarExp


class Exp(LVISStarExp):
    def __init__(self):
        super().__init__()
        self.depth, self.width = 0.67, 0.75
        self.cls_loss = "efl"
        self.loss_scale = 4.0
