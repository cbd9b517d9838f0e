"""torchvision's ResNets become files that `load_backbone` takes."""

from __future__ import annotations

import pytest
import torch
import torchvision

from tests.convert.files import equal_states, numbered
from yolox_lt.convert import convert
from yolox_lt.convert.backbone import resnet_depth
from yolox_lt.errors import UserError
from yolox_lt.models.resnet_fpn import ResNetFPN, load_backbone


def torchvision_state(depth: int) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        state = getattr(torchvision.models, f"resnet{depth}")().state_dict()
    return numbered((name, list(tensor.shape)) for name, tensor in state.items())


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_file__is_loaded_into_the_backbone_of_its_depth(tmp_path, depth):
    state = torchvision_state(depth)
    torch.save(state, tmp_path / "in.pth")
    done = convert(tmp_path / "in.pth", tmp_path / "out.pth")
    assert (done.model, done.num_classes) == (f"ResNet-{depth}", None)
    assert set(done.dropped) == {"fc.weight", "fc.bias"}
    assert done.commands() == [
        f"python tools/train.py -f EXP resnet_depth {depth} backbone_weights {tmp_path / 'out.pth'}"
    ]
    backbone = ResNetFPN(depth)
    load_backbone(backbone, str(tmp_path / "out.pth"))
    want = {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
    assert equal_states(backbone.resnet.state_dict(), want)


def test_old_file__without_counters_and_with_prefix(tmp_path):
    state = {f"module.{n}": t for n, t in torchvision_state(18).items() if not n.endswith("num_batches_tracked")}
    torch.save({"state_dict": state, "arch": "resnet18"}, tmp_path / "in.pth")
    done = convert(tmp_path / "in.pth", tmp_path / "out.pth")
    assert "20 counters num_batches_tracked are not in the file and start at 0" in done.notes
    assert len(done.matched) == 120
    again = convert(tmp_path / "out.pth", tmp_path / "again.pth")
    assert again.matched == done.matched
    assert again.dropped == {}


def test_depth__of_other_block_counts_is_refused():
    names = [f"layer{stage}.{block}.conv1.weight" for stage in (1, 2, 3, 4) for block in range(3)]
    with pytest.raises(UserError, match=r"the ResNet has \(3, 3, 3, 3\) blocks in its four stages"):
        resnet_depth(names)
    assert resnet_depth(torchvision_state(34)) == 34
    assert resnet_depth(torchvision_state(50)) == 50


@pytest.mark.parametrize("change", ["wide", "missing", "unknown"])
def test_other_network__is_refused_and_nothing_is_written(tmp_path, change):
    state = torchvision_state(50)
    if change == "wide":
        with torch.device("meta"):
            wide = torchvision.models.wide_resnet50_2().state_dict()
        state = numbered((name, list(tensor.shape)) for name, tensor in wide.items())
        message = r"layer1\.0\.conv1\.weight is \(128, 64, 1, 1\) instead of \(64, 64, 1, 1\)"
    elif change == "missing":
        del state["layer4.2.bn3.running_var"]
        message = r"no layer4\.2\.bn3\.running_var; 1 differences"
    else:
        state["layer4.2.se.weight"] = torch.zeros(1)
        message = r"unknown layer4\.2\.se\.weight; 1 differences"
    torch.save(state, tmp_path / "in.pth")
    with pytest.raises(UserError, match=message):
        convert(tmp_path / "in.pth", tmp_path / "out.pth")
    assert not (tmp_path / "out.pth").exists()
