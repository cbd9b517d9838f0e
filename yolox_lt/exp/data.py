"""The data half of an experiment: where annotations and images are, how they are sampled."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from loguru import logger

from yolox_lt.data.annotations.formats import FORMATS
from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.data.annotations.reader import Reader
from yolox_lt.data.annotations.source import Source, split_of
from yolox_lt.data.augment.copy_paste import copy_paste
from yolox_lt.data.augment.own_transforms import OwnTransforms
from yolox_lt.data.collate import Collate
from yolox_lt.data.dataset import EvalDataset, EvalTransform, ImageStore, Recipe, TrainDataset, default_data_root
from yolox_lt.data.frequency import factors_by
from yolox_lt.data.image_file import highest_level
from yolox_lt.data.loader import Batches, eval_loader, train_loader
from yolox_lt.data.sampling.sampler import SampleSampler, SampleStream, iterations_per_epoch
from yolox_lt.errors import UserError
from yolox_lt.exp.choices import Choice
from yolox_lt.exp.settings import BaseExp

FILES_TO_PROBE = 20
"""Images whose existence is checked before anything starts."""


class DataExp(BaseExp):
    """Settings of data and sampling, and what they build. Defaults are COCO's."""

    # --------------------------------------------------------------- data
    # left out: the number of categories of the training annotations
    num_classes: int = 80
    # root of the data set; None = $YOLOX_DATADIR (or ./datasets), then data_folder
    data_dir: str | None = None
    data_folder: str = "COCO"
    # annotations: a path, or a name below data_dir/annotations or data_dir; several are joined. COCO or LVIS json, a
    # VOC folder or list, a YOLO data.yaml ("data.yaml:test" for another split than the one that is asked for)
    train_ann: str | tuple[str, ...] = "instances_train2017.json"
    # None: the run is trained without being scored, and has no best.pth
    val_ann: str | tuple[str, ...] | None = "instances_val2017.json"
    test_ann: str | tuple[str, ...] = "instances_test2017.json"
    # folders below data_dir that hold the images, one or one for each file; None = as the annotations say, then
    # data_dir/images
    train_images: str | tuple[str, ...] | None = "train2017"
    val_images: str | tuple[str, ...] | None = "val2017"
    test_images: str | tuple[str, ...] | None = "test2017"
    # format of the annotations: auto (by looking), coco, voc or yolo
    data_format: str = "auto"
    # classes in the order of their labels, for VOC and for YOLO folders without a data.yaml
    class_names: tuple[str, ...] = ()
    # json file of names: category -> its new name, or null to leave it out
    category_map: str | None = None
    # score only validation images whose path begins so, or whose ids a file lists (LVIS minival: val2017/)
    val_subset: str | None = None
    # share of the images of train_ann that are held out for validation, in place of val_ann; None = val_ann has them
    val_share: float | None = None
    # train on images without objects too
    keep_empty: bool = True
    # replace unreadable images by others and report them, instead of stopping at the first
    skip_bad_images: bool = False
    # loader processes per rank
    data_num_workers: int = 4
    # seconds without a batch after which loader processes count as hung, 0 = wait for ever
    worker_timeout: float = 600

    # --------------------------------------------------------------- sampling
    # uniform, repeat_factor, instance_repeat_factor (IRFS) or class_balanced
    sampler: str = "uniform"
    # image fraction below which a category's images are repeated
    repeat_thresh: float = 0.001
    # r_c = (repeat_thresh / f_c)^repeat_power, at most repeat_cap
    repeat_power: float = 0.5
    repeat_cap: float | None = None
    # ceil (released models), stochastic, round or floor
    repeat_rounding: str = "ceil"
    # what one epoch counts: dataset (images once, as the released YOLOX models) or repeated (the repeated list)
    epoch_length: str = "dataset"
    # partners of mosaic and mixup: uniform over the images (released models), or same, drawn as the sampler draws
    partners: str = "uniform"
    # at most this many iterations per epoch, None = all. A round number states a run in iterations: with 10,000 it has
    # max_epoch and milestones (in epochs) times 10,000 of them; the epoch permutation continues across epochs
    max_iter: int | None = None
    # exactly this many iterations per epoch, however many images there are; None = by epoch_length and max_iter
    epoch_iters: int | None = None

    # batches of wide or of tall images only, so that little is padding
    group_aspect: bool = False
    # objects pasted into each image on average until the closing epochs, half of them of categories that
    # repeat_thresh repeats; 0: none
    copy_paste: float = 0.0
    # images of which share are mirrored
    flip_prob: float = 0.5

    def prepare_data(self) -> None:
        """Called before annotations are read; an experiment that makes its own data does it here."""

    def data_root(self) -> Path:
        """Root folder of the data set."""
        return Path(self.data_dir) if self.data_dir is not None else default_data_root() / self.data_folder

    def get_source(self, split: Literal["train", "val"]) -> Source:
        """Where the annotations of a split are.

        Raises:
            UserError: no such file, or the validation of an experiment without.
        """
        if self.val_share is not None and not 0 < self.val_share < 1:
            raise UserError(f"val_share {self.val_share:g}: give a share of the images above 0 and below 1, or None")
        own = split == "val" and self.val_share is None
        names, folders = (self.val_ann, self.val_images) if own else (self.train_ann, self.train_images)
        if names is None:
            raise UserError(
                f"{split}_ann is None: there are no annotations to score with; give val_ann FILE (and val_images "
                "FOLDER)"
            )
        return Source(
            tuple(self.find(name, f"{split}_ann") for name in ([names] if isinstance(names, str) else names)),
            self.data_format,
            split,
            tuple(self.class_names),
            self.find(self.category_map, "category_map") if self.category_map else None,
            self.val_subset if split == "val" else None,
            str(self.data_root()),
            () if folders is None or isinstance(folders, str) else tuple(folders),
            self.val_share,
            self.get_formats(),
        )

    def splits(self) -> tuple[Literal["train", "val"], ...]:
        """The splits that there are."""
        return ("train", "val") if self.val_ann is not None or self.val_share is not None else ("train",)

    def evaluate_on(self, ann: str | tuple[str, ...], images: str | tuple[str, ...] | None) -> None:
        """Score other annotations than those of validation: all of their images, no held-out part of `train_ann`."""
        self.val_ann, self.val_images, self.val_subset, self.val_share = ann, images, None, None

    def left_to_data(self) -> frozenset[str]:
        """Names of settings left to the data: `settle` sets them; an evaluation takes them from the checkpoint."""
        owner = next(cls for cls in type(self).__mro__ if "num_classes" in vars(cls))
        return frozenset({"num_classes"} if owner is DataExp and "num_classes" not in vars(self) else ())

    def settle(self, batch_size: int) -> list[Choice]:
        """Set what `left_to_data` names by the training annotations, for steps of `batch_size` images; returns it."""
        if "num_classes" not in self.left_to_data():
            return []
        index = AnnotationIndex.load(self.get_source("train"))
        self.num_classes = len(index.category_ids)
        return [Choice("num_classes", self.num_classes, f"categories of {index.path}")]

    def get_formats(self) -> dict[str, Reader]:
        """The formats that annotations may have, by name; one of your own is `FORMATS | {"name": Reader(...)}`."""
        return FORMATS

    def find(self, name: str, setting: str) -> str:
        """Path of a file, also of a folder of data_dir, with the split that a data.yaml may have at its end."""
        path, mark = split_of(name, "")
        root = self.data_root()
        places = [path, root / "annotations" / path, root / path]
        found = next((p for p in places if p.is_file()), next((p for p in places[::-1] if p.is_dir()), None))
        if found is None:
            raise UserError(
                f"{places[1]}: annotation file not found; set data_dir (now {str(root)!r}) or {setting}, "
                "or export YOLOX_DATADIR"
            )
        return f"{found}:{mark}" if mark else str(found)

    def get_index(self, split: Literal["train", "val"]) -> AnnotationIndex:
        """Annotations of a split.

        Raises:
            UserError: no such file, or training annotations with another number of categories than `num_classes`.
        """
        self.prepare_data()
        index = AnnotationIndex.load(self.get_source(split))
        # Validation files may list the categories that occur in them alone; they are matched by name.
        if split == "train" and len(index.category_ids) != self.num_classes:
            raise UserError(
                f"{index.path}: has {len(index.category_ids)} categories but num_classes is {self.num_classes}; "
                f"set num_classes {len(index.category_ids)}"
            )
        return index

    def read_annotations(self) -> None:
        """Read the annotations of all splits, which leaves their index beside them for whoever reads them next."""
        for split in self.splits():
            self.get_index(split)

    def get_store(self, split: Literal["train", "val"], cache: bool = False) -> ImageStore:
        """Images of a split; a sample of the files is looked for at once.

        Raises:
            UserError: none of the files looked for exists.
        """
        index = self.get_index(split)
        whole = split == "train" or self.val_share is not None  # one set has one folder
        folder = self.train_images if whole else self.val_images
        # With a folder for every file the index already has them in the names.
        store = ImageStore(index, self.data_root(), folder if isinstance(folder, str) else None, cache)
        probes = np.unique(np.linspace(0, len(index) - 1, FILES_TO_PROBE).astype(int)).tolist()
        missing = [store.path(p) for p in probes if not store.path(p).is_file()]
        if len(missing) == len(probes):
            raise UserError(
                f"{missing[0]}: no image of {index.path} found there; set data_dir or {split}_images, "
                "so that data_dir/folder/name is the file"
            )
        if missing and not self.skip_bad_images:
            raise UserError(f"{missing[0]}: image file not found; complete the data set, or set skip_bad_images True")
        levels = {p: highest_level(store.path(p)) for p in probes if store.path(p).is_file()}
        deep = {p: level for p, level in levels.items() if level is not None}
        if deep and max(deep.values()) < 2**15:
            note = (
                f"{store.path(next(iter(deep)))}: has 16 bits, but {len(deep)} such images use only the values up to "
                f"{max(deep.values())} of 65535, so in 8 bits they are nearly black; scale them to the whole range"
            )
            store.notes = (note,)
            logger.warning(note)
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

    def train_box_counts(self) -> np.ndarray | None:
        """Training boxes of each category, those around groups too; None when the annotations are not at hand."""
        try:
            index = self.get_index("train")
        except UserError as error:
            logger.warning(f"AP1 to AP5 unknown, they go by training boxes: {error}")
            return None
        return np.bincount(index.labels, minlength=len(index.category_ids))

    def get_factors(self, index: AnnotationIndex, positions: np.ndarray) -> np.ndarray:
        """Repeat factor of each training image, by `sampler`."""
        more = self.repeat_rounding, self.repeat_power, self.repeat_cap
        return factors_by(self.sampler, index, positions, self.repeat_thresh, *more)

    def partner_factors(self, index: AnnotationIndex, positions: np.ndarray) -> np.ndarray | None:
        """What partners of mosaic and mixup are drawn in proportion to, by `partners`; None: uniformly."""
        if self.partners == "uniform":
            return None
        if self.partners == "same":
            return self.get_factors(index, positions)
        raise UserError(f"partners {self.partners!r} is unknown; choose one of uniform, same")

    def epoch_images(self, factors: np.ndarray) -> int:
        """Images that one epoch counts, by `epoch_length`."""
        if self.epoch_length == "dataset":
            return len(factors)
        if self.epoch_length == "repeated":
            return int(np.ceil(factors.sum()))
        raise UserError(f"epoch_length {self.epoch_length!r} is unknown; choose one of dataset, repeated")

    def iterations_per_epoch(self, factors: np.ndarray, batch_size: int, world: int) -> int:
        """Optimiser steps of one epoch for a total batch of `batch_size`."""
        if self.epoch_iters is not None:
            return self.epoch_iters if self.max_iter is None else min(self.epoch_iters, self.max_iter)
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

    def get_transforms(self) -> OwnTransforms | None:
        """What is done to each training sample after `get_augment`, for example torchvision.transforms.v2: a callable
        (image, target) -> (image, target), see `data.augment.own_transforms`. None: nothing.
        """
        return None

    def get_eval_transform(self) -> EvalTransform:
        """What brings an image to the network at test time."""
        raise NotImplementedError

    def get_collate(self) -> Collate:
        """What pads images to a batch."""
        raise NotImplementedError

    def get_dataset(self, cache: bool = False, seed: int = 0) -> TrainDataset:
        """Training samples."""
        store = self.get_store("train", cache)
        positions = self.train_positions(store.index)
        partners = self.partner_factors(store.index, positions)
        thresholds = self.repeat_thresh, self.repeat_power
        paste = copy_paste(store.index, positions, self.copy_paste, *thresholds) if self.copy_paste else None
        parts = seed, self.skip_bad_images, partners, self.get_transforms(), paste
        return TrainDataset(store, positions, self.get_augment(), *parts)

    def get_sampler(self, factors: np.ndarray, seed: int, rank: int, world: int) -> SampleStream:
        """The endless stream of images of one rank."""
        return SampleStream(factors, seed, rank, world)

    def get_data_loader(self, dataset: TrainDataset, sampler: SampleSampler, pin_memory: bool = False) -> Batches:
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
