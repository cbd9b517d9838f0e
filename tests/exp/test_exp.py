"""Experiments: values of the stock models, strict overrides, files as users write them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from yolox_lt.assign import ATSSAssigner, SimOTAAssigner
from yolox_lt.criterion import Criterion, YOLOXCriterion
from yolox_lt.errors import UserError
from yolox_lt.exp import Exp, TwoStageExp, YOLOXStarExp, get_exp
from yolox_lt.losses import EqualizedFocalLoss, EqualizedQualityFocalLoss, FocalLoss, QualityFocalLoss
from yolox_lt.train.engine import resized_targets
from yolox_lt.types import Batch

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", ["nano", "tiny", "s", "m", "l", "x"])
def test_defaults__equal_official_yolox(golden, name):
    ours = get_exp(name=f"yolox-{name}")
    for key, want in golden("yolox_exp_defaults.json")[f"yolox-{name}"].items():
        if key in ("dataset", "output_dir"):
            continue
        value = getattr(ours, key)
        assert (list(value) if isinstance(value, tuple) else value) == want, key


@pytest.mark.parametrize("path", sorted((ROOT / "exps").rglob("*.py")), ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_file__loads_and_builds_its_criterion_and_recipe(path):
    exp = get_exp(path)
    assert exp.exp_name == path.stem
    if isinstance(exp, TwoStageExp):  # some losses ask for the numbers of the training annotations
        exp.category_counts = (10.0,) * exp.num_classes
    exp.get_criterion()
    exp.get_augment()
    exp.get_predictor()


@pytest.mark.parametrize(
    ("file", "loss"),
    [("fl", FocalLoss), ("qfl", QualityFocalLoss), ("efl", EqualizedFocalLoss), ("eqfl", EqualizedQualityFocalLoss)],
)
@pytest.mark.parametrize("size", ["s", "m"])
def test_lvis_star__is_the_released_configuration(file, loss, size):
    exp = get_exp(ROOT / f"exps/lvis/yolox_{size}_{file}.py")
    criterion = exp.get_criterion()
    assert type(criterion) is Criterion
    assert type(criterion.cls_loss) is loss
    assert criterion.use_l1
    assert criterion.assigner == ATSSAssigner(18)
    if "e" in file:
        assert (criterion.cls_loss.scale, len(criterion.cls_loss.balance.ratio)) == (4.0, 1203)
    recipe = exp.get_recipe()
    assert (recipe.fill, recipe.mixup_scale, recipe.mixup_flip_prob, recipe.image_multiscale) == (0, (0.8, 1.6), 0, 5)
    predictor = exp.get_predictor()
    assert (predictor.pre_nms, predictor.nms_threshold, predictor.max_detections) == (1000, 0.65, 300)
    assert predictor.score_threshold == 0
    with torch.device("meta"):
        model = exp.get_model()
    assert sum(p.numel() for p in model.parameters()) == {"s": 9_870_352, "m": 26_676_144}[size]
    bias = exp.get_model().head.cls_preds[1].bias
    assert bias[[0, 1203, -1]].tolist() == pytest.approx([-6.906755] * 3, rel=1e-6)


def test_lvis_plain__is_yolox_as_it_is():
    exp = get_exp(ROOT / "exps/lvis/yolox_s.py")
    criterion = exp.get_criterion()
    assert type(criterion) is YOLOXCriterion
    assert criterion.assigner == SimOTAAssigner()
    assert not criterion.use_l1
    assert exp.get_recipe().fill == 114


USER_FILE = """
import os
from yolox_lt.exp import Exp as MyExp

class Exp(MyExp):
    def __init__(self):
        super(Exp, self).__init__()
        self.depth = 0.33
        self.width = 0.50
        self.exp_name = os.path.split(os.path.realpath(__file__))[1].split(".")[0]
        self.data_dir = "datasets/coco128"
        self.train_ann = "instances_train2017.json"
        self.val_ann = "instances_val2017.json"
        self.num_classes = 71
        self.degrees = 0
        self.random_size = (14, 26)
        self.max_epoch = 300
        self.data_num_workers = 4
        self.eval_interval = 1
"""


def test_user_file__in_official_style_loads_with_its_import_line_changed(tmp_path):
    path = tmp_path / "json.py"  # a stem that equals an importable module
    path.write_text(USER_FILE)
    exp = get_exp(path)
    assert (exp.exp_name, exp.num_classes, exp.depth, exp.size_range()) == ("json", 71, 0.33, (14, 26))
    assert exp.get_recipe().degrees == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import no_such_module\n", r"line 1: ModuleNotFoundError: No module named 'no_such_module'"),
        ("x = 1\nclass Exp(:\n", r"line 2: SyntaxError|SyntaxError"),
        ("class Exp:\n    pass\n", r"no class Exp derived from yolox_lt\.exp\.Exp"),
        (USER_FILE + "        self.max_epochs = 3\n", r"sets 'max_epochs'.*did you mean 'max_epoch'"),
    ],
)
def test_bad_file__is_named_with_the_reason(tmp_path, text, message):
    path = tmp_path / "broken.py"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        get_exp(path)
    assert "broken.py" in str(error.value)


def test_missing__file_and_unknown_name():
    with pytest.raises(UserError, match=r"nowhere\.py: experiment file not found"):
        get_exp("nowhere.py")
    with pytest.raises(UserError, match="yolox-q: unknown model; choose one of yolox-l, yolox-m"):
        get_exp(name="yolox-q")
    with pytest.raises(UserError, match="give an experiment"):
        get_exp()


@pytest.mark.parametrize(
    ("pairs", "attribute", "want"),
    [
        (["max_epoch", "3"], "max_epoch", 3),
        (["warmup_epochs", "1"], "warmup_epochs", 1.0),
        (["ema", "False"], "ema", False),
        (["seed", "7"], "seed", 7),
        (["seed", "none"], "seed", None),
        (["data_dir", "2017"], "data_dir", "2017"),
        (["input_size", "(320, 256)"], "input_size", (320, 256)),
        (["random_size", "[10,20]"], "random_size", (10, 20)),
        (["basic_lr_per_img", "1e-3"], "basic_lr_per_img", 1e-3),
        (["cls_bias_decay", "1e-4"], "cls_bias_decay", 1e-4),
        (["trackers", "wandb,mlflow"], "trackers", ("wandb", "mlflow")),
        (["trackers", "()"], "trackers", ()),
    ],
)
def test_override__takes_the_attributes_type(pairs, attribute, want):
    exp = YOLOXStarExp()
    exp.merge(pairs)
    assert getattr(exp, attribute) == want
    assert type(getattr(exp, attribute)) is type(want)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["max_epochs", "3"], "'max_epochs' is not a setting of Exp; did you mean 'max_epoch'"),
        (["max_epoch", "three"], "max_epoch 'three': give a value of type int"),
        (["max_epoch", "3.5"], "max_epoch '3.5': give a value of type int"),
        (["ema", "maybe"], "ema 'maybe': give True or False"),
        (["input_size", "640"], "input_size '640': give a value of type tuple"),
        (["max_epoch"], "'max_epoch' has no value"),
    ],
)
def test_override__is_refused_with_the_remedy(pairs, message):
    with pytest.raises(UserError, match=message):
        Exp().merge(pairs)


@pytest.mark.parametrize("attribute", ["assigner", "cls_loss", "quality", "l1", "recipe", "scheduler"])
def test_unknown_choice__lists_the_known_ones(attribute):
    exp = YOLOXStarExp()
    setattr(exp, attribute, "nonsense")
    with pytest.raises(UserError, match=f"{attribute} 'nonsense' is unknown; choose one of"):
        exp.get_criterion() if attribute not in ("recipe", "scheduler") else (
            exp.get_recipe() if attribute == "recipe" else exp.get_lr_scheduler(0.01, 10)
        )


def test_random_resize__is_a_function_of_the_iteration():
    exp = Exp()
    exp.seed = 3
    sizes = [exp.random_resize(i) for i in range(2000)]
    assert sizes == [exp.random_resize(i) for i in range(2000)]
    assert all(sizes[i] == sizes[i - i % 10] for i in range(2000))
    assert {h for h, _ in sizes} == set(range(480, 801, 32))
    assert YOLOXStarExp().random_resize(7) is None


def test_preprocess__scales_boxes_with_the_images():
    raw = torch.zeros(1, 3, 64, 96, dtype=torch.uint8)
    images = Exp().get_preprocessor()(raw, None, (32, 192))
    sizes, ids = torch.tensor([[60, 90]]), torch.tensor([1])
    batch = Batch(raw, [torch.tensor([[6.0, 8, 48, 64]])], [torch.tensor([0])], ids, sizes, sizes, torch.ones(1, 2))
    boxes, contents = resized_targets(batch, images)
    assert images.shape == (1, 3, 32, 192)
    assert boxes[0].tolist() == [[12, 4, 96, 32]]
    assert contents == [(30, 180)]
