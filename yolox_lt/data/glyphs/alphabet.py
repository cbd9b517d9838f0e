"""The characters of the glyph data set: which ones, what they look like, and which look like which.

A category is a character in one of three DejaVu faces; the fonts come with matplotlib, so nothing is downloaded.
Characters are taken in a fixed order, Latin capitals and digits with a double (O D, B 8, S 5, Z 2 ...) first, and are
dropped when they would be hard to see at 14 pixels, or when at equal size and a small rotation they look like one that
was taken before.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from matplotlib.ft2font import FT2Font

from yolox_lt.errors import UserError

FACES = {"sans": "DejaVuSans-Bold.ttf", "serif": "DejaVuSerif-Bold.ttf", "mono": "DejaVuSansMono-Bold.ttf"}
"""Face name in category names -> font file. Bold, because thin strokes vanish in small objects."""

FIRST_CHARACTERS = "O0QGCDB83S5Z2EFPR17TMNKX4AUV69"
"""The thirty of the demo: every one has a double among the others."""

BLOCKS = (
    (0x0021, 0x007E),  # Latin letters, digits, punctuation
    (0x0391, 0x03F5),  # Greek
    (0x0400, 0x045F),  # Cyrillic
    (0x20A0, 0x20BF),  # currency signs
    (0x2190, 0x21FF),  # arrows
    (0x2200, 0x22FF),  # mathematical operators
    (0x25A0, 0x25FF),  # geometric shapes
    (0x2600, 0x27BF),  # symbols and dingbats
    (0x00A1, 0x00FF),  # Latin with accents
    (0x0531, 0x0587),  # Armenian
    (0x10A0, 0x10FF),  # Georgian
    (0x0180, 0x02AF),  # further Latin letters, phonetic letters
    (0x0460, 0x052F),  # further Cyrillic
)

SELECTION_EM = 64  # pixels per em at which characters are judged
MAX_ASPECT = 2.5  # longer ones are bars, which distractors and occluders are too
MIN_STROKE = 0.08  # mean stroke / longer side: more than one pixel in an object of 14 pixels
MAX_CONVEXITY = 0.95  # ink / convex hull: discs and squares look like the blobs of the background
MAX_SIMILARITY = 0.95  # S and 5 pass with 0.94 (hinting moves it by 0.002); Latin A and Greek Alpha do not
MAX_SIMILARITY_OF_LETTER = 0.85  # the same letter in another case or face, which often differs in size only: o and O
ROTATIONS = (0.0, -20.0, 20.0)  # degrees, the range of the data set
SHAPE_SIDE = 36  # canvas of a shape vector, pixels
SHAPE_SIZE = 24  # longer side of the character on it: its diagonal fits


@dataclass(frozen=True)
class Glyph:
    """A category: a character of a face.

    face: key of FACES. character: one code point. name: such as "latin_small_letter_a-sans", unique.
    """

    face: str
    character: str
    name: str


def open_face(face: str, em: int) -> FT2Font:
    """The font of a face (key of FACES), set to `em` pixels per em."""
    font = FT2Font(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / FACES[face]))
    font.set_size(em, 72)  # at 72 dots per inch a point is a pixel
    return font


def glyph_bitmap(font: FT2Font, character: str) -> np.ndarray:
    """Coverage of a character, uint8 [h, w] in 0..255, cropped to its ink; [0, 0] for one without ink."""
    font.set_text(character, 0.0)
    font.draw_glyphs_to_bitmap(antialiased=True)
    bitmap = np.array(font.get_image(), np.uint8)
    return crop_to(bitmap, bitmap > 0)


def crop_to(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The part of `image` [h, w] inside the tight hull of `mask` bool [h, w]; [0, 0] for an empty mask."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return image[:0, :0]
    return image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def choose_glyphs(number: int) -> tuple[list[Glyph], np.ndarray]:
    """The first `number` characters that are legible and differ visibly from each other.

    Returns the glyphs and their similarity, float32 [number, number] in [0, 1]: the cosine of the two bitmaps at equal
    size, upright. Raises UserError when the fonts do not have that many.
    """
    glyphs: list[Glyph] = []
    letters: dict[str, list[int]] = {}  # caseless character -> its glyphs so far
    shapes = np.zeros((number, SHAPE_SIDE * SHAPE_SIDE), np.float32)
    for glyph, bitmap in candidates():
        if len(glyphs) == number:
            break
        if not legible(bitmap):
            continue
        turned = np.stack([shape_vector(bitmap, angle) for angle in ROTATIONS])
        same_letter = letters.setdefault(glyph.character.casefold(), [])
        closeness = (shapes[: len(glyphs)] @ turned.T).max(1, initial=0)
        if (closeness > MAX_SIMILARITY).any() or (closeness[same_letter] > MAX_SIMILARITY_OF_LETTER).any():
            continue
        same_letter.append(len(glyphs))
        shapes[len(glyphs)] = turned[0]
        glyphs.append(glyph)
    if len(glyphs) < number:
        raise UserError(
            f"glyphs: num_categories is {number}, but the fonts of matplotlib give {len(glyphs)} characters "
            f"that can be distinguished; ask for at most {len(glyphs)}."
        )
    return glyphs, np.clip(shapes @ shapes.T, 0, 1)


def candidates() -> Iterator[tuple[Glyph, np.ndarray]]:
    """All characters in the order of preference, each once per face, with their bitmap at SELECTION_EM."""
    ordered = list(
        dict.fromkeys([*map(ord, FIRST_CHARACTERS), *(c for low, high in BLOCKS for c in range(low, high + 1))])
    )
    for face in FACES:
        font = open_face(face, SELECTION_EM)
        available = font.get_charmap()
        for code in ordered:
            character = chr(code)
            # Letters, numbers, symbols, punctuation; no marks, which need a letter to sit on, no modifier letters.
            kind = unicodedata.category(character)
            if code in available and kind[0] in "LNSP" and kind != "Lm":
                name = unicodedata.name(character).lower().replace(" ", "_")
                yield Glyph(face, character, f"{name}-{face}"), glyph_bitmap(font, character)


def legible(bitmap: np.ndarray) -> bool:
    """Whether a character can be seen as itself in a small object: no bar, no hairlines, no blob."""
    if bitmap.size == 0 or bitmap.max() < 255:
        return False
    height, width = bitmap.shape
    if max(height, width) > MAX_ASPECT * min(height, width):
        return False
    ink = np.pad((bitmap >= 128).astype(np.uint8), 1)
    outlines, _ = cv2.findContours(ink, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    stroke = 2 * ink.sum() / sum(cv2.arcLength(outline, True) for outline in outlines)
    hull = cv2.fillConvexPoly(np.zeros_like(ink), cv2.convexHull(np.concatenate(outlines)), (1,))
    return bool(stroke >= MIN_STROKE * max(height, width) and ink.sum() <= MAX_CONVEXITY * hull.sum())


def shape_vector(bitmap: np.ndarray, angle: float) -> np.ndarray:
    """The look of a character whatever its size: float32 [SHAPE_SIDE^2] of length 1, turned by `angle` degrees."""
    height, width = bitmap.shape
    scale = SHAPE_SIZE / max(height, width)
    smooth = cv2.GaussianBlur(bitmap, (0, 0), 0.5 / scale)  # the warp takes single pixels: no aliasing this way
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, scale)
    matrix[:, 2] += (SHAPE_SIDE - width) / 2, (SHAPE_SIDE - height) / 2
    canvas = cv2.warpAffine(smooth, matrix, (SHAPE_SIDE, SHAPE_SIDE), flags=cv2.INTER_LINEAR)
    vector = canvas.astype(np.float32).ravel()
    return vector / np.linalg.norm(vector)
