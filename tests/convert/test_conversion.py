"""Our own checkpoints, experiments given with -f, and every refusal: one sentence, nothing written."""

from __future__ import annotations

import json

import pytest
import torch

import yolox_lt
from tests.convert.files import equal_states, numbered, official, released
from yolox_lt.checkpoint import FORMAT_VERSION, load_checkpoint, plain
from yolox_lt.convert import convert
from yolox_lt.errors import UserError
from yolox_lt.exp import Exp, ResNetExp, YOLOXStarExp

IDS, NAMES = [4, 7, 30], ["cat", "dog", "axolotl"]


def narrow_exp(**settings) -> YOLOXStarExp:
    exp = YOLOXStarExp()
    exp.update({"num_classes": 3, "depth": 0.33, "width": 0.125, "test_size": [64, 96], **settings})
    return exp


def narrow_resnet(**settings) -> ResNetExp:
    exp = ResNetExp()
    exp.update({"num_classes": 3, "resnet_depth": 18, "fpn_channels": 32, "backbone_weights": None, **settings})
    return exp


def own_checkpoint(exp, seed: int = 0) -> dict:
    torch.manual_seed(seed)
    return {
        "model": exp.get_model().state_dict(),
        "ema": None,
        "optimizer": {"state": {}},
        "epoch": 12,
        "names": NAMES,
        "category_ids": IDS,
        "exp": plain(exp.attributes()),
        "family": exp.family,
        "format_version": FORMAT_VERSION,
    }


def write_annotations(folder, name="val.json", ids=IDS, names=NAMES) -> None:
    (folder / "annotations").mkdir(exist_ok=True)
    content = {
        "images": [{"id": 1, "width": 64, "height": 64, "file_name": "1.jpg"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": ids[0], "bbox": [1, 2, 30, 40], "area": 1200}],
        "categories": [{"id": i, "name": n} for i, n in zip(ids, names)],
    }
    (folder / "annotations" / name).write_text(json.dumps(content))


# ------------------------------------------------------------------------------------------------ our own checkpoints


@pytest.mark.parametrize("make_exp", [narrow_exp, narrow_resnet])
def test_own__keeps_weights_settings_and_categories(tmp_path, make_exp):
    content = own_checkpoint(make_exp())
    torch.save(content, tmp_path / "in.pth")
    done = convert(tmp_path / "in.pth", tmp_path / "out.pth")
    after = load_checkpoint(tmp_path / "out.pth")
    assert equal_states(after.pop("model"), content["model"])
    assert after == {
        **{key: content[key] for key in ("exp", "family", "names", "category_ids", "format_version")},
        "ema": None,
        "epoch": 0,
    }
    assert done.kind == "checkpoint of this project"
    assert "left out: ema, optimizer, epoch" in done.notes
    assert yolox_lt.load(tmp_path / "out.pth").names == tuple(NAMES)


def test_own__takes_the_averaged_weights(tmp_path):
    content, averaged = own_checkpoint(narrow_exp(), 0), own_checkpoint(narrow_exp(), 1)["model"]
    assert not equal_states(content["model"], averaged)
    torch.save(content | {"ema": {"model": averaged, "next": 9}}, tmp_path / "in.pth")
    done = convert(tmp_path / "in.pth", tmp_path / "out.pth")
    assert equal_states(load_checkpoint(tmp_path / "out.pth")["model"], averaged)
    assert done.place == "ema.model"


def test_own__from_before_families_versions_and_names(tmp_path):
    content = own_checkpoint(narrow_exp())
    for key in ("family", "format_version", "names", "category_ids"):
        del content[key]
    torch.save(content, tmp_path / "in.pth")
    convert(tmp_path / "in.pth", tmp_path / "out.pth")
    after = load_checkpoint(tmp_path / "out.pth")
    assert (after["family"], after["format_version"], after["category_ids"]) == ("yolox", FORMAT_VERSION, [1, 2, 3])
    assert equal_states(yolox_lt.load(tmp_path / "out.pth").model.state_dict(), content["model"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 99}, r"in\.pth: written by a newer version of this project \(format 99\); update"),
        ({"family": "vit"}, r"in\.pth: the checkpoint is of a 'vit' model"),
        ({"exp": None}, r"in\.pth: has no usable settings"),
        (
            {"exp": {"num_classes": 3, "depth": 1.0, "width": 0.125}},
            r"in\.pth: the tensors do not make a complete model, checkpoint",
        ),
    ],
)
def test_own__unusable_is_refused(tmp_path, changes, message):
    torch.save(own_checkpoint(narrow_exp()) | changes, tmp_path / "in.pth")
    with pytest.raises(UserError, match=message):
        convert(tmp_path / "in.pth", tmp_path / "out.pth")
    assert not (tmp_path / "out.pth").exists()


# ------------------------------------------------------------------------------------------------ experiments


@pytest.mark.parametrize("present", ["val.json", "train.json"])
def test_exp__gives_settings_names_and_ids(golden, tmp_path, present):
    """Validation annotations, else training annotations."""
    write_annotations(tmp_path, present)
    exp = Exp()
    exp.update({"num_classes": 3, "depth": 0.33, "width": 0.25, "depthwise": True, "nmsthre": 0.5})
    exp.update({"data_dir": str(tmp_path), "val_ann": "val.json", "train_ann": "train.json"})
    state = official(golden, "nano")
    state |= {n: t[:3] for n, t in state.items() if n.startswith("head.cls_preds.")}
    torch.save(state, tmp_path / "in.pth")
    done = convert(tmp_path / "in.pth", tmp_path / "out.pth", exp)
    after = load_checkpoint(tmp_path / "out.pth")
    assert (after["names"], after["category_ids"], after["exp"]["nmsthre"]) == (NAMES, IDS, 0.5)
    assert any(f"names and ids from {tmp_path / 'annotations' / present}" in note for note in done.notes)


def test_exp__renames_the_categories_of_our_own(tmp_path):
    write_annotations(tmp_path, names=["a", "b", "c"])
    torch.save(own_checkpoint(narrow_exp()), tmp_path / "in.pth")
    exp = narrow_exp(data_dir=str(tmp_path), val_ann="val.json")
    convert(tmp_path / "in.pth", tmp_path / "out.pth", exp)
    assert load_checkpoint(tmp_path / "out.pth")["names"] == ["a", "b", "c"]


def test_exp__without_its_annotations_keeps_the_names_of_our_own(tmp_path):
    torch.save(own_checkpoint(narrow_exp()), tmp_path / "in.pth")
    exp = narrow_exp(data_dir=str(tmp_path), test_conf=0.25)
    convert(tmp_path / "in.pth", tmp_path / "out.pth", exp)
    after = load_checkpoint(tmp_path / "out.pth")
    assert (after["names"], after["category_ids"], after["exp"]["test_conf"]) == (NAMES, IDS, 0.25)


def test_exp__with_other_annotations_is_refused(tmp_path):
    write_annotations(tmp_path, ids=[1, 2], names=["a", "b"])
    torch.save(own_checkpoint(narrow_exp()), tmp_path / "in.pth")
    with pytest.raises(UserError, match=r"val\.json: has 2 categories but num_classes is 3"):
        convert(tmp_path / "in.pth", tmp_path / "out.pth", narrow_exp(data_dir=str(tmp_path), val_ann="val.json"))
    assert not (tmp_path / "out.pth").exists()


@pytest.mark.parametrize(
    ("size", "changes", "message"),
    [
        ("yolox_s", {}, None),
        ("yolox_s", {"depth": 1 / 3}, None),
        ("yolox_s", {"neck_shortcut": False}, "was made with neck_shortcut True but -f says neck_shortcut False"),
        ("yolox_s", {"anchor_scales": (4, 8)}, r"made with anchor_scales \(3, 4\) but -f says anchor_scales \(4, 8\)"),
        ("yolox_s", {"quality": "obj"}, "made with quality iou but -f says quality obj"),
        ("yolox_s", {"depth": 0.67}, "made with depth 0.33 but -f says depth 0.67"),
        ("yolox_s", {"width": 0.75}, "made with width 0.5 but -f says width 0.75"),
        ("yolox_s", {"num_classes": 80}, "made with num_classes 1203 but -f says num_classes 80"),
        ("r50", {}, "is a resnet model but -f describes a yolox one"),
    ],
)
def test_exp__of_another_model_is_refused_also_where_shapes_cannot_tell(golden, tmp_path, size, changes, message):
    torch.save({"model": released(golden, size)}, tmp_path / "in.pth")
    exp = YOLOXStarExp()
    exp.update({"num_classes": 1203, "depth": 0.33, "width": 0.5, "data_dir": str(tmp_path), **changes})
    if message is None:
        convert(tmp_path / "in.pth", tmp_path / "out.pth", exp)
        assert load_checkpoint(tmp_path / "out.pth")["exp"]["depth"] == exp.depth
        return
    with pytest.raises(UserError, match=rf"in\.pth: .*{message}"):
        convert(tmp_path / "in.pth", tmp_path / "out.pth", exp)
    assert not (tmp_path / "out.pth").exists()


@pytest.mark.parametrize("changes", [{}, {"legacy": False}, {"anchor_ratios": (0.5, 2.0)}, {"quality": "centerness"}])
def test_exp__resnet_settings_that_shapes_cannot_tell(golden, tmp_path, changes):
    torch.save({"model": released(golden, "r50")}, tmp_path / "in.pth")
    exp = ResNetExp()
    exp.update({"num_classes": 1203, "data_dir": str(tmp_path), **changes})
    if not changes:
        convert(tmp_path / "in.pth", tmp_path / "out.pth", exp)
        return
    with pytest.raises(UserError, match=rf"was made with {next(iter(changes))} "):
        convert(tmp_path / "in.pth", tmp_path / "out.pth", exp)


def test_exp__for_a_backbone_is_refused(tmp_path):
    state = numbered([(f"layer{s}.{b}.conv1.weight", [64]) for s in (1, 2, 3, 4) for b in (0, 1)])
    torch.save(state, tmp_path / "in.pth")
    with pytest.raises(UserError, match=r"in\.pth: a backbone has no categories or settings; leave -f out"):
        convert(tmp_path / "in.pth", tmp_path / "out.pth", ResNetExp())


# ------------------------------------------------------------------------------------------------ refusals


def test_target__is_overwritten_on_success_and_kept_on_failure(golden, tmp_path):
    target = tmp_path / "out.pth"
    target.write_bytes(b"old")
    torch.save(official(golden, "nano"), tmp_path / "in.pth")
    convert(tmp_path / "in.pth", target)
    good = target.read_bytes()
    assert load_checkpoint(target)["family"] == "yolox"
    (tmp_path / "in.pth").write_bytes(b"damaged")
    with pytest.raises(UserError, match="not a readable checkpoint"):
        convert(tmp_path / "in.pth", target)
    assert target.read_bytes() == good
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.pth", "out.pth"]


def test_target__that_is_the_source_is_refused(golden, tmp_path):
    source = tmp_path / "in.pth"
    torch.save(official(golden, "nano"), source)
    before = source.read_bytes()
    (tmp_path / "link.pth").symlink_to(source)
    (tmp_path / "hard.pth").hardlink_to(source)
    for target in (source, tmp_path / "link.pth", tmp_path / "hard.pth", tmp_path / "." / "in.pth"):
        with pytest.raises(UserError, match="source and target are the same file"):
            convert(source, target)
    assert source.read_bytes() == before


def test_target__that_cannot_be_written_is_refused_before_reading(tmp_path):
    with pytest.raises(UserError, match=r"out\.pth: its folder does not exist; create it"):
        convert(tmp_path / "in.pth", tmp_path / "missing" / "out.pth")
    with pytest.raises(UserError, match="is a folder; give the name of the file"):
        convert(tmp_path / "in.pth", tmp_path)


@pytest.mark.parametrize("channels", ["anchor-major", "category-major"])
def test_channels__of_a_file_without_two_anchors_are_refused(golden, tmp_path, channels):
    torch.save(official(golden, "nano"), tmp_path / "in.pth")
    with pytest.raises(UserError, match=rf"in\.pth: --channels {channels} is for released EFL files only"):
        convert(tmp_path / "in.pth", tmp_path / "out.pth", channels=channels)
    with pytest.raises(UserError, match="channels 'class-major' is unknown; choose one of auto, anchor-major"):
        convert(tmp_path / "in.pth", tmp_path / "out.pth", channels="class-major")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights.0": torch.zeros(1)}, r"in\.pth: weights of an unknown model \(first tensor weights\.0\)"),
        (
            "incomplete",
            r"in\.pth: the tensors do not make a complete model, official YOLOX \(no head\.stems\.2\.bn\.bias; 1",
        ),
        ("no head", r"in\.pth: the weights have no head\.cls_preds\.0\.weight; the file is incomplete"),
        ("shape", r"head\.stems\.2\.bn\.bias is \(3,\) instead of \(64,\); 1 differences"),
    ],
)
def test_source__with_other_tensors_is_refused(golden, tmp_path, change, message):
    state = official(golden, "nano")
    if isinstance(change, dict):
        state = change
    elif change == "no head":
        state = {name: tensor for name, tensor in state.items() if name.startswith("backbone.")}
    elif change == "incomplete":
        del state["head.stems.2.bn.bias"]
    else:
        state["head.stems.2.bn.bias"] = torch.zeros(3)
    torch.save({"model": state}, tmp_path / "in.pth")
    with pytest.raises(UserError, match=message):
        convert(tmp_path / "in.pth", tmp_path / "out.pth")
    assert not (tmp_path / "out.pth").exists()
