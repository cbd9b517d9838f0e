"""EQFL on 30 glyphs from random weights, minutes on two CPU cores."""

from yolox_lt.exp import GlyphExp


class Exp(GlyphExp):
    def __init__(self):
        super().__init__()
        self.seed = 0
        self.depth, self.width = 0.33, 0.25
        self.input_size = self.test_size = (128, 128)
        self.multiscale_range = 0
        self.mosaic_prob, self.repeat_thresh = 0.0, 0.1
        self.optimizer, self.basic_lr_per_img = "adamw", 0.002 / 16
        self.weight_decay, self.cls_bias_decay = 0.02, 0.02
        self.warmup_epochs, self.max_epoch, self.no_aug_epochs = 0.5, 9, 1
        self.batch_size, self.eval_interval = 16, 3
        self.ema_decay, self.data_num_workers = 0.998, 1
