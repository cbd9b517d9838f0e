"""Stranger (b): a backbone of ten lines."""

from __future__ import annotations

import pytest

from tests.strangers.walk import GLYPHS, walk
from tests.tiny import tiny_data
from yolox_lt.checkpoint import load_checkpoint

EXP = f'''
from torch import nn

from yolox_lt.exp import GlyphExp


class Plain(nn.Module):
    """A convolution a level: strides 8, 16 and 32 with 32, 64 and 128 channels."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 9, 8, 4), nn.ReLU())
        self.next = nn.ModuleList(nn.Sequential(nn.Conv2d(c, 2 * c, 3, 2, 1), nn.ReLU()) for c in (32, 64))

    def forward(self, images):
        maps = [self.stem(images / 255)]
        for layer in self.next:
            maps.append(layer(maps[-1]))
        return tuple(maps)


class Exp(GlyphExp):
{GLYPHS}
    def get_model(self):
        model = super().get_model()
        model.backbone = Plain()
        return model
'''


@pytest.mark.usefixtures("without_report")
def test_stranger__a_backbone_of_ten_lines(tmp_path, tmp_path_factory):
    file = tmp_path / "plain_exp.py"
    file.write_text(EXP)
    folder = walk(file, tmp_path, tiny_data(tmp_path_factory), ["get_model"])
    names = load_checkpoint(folder / "latest.pth")["model"]
    assert "backbone.stem.0.weight" in names
    assert not any("dark" in name for name in names)
