"""Open Images Challenge 2019: 500 categories, a schedule counted in iterations."""

from __future__ import annotations

from yolox_lt.exp.data import DataExp


class OpenImagesData(DataExp):
    """Data and schedule of the paper's Table 7, for the ResNet models; its files come from tools/convert_dataset.py.

    180,000 iterations with drops at 120,000 and 160,000, as 18 "epochs" of 10,000; warm-up of 500 iterations and one
    image size as in the released configuration. Batch and learning rate are those of the ResNet models.
    """

    num_classes = 500
    data_folder = "openimages"
    train_ann = "challenge2019_train.index"
    val_ann = "challenge2019_val.index"
    test_ann = "challenge2019_val.index"
    # as the index says: the folder given to the converter, then <ImageID>.jpg
    train_images = None
    val_images = None
    test_images = None
    keep_empty = False
    sampler = "uniform"
    epoch_length = "dataset"

    max_iter = 10_000
    max_epoch = 18
    milestones = (12, 16)
    warmup_epochs = 0
    warmup_iters = 500
    eval_interval = 6

    short_sides = (800,)
    long_side = 1333
    test_size = (800, 1333)
