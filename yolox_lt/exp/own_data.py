"""The base of experiments on a user's own data."""

from __future__ import annotations

from typing import ClassVar

from yolox_lt.errors import UserError
from yolox_lt.exp.agreement import is_explicit
from yolox_lt.exp.choices import MODELS, Choice, choose, data_facts, default_iterations, white_share
from yolox_lt.exp.yolox import YOLOXStarExp


class OwnDataExp(YOLOXStarExp):
    """YOLOX* fine-tuned from COCO, with what suits the user's data: a few hundred to a few thousand images.

    A file sets where the data is (`data_dir`, `train_ann`, `val_ann`) and whatever else it wants. What it leaves out is
    chosen from the training annotations and the length of the run when training starts, see `exp.choices`, and said
    with its reason. `tools/train.py --data PATH` writes a file in which every choice stands.
    """

    # stock model whose size and COCO weights the run takes
    model: str = "yolox-nano"
    # optimiser steps of the whole run; None = 30 passes over the images, at least 1,500 steps
    iterations: int | None = None

    train_images = val_images = test_images = None
    batch_size = 8
    weight_decay = 0.02
    cls_bias_decay = 0.02
    data_num_workers = 1

    positive_fields: ClassVar[frozenset[str]] = YOLOXStarExp.positive_fields | {"iterations"}

    chosen_names: ClassVar[frozenset[str]] = frozenset(
        {"depth", "width", "depthwise", "start_from", "input_size", "test_size", "multiscale_range", "epoch_iters"}
        | {"max_epoch", "warmup_epochs", "no_aug_epochs", "eval_interval", "optimizer", "basic_lr_per_img"}
        | {"ema_decay", "ema_ramp", "prior_prob", "fresh_std", "sampler", "repeat_thresh", "keep_empty"}
        | {"mosaic_prob", "mosaic_scale", "enable_mixup", "flip_prob", "cls_loss"}
    )
    """Settings that are chosen where the user does not give them."""

    def left_to_data(self) -> frozenset[str]:
        """Names of settings that the file leaves out: set by `settle`; in evaluation a checkpoint's count."""
        names = {name for name in self.chosen_names if not is_explicit(self, name)}
        return super().left_to_data() | names

    def settle(self, batch_size: int) -> list[Choice]:
        """Choose from the training annotations what the file leaves out.

        Raises:
            UserError: an unknown `model`, no training image has a box.
        """
        said = super().settle(batch_size)
        open_names = self.left_to_data()
        if not open_names:
            return said
        chosen = [choice for choice in self.choices(batch_size) if choice.name in open_names]
        for choice in chosen:
            setattr(self, choice.name, choice.value)
        return [*said, *chosen]

    def choices(self, batch_size: int, length: Choice | None = None) -> list[Choice]:
        """Every choice for the data, those that the file overrides too; what depends on a size that it gives follows.

        Args:
            batch_size: images of a step. length: iterations of the whole run; None: those of `iterations`.

        Raises:
            UserError: an unknown `model`, no training image has a box.
        """
        if self.model not in MODELS:
            raise UserError(f"model {self.model!r}: unknown; choose one of {', '.join(MODELS)}")
        index = self.get_index("train")
        facts = data_facts(index, white_share(self.get_store("train"), self.skip_bad_images))
        if facts.boxes == 0:
            raise UserError(f"{index.path}: no training image has a box; check the annotations")
        if length is None and self.iterations is not None:
            length = Choice("iterations", self.iterations, f"iterations {self.iterations}")
        length = length or default_iterations(facts, batch_size)
        size = self.input_size if is_explicit(self, "input_size") else None
        found = choose(facts, length, batch_size, self.model, size)
        stock = MODELS[self.model]
        same = all(getattr(self, name) == value for name, value in stock.items() if is_explicit(self, name))
        return found if same else [choice for choice in found if choice.name != "start_from"]
