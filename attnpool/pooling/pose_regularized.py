"""Pose-regularised attentional pooling (Method 2): human keypoints as intermediate supervision of the attention."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from attnpool.pooling.attentional import AttentionalPooling
from attnpool.pooling.base import Maps, Pooled, on_grid, project


class PoseRegularizedPooling(AttentionalPooling):
    """Attentional pooling whose hidden layer also predicts 16 joints (Sec. 3.2, Method 2).

    `P = relu(W_1 X + b_1)` has `hidden` channels; `pose = W_p P + b_p` are 16 heatmaps that an L2 loss compares with
    labelled joints in training (`losses.pose_loss`); the map `h = P b + beta`, which has no labels of its own, is the
    bottom-up attention. Classes are scored on the features themselves: `score_k = 1/N * sum_i h_i * t_ki`,
    `t_k = X a_k + alpha_k` (Eq. 10).

    Args:
        in_channels: C.
        num_classes: K.
        dropout: probability of dropping an entry of the pooled features in training. See `dropout_on`.
        hidden: number of channels of the hidden layer, 768 in the released code.
        joints: number J of joint heatmaps; the pose loss needs 16, the joints of MPII.
        init: whether the weights start as average pooling or as in the released code. "average" starts the bottom-up
            map at 1; "official" draws all weights from N(0, 0.001).
        dropout_on: what dropout drops, channels of the pooled features or single entries of the features at each
            position.

    Shapes: features `(B, C, H, W)` or `(B, N, C)`; see `Pooled` for the output. `pose` is `(B, J, H, W)` and is also
    returned without `maps`.

    Raises:
        ValueError: an option has an unknown value, or the features have a wrong number of axes or channels.

    Source: Girdhar & Ramanan, "Attentional Pooling for Action Recognition", NIPS 2017, Sec. 3.2 and its released code.
    """

    learning_rates: ClassVar = {"adamw": 3e-3, "sgd": 1e-2}  # docs/study.md

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        dropout: float = 0.0,
        hidden: int = 768,
        joints: int = 16,
        init: Literal["average", "official"] = "average",
        dropout_on: Literal["pooled", "positions"] = "pooled",
    ) -> None:
        if hidden < 1 or joints < 1:
            raise ValueError(f"hidden and joints must be at least 1, not {hidden} and {joints}")
        super().__init__(in_channels, num_classes, dropout=dropout, hidden=hidden, init=init, dropout_on=dropout_on)
        self.joints = joints
        self.pose_weight = nn.Parameter(torch.empty(joints, hidden))
        self.pose_bias = nn.Parameter(torch.empty(joints))
        self.reset_parameters()

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, joints={self.joints}"

    def reset_hidden(self, generator: torch.Generator | None) -> None:
        super().reset_hidden(generator)
        if not hasattr(self, "pose_weight"):  # in the base class's constructor
            return
        self.reset_hidden_weight(self.pose_weight, generator)
        nn.init.zeros_(self.pose_bias)
        if self.init == "average":
            # Joint heatmaps are nearly empty, so large initial predictions would only have to be unlearned.
            with torch.no_grad():
                self.pose_weight.mul_(0.1)

    @property
    def departs(self) -> bool:
        return False  # its hidden layer learns joints, too

    def forward(self, features: Tensor, *, maps: Maps = False) -> Pooled:
        x, grid = self.channels_first(features)
        salient = self.salient(x)
        pose = on_grid(project(salient, self.pose_weight, self.pose_bias), grid)
        return self.attended(x, salient, grid, maps)._replace(pose=pose)
