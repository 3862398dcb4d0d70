"""Pose-regularised attentional pooling (Method 2): human keypoints as intermediate supervision of the attention."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnpool.pooling.attentional import DROPOUTS, INITS, OFFICIAL_STD, classify
from attnpool.pooling.base import CLASSIFIER_STD, Pooled, PoolingHead, on_grid, project, sum_of_terms, weighted_mean


class PoseRegularizedPooling(PoolingHead):
    """Attentional pooling whose saliency comes from a two-layer MLP that also predicts 16 joints (Sec. 3.2, Method 2).

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
        super().__init__(in_channels, num_classes, dropout=dropout)
        if hidden < 1 or joints < 1:
            raise ValueError(f"hidden and joints must be at least 1, not {hidden} and {joints}")
        if init not in INITS:
            raise ValueError(f"unknown init {init!r}: use one of {', '.join(INITS)}")
        if dropout_on not in DROPOUTS:
            raise ValueError(f"unknown dropout_on {dropout_on!r}: use one of {', '.join(DROPOUTS)}")
        self.hidden = hidden
        self.joints = joints
        self.init = init
        self.dropout_on = dropout_on
        self.a = nn.Parameter(torch.empty(num_classes, in_channels))
        self.alpha = nn.Parameter(torch.empty(num_classes))
        self.mlp_weight = nn.Parameter(torch.empty(hidden, in_channels))
        self.mlp_bias = nn.Parameter(torch.empty(hidden))
        self.pose_weight = nn.Parameter(torch.empty(joints, hidden))
        self.pose_bias = nn.Parameter(torch.empty(joints))
        self.b = nn.Parameter(torch.empty(1, hidden))
        self.beta = nn.Parameter(torch.empty(1))
        self.reset_parameters()

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, hidden={self.hidden}, joints={self.joints}, init={self.init}"

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        average = self.init == "average"
        nn.init.normal_(self.a, std=CLASSIFIER_STD if average else OFFICIAL_STD, generator=generator)
        for weight in (self.mlp_weight, self.pose_weight):
            if average:
                nn.init.kaiming_normal_(weight, nonlinearity="relu", generator=generator)
            else:
                nn.init.normal_(weight, std=OFFICIAL_STD, generator=generator)
        if average:
            # Joint heatmaps are nearly empty, so large initial predictions would only have to be unlearned.
            with torch.no_grad():
                self.pose_weight.mul_(0.1)
            nn.init.zeros_(self.b)
        else:
            nn.init.normal_(self.b, std=OFFICIAL_STD, generator=generator)
        for bias in (self.alpha, self.mlp_bias, self.pose_bias):
            nn.init.zeros_(bias)
        nn.init.constant_(self.beta, 1.0 if average else 0.0)

    def forward(self, features: Tensor, *, maps: bool = False) -> Pooled:
        x, grid = self.channels_first(features)
        hidden = F.relu(project(x, self.mlp_weight, self.mlp_bias))
        pose = on_grid(project(hidden, self.pose_weight, self.pose_bias), grid)
        h = project(hidden, self.b, self.beta)
        if self.dropout_on == "positions":
            z = weighted_mean(F.dropout(x, self.dropout, self.training), h)
        else:
            z = F.dropout(weighted_mean(x, h), self.dropout, self.training)
        logits = classify(z, h, self.a, self.alpha)
        if not maps:
            return Pooled(logits, pose=pose)
        return sum_of_terms(logits, project(x, self.a, self.alpha).unsqueeze(1), h.unsqueeze(1), grid, pose)
