"""Experiment files written for official YOLOX: what runs as it is, and what is said about the rest."""

from __future__ import annotations

import pytest

from tests.exp.test_exp import USER_FILE
from yolox_lt.errors import UserError
from yolox_lt.exp import get_exp


def write(path, module="yolox_lt.exp", method=""):
    path.write_text(USER_FILE.replace("from yolox_lt.exp", f"from {module}") + method)
    return path


def test_import__of_official_yolox_is_refused_with_the_line_to_write(tmp_path):
    """What the rest of such a file sets is taken: test_exp.py's test_user_file."""
    with pytest.raises(UserError, match=r"own\.py, line 3: imports yolox.*write yolox_lt\.exp in place of yolox\.exp"):
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
