"""The small two-stage detector of studies, on the glyphs of study.py."""

from __future__ import annotations

from yolox_lt.assign import BalancedSampler
from yolox_lt.criterion import TrainingCriterion
from yolox_lt.exp import GlyphTwoStageExp


class Exp(GlyphTwoStageExp):
    num_classes = 90
    data_folder = "glyphs_study"
    glyph_image_size, glyph_train_images, glyph_val_images = 96, 2400, 300
    glyph_object_size = (20, 44)
    short_sides, long_side, test_size, group_aspect = (96,), 96, (96, 96), False
    class_agnostic_boxes, head_width, eql_threshold = True, 128, 100 / 2400
    repeat_thresh = 100 / 2400
    optimizer, basic_lr_per_img, weight_decay = "adamw", 0.002 / 16, 0.02
    batch_size, warmup_iters, max_epoch, milestones = 16, 30, 1, ()
    eval_interval, save_history_ckpt, data_num_workers, epoch_length = 100, False, 0, "dataset"

    def get_criterion(self) -> TrainingCriterion:
        """64 regions of an image instead of 512: most of a step's time on a CPU is their RoIAlign."""
        criterion = super().get_criterion()
        criterion.roi_sampler = BalancedSampler(64, 0.25)
        return criterion
