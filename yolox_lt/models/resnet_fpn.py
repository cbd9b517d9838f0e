"""ResNet (He et al., arXiv 1512.03385) with a feature pyramid (Lin et al., FPN, arXiv 1612.03144) on strides 8..128.

The ResNet is torchvision's (stride in the 3x3 convolution), so its weight files fit by name. Frozen parts, the origin
of P6 and the start values of the FPN are as in the released EFL models. All maps are [B, C, H, W] in any memory format.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models import (
    ResNet,
    ResNet18_Weights,
    ResNet34_Weights,
    ResNet50_Weights,
    ResNet101_Weights,
    ResNet152_Weights,
    WeightsEnum,
    resnet18,
    resnet34,
    resnet50,
    resnet101,
    resnet152,
)

from yolox_lt.archive import check_archive, is_archive
from yolox_lt.errors import UserError
from yolox_lt.models.init import init_convs

RESNETS: dict[int, tuple[Callable[..., ResNet], WeightsEnum]] = {
    18: (resnet18, ResNet18_Weights.IMAGENET1K_V1),
    34: (resnet34, ResNet34_Weights.IMAGENET1K_V1),
    50: (resnet50, ResNet50_Weights.IMAGENET1K_V1),
    101: (resnet101, ResNet101_Weights.IMAGENET1K_V1),
    152: (resnet152, ResNet152_Weights.IMAGENET1K_V1),
}
"""Builder and ImageNet weights of each depth."""

STAGES = 5
"""Parts that can be frozen: the stem (`conv1`, `bn1`) and `layer1` to `layer4`."""


class FPN(nn.Module):
    """Feature pyramid without norm or activation: P3, P4, P5 from C3, C4, C5, and two coarser levels.

    P6 is a stride-2 convolution of the lateral (1x1) output of C5, neither of C5 nor of P5, and P7 one of P6, without a
    ReLU in between: as in the released models. Weights start Xavier-normal, biases at zero.

    Args:
        in_channels: channels of the ResNet's maps, finest first.
        channels: channels of every output, at least 1.

    Raises:
        UserError: `channels` below 1.
    """

    def __init__(self, in_channels: Sequence[int], channels: int) -> None:
        super().__init__()
        if channels < 1:
            raise UserError(f"the FPN has channels {channels}: give at least 1, for example 256.")
        self.lateral = nn.ModuleList(nn.Conv2d(own, channels, 1) for own in in_channels)
        self.output = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in in_channels)
        self.extra = nn.ModuleList(nn.Conv2d(channels, channels, 3, stride=2, padding=1) for _ in range(2))
        init_convs(self, nn.init.xavier_normal_)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Maps [B, in_channels, H, W], finest first, of any size -> [B, channels, H, W] per level, two levels more."""
        laterals = [lateral(feature) for lateral, feature in zip(self.lateral, features)]
        levels = [output(x) for output, x in zip(self.output, merge_top_down(laterals))]
        coarser = laterals[-1]
        for extra in self.extra:
            coarser = extra(coarser)
            levels.append(coarser)
        return levels


def merge_top_down(laterals: Sequence[Tensor]) -> list[Tensor]:
    """Each map [B, C, H, W] plus all coarser ones, enlarged to its size by nearest neighbours; finest first."""
    merged = [laterals[-1]]  # coarsest first
    for lateral in laterals[-2::-1]:
        # To the finer map's own size: it is odd where the image is no multiple of 32.
        merged.append(lateral + F.interpolate(merged[-1], size=lateral.shape[-2:], mode="nearest"))
    return merged[::-1]


class ResNetFPN(nn.Module):
    """torchvision's ResNet without its classifier (`resnet`), followed by an FPN (`fpn`).

    Weights are random; see `load_backbone`. Random weights cannot be trained with the defaults: a frozen stem learns
    nothing, and BatchNorm in evaluation mode normalises nothing before it has seen data. Take trainable_layers=5 and
    freeze_bn=False then.

    Args:
        depth: 18, 34, 50, 101 or 152.
        channels: channels of every level.
        trainable_layers: 0 to 5, how many stages are trained, counted from the last; torchvision's meaning. 3: `layer2`
            to `layer4` (released models); 5: everything. The parameters of the others need no gradient, and their
            BatchNorm stays in evaluation mode.
        freeze_bn: keep every BatchNorm of the ResNet in evaluation mode, also in training (released models). Its
            weight and bias are trained nevertheless, in stages that are trained.

    Raises:
        UserError: another depth, or `trainable_layers` outside 0..5.
    """

    def __init__(self, depth: int = 50, channels: int = 256, trainable_layers: int = 3, freeze_bn: bool = True) -> None:
        super().__init__()
        if depth not in RESNETS:
            raise UserError(f"the ResNet's depth is {depth}: choose one of {', '.join(map(str, RESNETS))}.")
        if not 0 <= trainable_layers <= STAGES:
            raise UserError(
                f"trainable_layers is {trainable_layers}: give 0 to {STAGES}, the number of stages to train counted "
                "from the last."
            )
        self.depth = depth
        self.trainable_layers = trainable_layers
        self.freeze_bn = freeze_bn
        builder, _ = RESNETS[depth]
        self.resnet = builder(weights=None)
        c5 = self.resnet.fc.in_features
        del self.resnet.fc, self.resnet.avgpool
        self.fpn = self.make_fpn(c5, channels)
        for part in self._frozen_parts():
            part.requires_grad_(False)
        self.train()

    def make_fpn(self, c5: int, channels: int) -> nn.Module:
        """The pyramid over the maps of `resnet_features`, of which the last has `c5` channels."""
        return FPN((c5 // 4, c5 // 2, c5), channels)

    def _frozen_parts(self) -> list[nn.Module]:
        resnet = self.resnet
        stages: list[list[nn.Module]] = [[resnet.conv1, resnet.bn1]]
        stages += [[layer] for layer in (resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4)]
        return [part for stage in stages[: STAGES - self.trainable_layers] for part in stage]

    def train(self, mode: bool = True) -> ResNetFPN:
        """Set the mode; frozen BatchNorm layers stay in evaluation mode."""
        super().train(mode)
        for part in [self.resnet] if self.freeze_bn else self._frozen_parts():
            for module in part.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def stages(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """[B, 3, H, W] -> C2, C3, C4, C5 at strides 4, 8, 16, 32; sizes are rounded up."""
        resnet = self.resnet
        c2 = resnet.layer1(resnet.maxpool(resnet.relu(resnet.bn1(resnet.conv1(images)))))
        c3 = resnet.layer2(c2)
        c4 = resnet.layer3(c3)
        return c2, c3, c4, resnet.layer4(c4)

    def resnet_features(self, images: Tensor) -> tuple[Tensor, ...]:
        """[B, 3, H, W] -> the maps that the pyramid takes: C3, C4, C5 at strides 8, 16, 32."""
        return self.stages(images)[1:]

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images [B, 3, H, W] of any size -> P3..P7 [B, channels, ceil(H / s), ceil(W / s)], s = 8, 16, 32, 64, 128.

        With ImageNet weights the images are RGB / 255, normalised by mean (0.485, 0.456, 0.406) and standard deviation
        (0.229, 0.224, 0.225).
        """
        return self.fpn(self.resnet_features(images))


def load_backbone(model: ResNetFPN, weights: str | Path) -> None:
    """Load ImageNet weights into the ResNet; the FPN keeps its own.

    Args:
        model: what to load into.
        weights: "imagenet" for torchvision's IMAGENET1K_V1 of the model's depth, downloaded into torch.hub's folder
            once; else the path of a torchvision ResNet state dict, plain or under "model" or "state_dict", with or
            without `module.` before the names. The classifier `fc` is left out; `num_batches_tracked` may be absent.
            The released models name their files resnet50-19c8e357 and resnet101-5d3b4d8f: weights of version 1 too,
            under other file names than torchvision's current ones. To start from exactly those files give their path.

    Raises:
        UserError: the download failed; the file is missing, unreadable, or holds other names or shapes, for example of
            another depth. Nothing is loaded then.
    """
    if weights == "imagenet":
        source, content = _fetch_imagenet(RESNETS[model.depth][1])
    else:
        source, content = str(weights), _read_file(Path(weights))
    state = _resnet_state(content, source)
    own = model.resnet.state_dict()
    # Files written before BatchNorm counted its batches lack the counters, which only a momentum of None uses.
    state = {k: v for k, v in own.items() if k.endswith(".num_batches_tracked")} | state
    problems = [f"no {key}" for key in own if key not in state]
    problems += [f"unknown {key}" for key in state if key not in own]
    problems += [
        f"{key} is {tuple(state[key].shape)} instead of {tuple(value.shape)}"
        for key, value in own.items()
        if key in state and state[key].shape != value.shape
    ]
    if problems:
        raise UserError(
            f"{source}: not the weights of a ResNet-{model.depth} ({problems[0]}; {len(problems)} differences); "
            "give a file of that depth with backbone_weights, or change the depth."
        )
    model.resnet.load_state_dict(state, strict=True)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__


def _fetch_imagenet(weights: WeightsEnum) -> tuple[str, Any]:
    """(URL, state dict)."""
    try:
        return weights.url, weights.get_state_dict(check_hash=True, map_location="cpu", weights_only=True)
    except Exception as error:  # network, proxy, disk, hash and damaged copies all have their own kinds
        raise UserError(
            f"{weights.url}: the ImageNet weights could not be fetched or read ({_first_line(error)}); give a local "
            "file (backbone_weights PATH), or backbone_weights None to start from random weights."
        ) from error


def _read_file(path: Path) -> Any:
    if not path.is_file():
        raise UserError(f"{path}: backbone weights not found; give an existing file with backbone_weights.")
    try:
        if is_archive(path):
            check_archive(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a foreign byte makes the unpickler raise whatever it leads to
        raise UserError(
            f"{path}: not a readable file of weights ({_first_line(error)}); give a torchvision ResNet state dict "
            "with backbone_weights."
        ) from error


def _resnet_state(content: Any, source: str) -> dict[str, Tensor]:
    """The tensors of a ResNet under torchvision's names, without the classifier."""
    for key in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    ):
        raise UserError(f"{source}: holds no state dict; give a torchvision ResNet state dict with backbone_weights.")
    state = {key.removeprefix("module."): value for key, value in content.items()}
    return {key: value for key, value in state.items() if not key.startswith("fc.")}
