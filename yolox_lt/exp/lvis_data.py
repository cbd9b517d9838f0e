"""LVIS v1 (1203 categories) and v0.5 (1230), images below the COCO folders that `coco_url` names."""

from __future__ import annotations

from yolox_lt.exp.data import DataExp
from yolox_lt.exp.yolox import Exp, YOLOXStarExp


class LVISData(DataExp):
    """Where LVIS v1 is expected: data_dir/annotations/lvis_v1_*.json, data_dir/train2017, data_dir/val2017.

    `val_subset val2017/` scores minival, the validation images that are not in COCO's train2017.
    """

    num_classes = 1203
    data_folder = "lvis"
    train_ann = "lvis_v1_train.json"
    val_ann = "lvis_v1_val.json"
    test_ann = "lvis_v1_image_info_test_dev.json"
    # validation images lie in both COCO folders: only coco_url tells
    train_images = None
    val_images = None
    test_images = None
    # images without annotations are left out, as in the released models
    keep_empty = False
    sampler = "repeat_factor"


class LVIS05Data(LVISData):
    """Where LVIS v0.5 is expected: data_dir/annotations/lvis_v0.5_*.json; another vocabulary and other ids than v1."""

    num_classes = 1230
    train_ann = "lvis_v0.5_train.json"
    val_ann = "lvis_v0.5_val.json"
    test_ann = "lvis_v0.5_image_info_test.json"


class LVISExp(LVISData, Exp):
    """YOLOX as it is, on LVIS: SimOTA, objectness, sigmoid loss (paper, Table 8, "Sigmoid").

    Scored as LVIS asks: several categories a place, 300 boxes of any score.
    """

    multi_label = True
    test_conf = 0.0
    pre_nms = 1000


class LVISStarExp(LVISData, YOLOXStarExp):
    """YOLOX* on LVIS (paper, Table 8); `cls_loss` says which row."""
