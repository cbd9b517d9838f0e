"""Experiment files written for official YOLOX: what runs as it is, and what is said about the rest."""

from __future__ import annotations

import pytest

from yolox_lt.errors import UserError
from yolox_lt.exp import get_exp

SETTINGS = """
import os

from {module} import Exp as MyExp


class Exp(MyExp):
    def __init__(self):
        super(Exp, self).__init__()
        self.depth = 0.33
        self.width = 0.50
        self.exp_name = os.path.split(os.path.realpath(__file__))[1].split(".")[0]
        self.data_dir = "datasets/coco128"
        self.train_ann = "instances_train2017.json"
        self.num_classes = 71
        self.degrees = 0
        self.random_size = (10, 20)
        self.mosaic_prob, self.enable_mixup = 0.5, False
"""


def write(path, module="yolox_lt.exp", method=""):
    path.write_text(SETTINGS.format(module=module) + method)
    return path


def test_settings__of_an_official_file_are_taken_after_its_import_is_changed(tmp_path):
    exp = get_exp(write(tmp_path / "own.py"))
    assert (exp.exp_name, exp.width, exp.num_classes, exp.degrees) == ("own", 0.5, 71, 0)
    assert exp.size_range() == (10, 20)
    with pytest.raises(UserError, match=r"own\.py, line 4: imports yolox.*write yolox_lt\.exp in place of yolox\.exp"):
        get_exp(write(tmp_path / "own.py", "yolox.exp"))


@pytest.mark.parametrize(
    ("official", "ours"),
    [
        (
            "get_data_loader(self, batch_size, is_distributed, no_aug=False, cache_img=None)",
            "dataset, sampler, pin_memory",
        ),
        ("get_optimizer(self, batch_size)", "batch_size, model"),
        ("get_evaluator(self, batch_size, is_distributed, testdev=False, legacy=False)", "batch_size, rank, world"),
        ("random_resize(self, data_loader, epoch, rank, is_distributed)", "iteration"),
        ("get_trainer(self, args)", "options"),
        ("eval(self, model, evaluator, is_distributed, half=False, return_outputs=False)", "model, evaluator, device"),
    ],
)
def test_methods__with_official_parameters_are_refused_by_name(tmp_path, official, ours):
    method = f"\n    def {official}:\n        return None\n"
    with pytest.raises(UserError, match="is written for official YOLOX; here it is ") as error:
        get_exp(write(tmp_path / "own.py", method=method))
    name = official.partition("(")[0]
    assert f"{name}({ours}" in str(error.value)


def test_methods__with_our_parameters_or_all_of_them_are_taken(tmp_path):
    methods = """
    def get_optimizer(self, *args, **kwargs):
        return super().get_optimizer(*args, **kwargs)

    def random_resize(self, step):
        return None
"""
    assert get_exp(write(tmp_path / "own.py", method=methods)).random_resize(3) is None
