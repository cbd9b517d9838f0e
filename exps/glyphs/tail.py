"""The pair of make demo: 90 glyphs with a long tail, from YOLOX-Nano's weights; a minute and a half of one core.

As it stands with repeat-factor sampling and EQFL; `sampler uniform cls_loss qfl` is the plain run.
"""

from yolox_lt.exp import GlyphExp


class Exp(GlyphExp):
    num_classes = 90
    data_folder = "glyphs_study"
    glyph_image_size, glyph_train_images, glyph_val_images = 96, 2400, 300
    glyph_object_size = (20, 44)
    depth, width, depthwise, start_from = 0.33, 0.25, True, "yolox-nano"
    input_size = test_size = (96, 96)
    multiscale_range, mosaic_prob = 0, 0.0
    prior_prob, sampler, repeat_thresh, repeat_rounding = 0.05, "repeat_factor", 0.1, "stochastic"
    optimizer, basic_lr_per_img, seed = "adamw", 0.002 / 16, 0
    weight_decay = cls_bias_decay = 0.02
    batch_size, warmup_epochs, max_epoch, no_aug_epochs = 16, 0.5, 3, 1
    eval_interval, ema_decay, data_num_workers, save_history_ckpt = 100, 0.998, 0, False
