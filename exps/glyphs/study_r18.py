"""The small ResNet detector of studies, on the glyphs of study.py: the paper's baseline; cases turn it into others."""

from __future__ import annotations

from yolox_lt.exp import GlyphResNetExp


class Exp(GlyphResNetExp):
    num_classes = 90
    data_folder = "glyphs_study"
    glyph_image_size, glyph_train_images, glyph_val_images = 96, 2400, 300
    glyph_object_size = (20, 44)
    short_sides, long_side, test_size, group_aspect = (64,), 64, (64, 64), False
    anchor_scales, loss_scale = (3,), 4.0
    prior_prob, sampler, repeat_thresh = 0.05, "uniform", 100 / 2400
    optimizer, basic_lr_per_img, weight_decay = "adamw", 0.002 / 16, 0.02
    batch_size, warmup_epochs, max_epoch, milestones = 16, 0.2, 2, ()
    eval_interval, save_history_ckpt, data_num_workers, epoch_length = 100, False, 0, "dataset"
