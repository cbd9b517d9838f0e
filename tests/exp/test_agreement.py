"""What a resumed run and an evaluation do with settings that differ from the checkpoint's."""

from __future__ import annotations

import pytest

from yolox_lt.checkpoint import plain
from yolox_lt.errors import UserError
from yolox_lt.exp import Exp, GlyphExp, TwoStageExp, YOLOXStarExp
from yolox_lt.exp.agreement import (
    FIXED,
    OF_THE_PLACE,
    TEST,
    adopt_given,
    adopt_weights,
    check_categories,
    check_structure,
    resume_settings,
)
from yolox_lt.exp.resnet import ResNetExp


def content(**changed):
    """A checkpoint of a run whose settings were those of `Exp` with changes."""
    return {"exp": plain(Exp().attributes()) | changed, "given": []}


def test_resume__keeps_what_the_command_line_once_set():
    """max_epoch 2 was given at the first start and is not repeated; the file still has 300."""
    exp = Exp()
    said = resume_settings(exp, content(max_epoch=2) | {"given": ["max_epoch"]}, (), "latest.pth")
    assert exp.max_epoch == 2
    assert said == ["settings as the run began, in brackets the experiment's now: max_epoch 2 (300)"]


def test_resume__applies_and_names_a_schedule_that_is_given_now():
    exp = Exp()
    exp.max_epoch = 400
    said = resume_settings(exp, content(), ("max_epoch",), "latest.pth")
    assert exp.max_epoch == 400
    assert said == ["max_epoch 400 from now on, until here 300"]


def test_resume__a_file_that_was_edited_counts_as_given():
    exp = Exp()
    exp.print_interval = 50
    assert resume_settings(exp, content(), (), "latest.pth") == ["print_interval 50 from now on, until here 10"]
    exp.anchor_scales = (4,)
    with pytest.raises(UserError, match=r"latest.pth: the run began with anchor_scales \[1\], now it is \[4\]"):
        resume_settings(exp, content(), (), "latest.pth")


def test_resume__an_earlier_version_did_not_record_what_was_given():
    """So nothing of the file is known to be new, and the run continues as it began."""
    exp = Exp()
    exp.loss_scale = 8.0
    assert resume_settings(exp, {"exp": content()["exp"]}, (), "latest.pth") == [
        "settings as the run began, in brackets the experiment's now: loss_scale 4.0 (8.0)"
    ]
    assert exp.loss_scale == 4.0


@pytest.mark.parametrize("name", ["loss_scale", "momentum", "sampler", "depth"])
def test_resume__refuses_structure_loss_optimiser_and_order(name):
    exp = Exp()
    setattr(exp, name, "repeat_factor" if name == "sampler" else 0.5)
    with pytest.raises(UserError, match=f"began with {name} "):
        resume_settings(exp, content(), (name,), "latest.pth")


def test_resume__from_python_everything_is_on_purpose_but_an_open_seed():
    exp = Exp()
    exp.eval_interval, exp.output_dir = 3, "elsewhere"
    said = resume_settings(exp, content(seed=7), None, "latest.pth")
    assert (exp.seed, exp.eval_interval, exp.output_dir) == (7, 3, "elsewhere")
    assert said == [
        "settings as the run began, in brackets the experiment's now: seed 7 (None)",
        "eval_interval 3 from now on, until here 10",
    ]


def test_resume__tuples_stay_tuples():
    exp = Exp()
    resume_settings(exp, content(input_size=[320, 640]) | {"given": ["input_size"]}, (), "latest.pth")
    assert exp.input_size == (320, 640)


def test_structure__is_refused_with_the_words_that_fix_it():
    with pytest.raises(UserError, match=r"neck_shortcut True, the experiment has False.*add neck_shortcut True"):
        check_structure(Exp(), content(neck_shortcut=True), "best.pth")
    with pytest.raises(UserError, match=r"add anchor_scales \(6,8\)"):
        check_structure(Exp(), content(anchor_scales=[6, 8]), "best.pth")


def test_structure__test_settings_are_named_and_training_settings_do_not_matter():
    said = check_structure(Exp(), content(test_conf=0.001, max_epoch=2, mosaic_prob=0.5), "best.pth")
    assert said == ["test_conf 0.01 (the checkpoint has 0.001)"]


def test_kinds__name_settings_that_exist_and_each_once():
    known = set().union(*(cls().attributes() for cls in (Exp, ResNetExp, TwoStageExp, GlyphExp)))
    assert known >= FIXED | TEST | OF_THE_PLACE
    assert not FIXED & (TEST | OF_THE_PLACE)


def test_categories__the_same_in_another_order():
    with pytest.raises(
        UserError, match=r"category 1 of train.json is 'green', in the checkpoint 'red' \(1 more differ\)"
    ):
        check_categories(["green", "red", "blue"], {"names": ["red", "green", "blue"]}, "latest.pth", "train.json")


def test_categories__one_more_at_the_end():
    with pytest.raises(UserError, match=r"train\.json has 3 categories, the checkpoint 2"):
        check_categories(["a", "b", "c"], {"names": ["a", "b"]}, "latest.pth", "train.json")
    check_categories(["a", "b"], {"names": ["a", "b"]}, "latest.pth", "train.json")


def test_class_weights__are_kept_in_a_checkpoint_and_refused_where_they_change():
    exp = GlyphExp()
    exp.merge(["class_weights", "{'crow': 2}"])
    content = {"exp": plain(exp.attributes()), "given": ["class_weights"]}
    assert content["exp"]["class_weights"] == {"crow": 2}
    assert exp.weights_of(["owl", "crow"]) == [1.0, 2.0]
    with pytest.raises(UserError, match=r"class_weights names 'crow', which is no category; the nearest are cow"):
        exp.weights_of(["owl", "cow"])
    exp.merge(["class_weights", "{'crow': 3}"])
    with pytest.raises(UserError, match=r"the run began with class_weights \{'crow': 2\}"):
        resume_settings(exp, content, ["class_weights"], "x.pth")


def official_content():
    exp = Exp()
    exp.num_classes = 4
    return {"exp": plain(exp.attributes()), "family": "yolox"}


def test_weights__shortcuts_and_padding_come_from_them_unless_they_are_set():
    exp = YOLOXStarExp()
    said = adopt_weights(exp, official_content(), "w.pth")
    assert said == [
        "w.pth: was trained with neck_shortcut False, so this run has it too, not its own True",
        "w.pth: was trained with pad_value 114, so this run has it too, not its own 0",
    ]
    assert not exp.get_model().backbone.C3_p4.m[0].shortcut
    assert exp.get_eval_transform().fill == 114
    assert adopt_weights(exp, official_content(), "w.pth") == []
    exp = YOLOXStarExp()
    exp.merge(["neck_shortcut", "True", "pad_value", "0"])
    assert adopt_weights(exp, official_content(), "w.pth") == []
    assert (exp.neck_shortcut, exp.pad_value) == (True, 0)
    assert adopt_weights(ResNetExp(), official_content(), "w.pth") == []


def test_weights__what_a_run_took_over_needs_no_setting_on_resume_and_in_an_evaluation():
    run = YOLOXStarExp()
    adopt_weights(run, official_content(), "w.pth")
    content = {"exp": plain(run.attributes()), "family": "yolox", "given": []}
    for given in ((), None):
        exp = YOLOXStarExp()
        resume_settings(exp, content, given, "latest.pth")
        assert (exp.neck_shortcut, exp.pad_value) == (False, 114)
    exp = YOLOXStarExp()
    adopt_given(exp, content, ())
    assert check_structure(exp, content, "best.pth") == []
    exp = YOLOXStarExp()
    exp.merge(["neck_shortcut", "True"])
    with pytest.raises(UserError, match="neck_shortcut"):
        resume_settings(exp, content, ("neck_shortcut",), "latest.pth")
