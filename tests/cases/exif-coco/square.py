from pathlib import Path
from yolox_lt.exp import StarExp


class Exp(StarExp):
    def __init__(self):
        super().__init__()
        self.data_dir = str(Path(__file__).parent)
        self.train_ann, self.val_ann = "square.json", "square.json"
        self.train_images = self.val_images = "images"
        self.num_classes = 3
        self.depth, self.width = 0.33, 0.125
        self.input_size = self.test_size = (128, 160)
        self.multiscale_range, self.mosaic_scale, self.enable_mixup = 0, (0.8, 1.2), False
        self.mosaic_prob = 0.0
        self.batch_size, self.basic_lr_per_img = 8, 0.02 / 8
        self.max_epoch, self.warmup_epochs, self.no_aug_epochs, self.eval_interval = 2, 0, 0, 2
        self.ema_decay, self.data_num_workers = 0.98, 0
        self.seed = 1
        self.print_interval = 5
        pass
