"""Your own data: copy this file, change the lines below, run python tools/train.py -f your_file.py

Annotations are COCO or LVIS json; images lie where the json's file_name says below data_dir or data_dir/images.
As it stands it trains three kinds of blood cells (BCCD) from scratch on two CPU cores in about half an hour.
"""

from yolox_lt.exp import YOLOXStarExp


class Exp(YOLOXStarExp):
    def __init__(self):
        super().__init__()
        self.data_dir = "datasets/bccd"
        self.train_ann, self.val_ann, self.test_ann = "train.json", "val.json", "test.json"
        self.train_images = self.val_images = self.test_images = None
        self.num_classes = 3
        self.prior_prob = 0.01  # 0.001 is for a thousand categories
        self.depth, self.width = 0.33, 0.25  # 0.33, 0.5 is YOLOX-S
        self.input_size = self.test_size = (256, 320)  # height, width
        self.multiscale_range, self.mosaic_scale, self.enable_mixup = 1, (0.5, 1.5), False
        self.batch_size, self.basic_lr_per_img = 16, 0.02 / 16
        self.max_epoch, self.warmup_epochs, self.no_aug_epochs, self.eval_interval = 120, 3, 20, 20
        self.ema_decay, self.data_num_workers = 0.998, 1
