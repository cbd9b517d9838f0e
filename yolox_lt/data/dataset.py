"""Images and boxes of an annotation index, for training and for evaluation.

A data set pickles small: the index reopens its memory-mapped cache in each worker.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote

import numpy as np
from loguru import logger
from torch.utils.data import Dataset

from yolox_lt.data.annotations.index import AnnotationIndex
from yolox_lt.data.annotations.json_text import name_of
from yolox_lt.data.augment.copy_paste import CopyPaste
from yolox_lt.data.augment.own_transforms import OwnTransforms, apply_own
from yolox_lt.data.augment.transforms import Sample, fit
from yolox_lt.data.collate import Item
from yolox_lt.data.image_file import MAX_PIXELS, BadImageError, read_image_file
from yolox_lt.data.sampling.sampler import SampleRequest
from yolox_lt.errors import UserError

MAX_REPLACEMENTS = 20
"""Unreadable images in a row that are replaced before a run with `skip_bad_images` gives up."""

OLD_NAME = re.compile(r"COCO_\w+2014_(\d{12}\.jpg)$")
"""LVIS v0.5 names files of 2017 so, which have no such prefix."""


class ImageStore:
    """Where an index's images lie and how they are read.

    Args:
        index: the annotations.
        data_dir: root of the data set.
        folder: folder below `data_dir` that holds the files; None = as the annotation file says (`coco_url`, then
            `file_name`) below `data_dir`, then below `data_dir/images`. Names are tried as `spellings` lists them.
        cache: decode every image now and keep it in memory, shared by loader processes that are forked later.
    """

    def __init__(
        self, index: AnnotationIndex, data_dir: str | Path, folder: str | None = None, cache: bool = False
    ) -> None:
        self.index = index
        self.data_dir = Path(data_dir)
        self.folder = folder
        self.memory: dict[int, np.ndarray] = {}
        self.notes: tuple[str, ...] = ()  # what is wrong with the files that were looked at, a sentence each
        if cache:
            logger.info(f"{index.path}: keeping {len(index):,} images in memory, {self.bytes() / 2**30:.1f} GiB")
            self.fill_memory()

    def fill_memory(self) -> None:
        """Keep every readable image; an unreadable one stays out, so that reading it later reports it as ever."""
        for position in range(len(self.index)):
            with contextlib.suppress(BadImageError):
                self.memory[position] = self.read(position)

    def bytes(self) -> int:
        """Size of all decoded images."""
        return int(3 * self.index.sizes.prod(axis=1).sum())

    def path(self, position: int) -> Path:
        """Path of the image at `position` of the index; the file need not exist.

        Raises:
            UserError: a name that leads out of `data_dir`. Links inside it may lead anywhere.
        """
        name = self.index.file_name(position)
        root = self.data_dir if self.folder is None else self.data_dir / self.folder
        roots = [root, root / "images"] if self.folder is None else [root]
        for spelt in spellings(name):
            for place in roots:
                path = os.path.join(place, spelt)
                if os.path.exists(path) and not leads_out(spelt, self.data_dir if self.folder is None else root):
                    return Path(path)
        if leads_out(name, self.data_dir) and self.folder is None:
            raise UserError(
                f"{name_of(self.index.path)}: image id {self.index.image_ids[position]} has the path {name!r}, which "
                f"leads out of {os.path.abspath(self.data_dir)}, and there is no file of that name in it; set "
                "train_images (or val_images) to the folder that holds the images, or correct the path"
            )
        return Path(root, name if self.folder is None else spellings(name)[-1])

    def read(self, position: int) -> np.ndarray:
        """uint8 [H, W, 3] BGR, see `read_image_file`.

        Raises:
            BadImageError: missing, undecodable, too large, or of another size than the annotations say.
        """
        if position in self.memory:
            return self.memory[position]
        height, width = self.index.sizes[position].tolist()
        return read_image_file(self.path(position), width, height, f"image id {self.index.image_ids[position]}")


def spellings(name: str) -> list[str]:
    """How a file may be called below its folder that annotations call `name`, the likeliest first.

    As it stands; with backslashes as slashes; with %20 and the like decoded; with the name that LVIS v0.5 writes for
    files of 2017; the last part of each alone, as tools write paths of the machine that they ran on.
    """
    slashes = name.replace("\\", "/")
    whole = list(dict.fromkeys((name, slashes, unquote(slashes))))
    last = [text.rpartition("/")[2] for text in whole]
    old = OLD_NAME.match(last[0])
    return list(
        dict.fromkeys([*whole, *([f"{slashes.rpartition('/')[0]}/{old[1]}".lstrip("/"), old[1]] if old else []), *last])
    )


def leads_out(name: str, root: str | Path) -> bool:
    """Whether a name below `root` leads out of it. Links inside it may lead anywhere."""
    if ".." not in name and not os.path.isabs(name):
        return False
    base = os.path.abspath(root)
    return os.path.commonpath([base, os.path.abspath(os.path.join(root, name))]) != base


class Recipe(Protocol):
    """How a training sample is made: see `Augment` and `ShortSideAugment`."""

    def __call__(
        self,
        index: int,
        rng: np.random.Generator,
        use_mosaic: bool,
        read: Callable[[int], Sample],
        partner: Callable[[np.random.Generator], int],
    ) -> Sample: ...


class EvalTransform(Protocol):
    """How an image is brought to the network at test time: see `Letterbox` and `ShortSideTransform`."""

    @property
    def fill(self) -> int: ...

    # input_size(height, width) -> (height, width), if there is one, tells what size comes out, for `eval_loader`.

    def __call__(self, image: np.ndarray, image_id: int = 0) -> Item: ...


class TrainDataset(Dataset[Item]):
    """Augmented training samples; what is made depends on the draw alone, not on the process that makes it.

    Args:
        store: images and annotations.
        images: positions in the index that are trained on; draws and mosaic partners refer to this list.
        augment: the recipe.
        seed: of the run; every draw has the generator (seed, number of the draw).
        skip_bad_images: replace unreadable images by another one and name them in the item, instead of stopping.
        partner_factors: [images], mosaic and mixup partners are drawn in proportion to these; None: uniformly, as in
            the released models.
        transforms: a user's own, after the recipe; None for none.
        paste: pastes rare objects into the images of strong samples; None for none.
    """

    def __init__(
        self,
        store: ImageStore,
        images: np.ndarray,
        augment: Recipe,
        seed: int = 0,
        skip_bad_images: bool = False,
        partner_factors: np.ndarray | None = None,
        transforms: OwnTransforms | None = None,
        paste: CopyPaste | None = None,
    ) -> None:
        self.store = store
        self.images = images
        self.augment = augment
        self.seed = seed
        self.skip_bad_images = skip_bad_images
        self.transforms = transforms
        self.paste = paste
        self.partner_ends = None if partner_factors is None else np.cumsum(partner_factors, dtype=np.float64)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, request: SampleRequest) -> Item:
        rng = np.random.default_rng([self.seed, request.number])
        image, skipped = request.image, []
        read = self.sample if self.paste is None or not request.use_mosaic else self.paste.reader(self.sample, rng)
        while True:
            try:
                sample = self.augment(image, rng, request.use_mosaic, read, self.partner)
                break
            except BadImageError as error:
                if not self.skip_bad_images:
                    raise
                skipped.append(error.path)
                if len(skipped) > MAX_REPLACEMENTS:
                    raise UserError(
                        f"{MAX_REPLACEMENTS + 1} images in a row cannot be read, the last one because: {error}"
                    ) from error
                image = self.partner(rng)
        if self.transforms is not None:
            sample = apply_own(self.transforms, sample, rng)
        position = self.images[image]
        height, width = sample.image.shape[:2]
        return Item(
            sample.image,
            sample.boxes,
            sample.labels,
            int(self.store.index.image_ids[position]),
            (height, width),
            (int(self.store.index.sizes[position, 0]), int(self.store.index.sizes[position, 1])),
            tuple(skipped),
        )

    def sample(self, image: int) -> Sample:
        """The image at this place of the list, as on disk, with its usable boxes."""
        position = int(self.images[image])
        return Sample(
            self.store.read(position), self.store.index.boxes_of(position), self.store.index.labels_of(position)
        )

    def partner(self, rng: np.random.Generator) -> int:
        """A mosaic or mixup partner: uniform over the list, or in proportion to `partner_factors`. One request."""
        if self.partner_ends is None:
            return int(rng.integers(len(self.images)))
        # A factor of 0 owns an empty interval, the last place of which belongs to its neighbour: never drawn.
        place = rng.random() * self.partner_ends[-1]
        return int(np.searchsorted(self.partner_ends, place, side="right"))


class EvalDataset(Dataset[Item]):
    """Images as the network sees them at test time, in the order of the index; boxes are left to the evaluator.

    Args:
        store: images and annotations.
        transform: from an image to the network's input.
        skip_bad_images: put an empty image in the place of an unreadable one and name it, instead of stopping.
    """

    def __init__(self, store: ImageStore, transform: EvalTransform, skip_bad_images: bool = False) -> None:
        self.skip_bad_images = skip_bad_images
        self.store = store
        self.transform = transform

    def __len__(self) -> int:
        return len(self.store.index)

    def __getitem__(self, position: int) -> Item:
        image_id = int(self.store.index.image_ids[position])
        try:
            image = self.store.read(position)
            skipped: tuple[str, ...] = ()
        except BadImageError:
            if not self.skip_bad_images:
                raise
            height, width = self.store.index.sizes[position].tolist()
            if height * width > MAX_PIXELS:
                height = width = 1
            image = np.full((height, width, 3), self.transform.fill, dtype=np.uint8)
            skipped = (str(self.store.path(position)),)
        return replace(self.transform(image, image_id), skipped=skipped)


@dataclass(frozen=True)
class Letterbox:
    """Test images of the YOLOX models: fitted top-left into `size` (height, width) on a grey canvas.

    Args:
        fill: grey value around the image, 0 in the released models, 114 in official YOLOX.
        truncate: how sides are made whole, see `fit`.
    """

    size: tuple[int, int]
    fill: int
    truncate: bool

    def __call__(self, image: np.ndarray, image_id: int = 0) -> Item:
        """uint8 [H, W, 3] -> Item without objects, with the factors that lead back."""
        content, scale = fit(image, self.size, self.truncate)
        canvas = np.full((*self.size, 3), self.fill, dtype=np.uint8)
        canvas[: content.shape[0], : content.shape[1]] = content
        empty = np.zeros((0, 4), np.float32)
        content_size, original_size = (content.shape[0], content.shape[1]), (image.shape[0], image.shape[1])
        return Item(canvas, empty, np.zeros(0, np.int64), image_id, content_size, original_size, scale=(scale, scale))


def default_data_root() -> Path:
    """`$YOLOX_DATADIR`, else `datasets` in the working directory: the folder that holds COCO, LVIS, ... (as in
    YOLOX).
    """
    return Path(os.environ.get("YOLOX_DATADIR", "datasets"))
