"""The data half of an experiment: where annotations and images are, how they are sampled."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from loguru import logger

from yolox_lt.data.collate import Collate
from yolox_lt.data.dataset import EvalDataset, EvalTransform, ImageStore, Recipe, TrainDataset, default_data_root
from yolox_lt.data.frequency import repeat_factors
from yolox_lt.data.index import AnnotationIndex
from yolox_lt.data.loader import Batches, eval_loader, train_loader
from yolox_lt.data.sampler import DrawSampler, SampleStream, iterations_per_epoch
from yolox_lt.errors import UserError
from yolox_lt.exp.base import BaseExp

FILES_TO_PROBE = 20
"""Images whose existence is checked before anything starts."""


class DataExp(BaseExp):
    """Settings of data and sampling, and what they build. Defaults are COCO's."""

    # --------------------------------------------------------------- data
    num_classes: int = 80
    # root of the data set; None = $YOLOX_DATADIR (or ./datasets), then data_folder
    data_dir: str | None = None
    data_folder: str = "COCO"
    # annotation files: a path, or a name below data_dir/annotations or data_dir
    train_ann: str = "instances_train2017.json"
    val_ann: str = "instances_val2017.json"
    test_ann: str = "instances_test2017.json"
    # folders below data_dir that hold the images; None = as the annotation file says, then data_dir/images
    train_images: str | None = "train2017"
    val_images: str | None = "val2017"
    test_images: str | None = "test2017"
    # train on images without objects too
    keep_empty: bool = True
    # replace unreadable images by others and report them, instead of stopping at the first
    skip_bad_images: bool = False
    # loader processes per rank
    data_num_workers: int = 4
    # seconds without a batch after which loader processes count as hung, 0 = wait for ever
    worker_timeout: float = 600

    # --------------------------------------------------------------- sampling
    # uniform or repeat_factor
    sampler: str = "uniform"
    # image fraction below which a category's images are repeated
    repeat_thresh: float = 0.001
    # ceil (released models), stochastic, round or floor
    repeat_rounding: str = "ceil"
    # what one epoch counts: dataset (images once, as the released YOLOX models) or repeated (the repeated list)
    epoch_length: str = "dataset"
    # at most so many iterations an epoch, None = all
    max_iter: int | None = None

    # batches of wide or of tall images only, so that little is padding
    group_aspect: bool = False
    # images of which share are mirrored
    flip_prob: float = 0.5

    def prepare_data(self) -> None:
        """Called before annotations are read; an experiment that makes its own data does it here."""

    def data_root(self) -> Path:
        """Root folder of the data set."""
        return Path(self.data_dir) if self.data_dir is not None else default_data_root() / self.data_folder

    def get_index(self, split: Literal["train", "val"]) -> AnnotationIndex:
        """Annotations of a split.

        Raises:
            UserError: no such file, or another number of categories than `num_classes`.
        """
        self.prepare_data()
        name, root = (self.train_ann if split == "train" else self.val_ann), self.data_root()
        places = [Path(name), root / "annotations" / name, root / name]
        path = next((p for p in places if p.is_file()), None)
        if path is None:
            raise UserError(
                f"{places[1]}: annotation file not found; set data_dir (now {str(root)!r}) or {split}_ann, "
                "or export YOLOX_DATADIR"
            )
        index = AnnotationIndex.load(path)
        if len(index.category_ids) != self.num_classes:
            raise UserError(
                f"{path}: has {len(index.category_ids)} categories but num_classes is {self.num_classes}; "
                f"set num_classes {len(index.category_ids)}"
            )
        return index

    def get_store(self, split: Literal["train", "val"], cache: bool = False) -> ImageStore:
        """Images of a split; a sample of the files is looked for at once.

        Raises:
            UserError: none of the files looked for exists.
        """
        index = self.get_index(split)
        folder = self.train_images if split == "train" else self.val_images
        store = ImageStore(index, self.data_root(), folder, cache)
        probes = np.unique(np.linspace(0, len(index) - 1, FILES_TO_PROBE).astype(int)).tolist()
        missing = [store.path(p) for p in probes if not store.path(p).is_file()]
        if len(missing) == len(probes):
            raise UserError(
                f"{missing[0]}: no image of {index.path} found there; set data_dir or {split}_images, "
                "so that data_dir/folder/name is the file"
            )
        if missing and not self.skip_bad_images:
            raise UserError(f"{missing[0]}: image file not found; complete the data set, or set skip_bad_images True")
        return store

    def train_positions(self, index: AnnotationIndex) -> np.ndarray:
        """Positions of the images that are trained on.

        Raises:
            UserError: no image is left.
        """
        has_boxes = np.diff(np.concatenate([[0], np.cumsum(index.usable)])[index.box_offsets]) > 0
        positions = np.arange(len(index)) if self.keep_empty else np.flatnonzero(has_boxes)
        if not has_boxes.any():
            raise UserError(f"{index.path}: no image has a usable box; there is nothing to train on")
        return positions

    def train_image_counts(self) -> np.ndarray | None:
        """Training images of each category, None when the training annotations are not at hand."""
        try:
            return self.get_index("train").image_counts
        except UserError as error:
            logger.warning(f"frequency groups unknown, the validation file has none: {error}")
            return None

    def get_factors(self, index: AnnotationIndex, positions: np.ndarray) -> np.ndarray:
        """Repeat factor of each training image, by `sampler`."""
        if self.sampler == "uniform":
            return np.ones(len(positions), dtype=np.int64)
        if self.repeat_rounding not in ("ceil", "stochastic", "round", "floor"):
            raise UserError(
                f"repeat_rounding {self.repeat_rounding!r} is unknown; choose one of ceil, stochastic, round, floor"
            )
        if self.sampler == "repeat_factor":
            return repeat_factors(index, self.repeat_thresh, self.repeat_rounding, positions)  # type: ignore[arg-type]
        raise UserError(f"sampler {self.sampler!r} is unknown; choose one of uniform, repeat_factor")

    def epoch_images(self, factors: np.ndarray) -> int:
        """Images that one epoch counts, by `epoch_length`."""
        if self.epoch_length == "dataset":
            return len(factors)
        if self.epoch_length == "repeated":
            return int(np.ceil(factors.sum()))
        raise UserError(f"epoch_length {self.epoch_length!r} is unknown; choose one of dataset, repeated")

    def iterations_per_epoch(self, factors: np.ndarray, batch_size: int, world: int) -> int:
        """Optimiser steps of one epoch for a total batch of `batch_size`."""
        iterations = iterations_per_epoch(self.epoch_images(factors), world, batch_size // world)
        return iterations if self.max_iter is None else min(iterations, self.max_iter)

    def batch_groups(self, index: AnnotationIndex, positions: np.ndarray) -> np.ndarray | None:
        """Group of each training image, 0 tall or 1 wide; None when batches may be mixed."""
        if not self.group_aspect:
            return None
        height, width = index.sizes[positions].T
        return (width >= height).astype(np.int64)

    def get_augment(self) -> Recipe:
        """What makes training samples."""
        raise NotImplementedError

    def get_eval_transform(self) -> EvalTransform:
        """What brings an image to the network at test time."""
        raise NotImplementedError

    def get_collate(self) -> Collate:
        """What pads images to a batch."""
        raise NotImplementedError

    def get_dataset(self, cache: bool = False, seed: int = 0) -> TrainDataset:
        """Training samples."""
        store = self.get_store("train", cache)
        return TrainDataset(store, self.train_positions(store.index), self.get_augment(), seed, self.skip_bad_images)

    def get_sampler(self, factors: np.ndarray, seed: int, rank: int, world: int) -> SampleStream:
        """The endless stream of images of one rank."""
        return SampleStream(factors, seed, rank, world)

    def get_data_loader(self, dataset: TrainDataset, sampler: DrawSampler, pin_memory: bool = False) -> Batches:
        """Training batches."""
        return train_loader(
            dataset, sampler, self.get_collate(), self.data_num_workers, pin_memory, self.worker_timeout
        )

    def get_eval_dataset(self) -> EvalDataset:
        """Validation images as the network sees them."""
        return EvalDataset(self.get_store("val"), self.get_eval_transform(), self.skip_bad_images)

    def get_eval_loader(self, batch_size: int, rank: int, world: int, pin_memory: bool) -> Batches:
        """Validation batches, every image once over all ranks."""
        dataset, collate = self.get_eval_dataset(), self.get_collate()
        return eval_loader(
            dataset, collate, batch_size, self.data_num_workers, pin_memory, rank, world, self.worker_timeout
        )
