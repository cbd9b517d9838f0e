"""EQFL on glyphs: the demo of the README, minutes on two CPU cores."""

from yolox_lt.exp import GlyphExp


class Exp(GlyphExp):
    def __init__(self):
        super().__init__()
        self.seed = 0
        self.depth, self.width = 0.33, 0.25
        self.input_size = self.test_size = (128, 128)
        self.multiscale_range = 0
        self.mosaic_scale = (0.7, 1.3)
        self.mosaic_prob = 0.5
        self.enable_mixup = False
        self.flip_prob = 0.0  # a mirrored glyph is another glyph
        self.basic_lr_per_img = 0.02 / 16
        self.warmup_epochs, self.max_epoch, self.no_aug_epochs = 1, 8, 2
        self.batch_size, self.eval_interval = 16, 4
        self.ema_decay = 0.998
        self.data_num_workers = 1
