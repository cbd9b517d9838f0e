"""The base of experiments on a user's own data."""

from __future__ import annotations

from yolox_lt.exp.yolox import YOLOXStarExp


class OwnDataExp(YOLOXStarExp):
    """YOLOX* with what suits a few hundred to a few thousand images, fine-tuned from COCO.

    `tools/train.py --data PATH` writes a file with a class of this kind, every setting chosen from the data (see
    `exp.choices`); a file written by hand sets at least `data_dir`, `train_ann`, `val_ann` and `num_classes`.
    """

    train_images = val_images = test_images = None
    prior_prob = 0.01
    fresh_std = 0.001
    cls_loss = "qfl"
    sampler = "repeat_factor"
    repeat_thresh = 0.05
    keep_empty = True
    optimizer = "adamw"
    basic_lr_per_img = 0.004 / 8
    weight_decay = 0.02
    cls_bias_decay = 0.02
    batch_size = 8
    multiscale_range = 0
    mosaic_scale = (0.8, 1.5)
    enable_mixup = False
    ema_decay = 0.998
    warmup_epochs = 0.5
    no_aug_epochs = 1
    data_num_workers = 1
