"""EQFL on glyphs: the demo of the README, minutes on two CPU cores."""

from yolox_lt.exp import GlyphExp


class Exp(GlyphExp):
    def __init__(self):
        super().__init__()
        self.seed = 0
        self.depth, self.width = 0.33, 0.25
        self.input_size = self.test_size = (128, 128)
        self.multiscale_range = 0
        self.mosaic_prob, self.mosaic_scale, self.enable_mixup = 0.5, (0.7, 1.3), False
        self.repeat_thresh = 0.1
        self.basic_lr_per_img = 0.04 / 16
        self.warmup_epochs, self.max_epoch, self.no_aug_epochs = 1, 11, 1
        self.batch_size, self.eval_interval = 16, 5
        self.ema_decay = 0.998
        self.data_num_workers = 1
