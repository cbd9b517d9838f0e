"""The small detector of studies: YOLOX* on 90 glyphs, less than a minute on one core."""

from yolox_lt.exp import GlyphExp


class Exp(GlyphExp):
    num_classes = 90
    data_folder = "glyphs_study"
    glyph_image_size, glyph_train_images, glyph_val_images = 96, 2400, 300
    glyph_object_size = (20, 44)
    depth, width = 0.33, 0.125
    input_size = test_size = (96, 96)
    multiscale_range, mosaic_prob, enable_mixup, hsv_prob = 0, 0.0, False, 0.0
    prior_prob, sampler, repeat_thresh = 0.05, "uniform", 100 / 2400
    optimizer, basic_lr_per_img = "adamw", 0.002 / 16
    weight_decay = cls_bias_decay = 0.02
    batch_size, warmup_epochs, max_epoch, no_aug_epochs = 16, 0.2, 2, 0
    eval_interval, save_history_ckpt, data_num_workers = 100, False, 0
