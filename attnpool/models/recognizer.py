"""The recognizer: a backbone and a pooling that turn normalised images or clips into logits and maps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from attnpool.backbones.backbone import Backbone
from attnpool.models.clip_pooling import pool_clips
from attnpool.models.feature_norm import Standardize, kind_of, make
from attnpool.models.instance_pooling import Boxes, Instances, pool_instances
from attnpool.pooling import POOLINGS, Pooled, PoolingHead
from attnpool.pooling.base import Maps
from attnpool.pooling.options import resolved_options


class Recognizer(nn.Module):
    """A backbone whose final average pooling is replaced by one of `attnpool.POOLINGS`.

    Args:
        backbone: network that computes the features, as lite0 (whose weights are installed), bn_inception,
            resnet101_tf, torchvision:NAME or a timm name. A `Backbone` is used as it is.
        classes: class names; their order is the order of the logits.
        pooling: pooling that turns features into class scores. It is a key of `attnpool.POOLINGS`, such as "average".
        pooling_options: options of the pooling, the keyword arguments of its class, such as `{"rank": 2}`. An option
            that the pooling does not have is an error.
        instances: regions of which the best one gives the score of a class, the whole image alone (none) or also the
            boxes of its persons (boxes). See `instance_pooling.pool_instances`.
        context: factor by which the width and height of a person's box are enlarged, with instances boxes.
        task: "single" (exactly one class per image) or "multi" (any number).
        scores: how logits become scores, by "softmax" over the classes or by a "sigmoid" of each; by default the task
            decides. A model for several labels that is trained with a softmax loss has softmax scores, too.
        weights: weights of the backbone, pretrained, random or a .safetensors, .pth or .pt file.
        freeze_backbone: train only the head, on features that are computed once. (A `Backbone` that is passed in keeps
            its own setting.)
        tokens: tokens of a vision transformer that are pooled, its patches, or its class token beside every patch, too
            (cls+patches). (A `Backbone` that is passed in has its own.)
        standardize: standardise the features with fixed statistics before pooling (default: if the backbone is frozen).
            See `Standardize`; "pooled" does it image by image (`PooledNorm`).
        preprocessing: options of `data.Preprocessing` that testing needs, too (image_size, short_side, max_width); they
            are kept here because they belong to the trained model.
        seed: seed of the head's initial weights, and of the backbone's if they are random.

    Raises:
        ValueError: there are fewer than two classes or repeated ones, the pooling or an option is unknown, or the
            weights do not fit, or `preprocessing` is not a mapping.

    >>> model = Recognizer("lite0", classes=["drinking", "calling"])
    >>> out = model(model.normalize(torch.zeros(1, 3, 448, 448, dtype=torch.uint8)), maps=True)
    >>> out.combined.shape
    torch.Size([1, 2, 14, 14])
    """

    def __init__(
        self,
        backbone: str | Backbone = "lite0",
        *,
        classes: Sequence[str],
        pooling: str = "attentional",
        pooling_options: Mapping[str, Any] | None = None,
        instances: Literal["none", "boxes"] = "none",
        context: float = 1.5,
        task: Literal["single", "multi"] = "single",
        scores: Literal["softmax", "sigmoid"] | None = None,
        weights: str | Path = "pretrained",
        freeze_backbone: bool = True,
        tokens: Literal["patches", "cls+patches"] = "patches",
        standardize: bool | Literal["pooled"] | None = None,
        preprocessing: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.classes = tuple(classes)
        if len(self.classes) < 2 or len(set(self.classes)) < len(self.classes):
            raise ValueError(f"a recognizer needs two or more different classes, not {list(self.classes)[:5]}")
        if task not in ("single", "multi"):
            raise ValueError(f"unknown task {task!r}: use single or multi")
        if instances not in ("none", "boxes") or not 0 < context < math.inf:
            raise ValueError(
                f"instances is {instances!r} and context {context}: use none or boxes, and a positive number"
            )
        if scores not in (None, "softmax", "sigmoid"):
            raise ValueError(f"unknown scores {scores!r}: use softmax or sigmoid")
        self.task = task
        self.scores = scores or ("softmax" if task == "single" else "sigmoid")
        self.instances, self.context = instances, context
        self.pooling = pooling
        self.pooling_options = resolved_options(
            POOLINGS, pooling, pooling_options or {}
        )  # errors come before the slow part
        if preprocessing is not None and not isinstance(preprocessing, Mapping):
            kind = type(preprocessing).__name__
            raise ValueError(f"preprocessing is a {kind}; give a mapping, such as Preprocessing(...).of_model()")
        self.preprocessing: dict[str, Any] = dict(
            preprocessing or {"image_size": 448, "short_side": None, "max_width": None}
        )
        self.backbone = (
            backbone
            if isinstance(backbone, Backbone)
            else Backbone(backbone, weights, frozen=freeze_backbone, seed=seed, tokens=tokens)
        )
        channels = self.backbone.out_channels
        fixed = self.backbone.frozen if standardize is None else standardize
        self.standardize: nn.Module = make(fixed, channels)
        self.head: PoolingHead = POOLINGS[pooling](channels, len(self.classes), **self.pooling_options)
        self.head.reset_parameters(torch.Generator().manual_seed(seed))

    def normalize(self, pixels: Tensor) -> Tensor:
        """Converts RGB pixels 0..255, uint8 or float, `(..., 3, H, W)` to the network's float32 input, without
        resizing.

        A backbone whose `in_channels` is not 3 takes stacks of optical flow, 0..255 with 128 for no motion.

        Raises:
            ValueError: the length of the third axis from the end is not the backbone's number of input channels.
        """
        channels = self.backbone.in_channels
        if pixels.ndim < 3 or pixels.shape[-3] != channels:
            kind = "RGB" if channels == 3 else "optical flow"
            raise ValueError(f"pixels must be (..., {channels}, H, W), {kind} 0..255, not {tuple(pixels.shape)}")
        mean = torch.tensor(self.backbone.mean, device=pixels.device)[:, None, None]
        std = torch.tensor(self.backbone.std, device=pixels.device)[:, None, None]
        return (pixels.float() - mean) / std

    def forward(self, x: Tensor, *, maps: Maps = False, boxes: Boxes | None = None) -> Pooled:
        """Scores normalised images `(B, 3, H, W)` or clips `(B, T, 3, H, W)`.

        The logits of a clip are the mean of its frames' logits (the consensus of temporal segment networks), unless the
        head pools clips as a whole (`over_time`). The maps of clips are `(B, T, ...)`; `combined` is divided by T, so
        that it adds up to the logits over T, H and W. For `boxes` see `pool`.

        Raises:
            ValueError: the input does not have 4 or 5 axes.
        """
        return self.pool(self.features(x), maps=maps, boxes=boxes, size=(x.shape[-2], x.shape[-1]))

    def features(self, x: Tensor) -> Tensor:
        """The features before pooling: `(B, 3, H, W)` -> `(B, C, h, w)`, or `(B, T, 3, H, W)` -> `(B, T, C, h, w)`."""
        if x.ndim not in (4, 5):
            raise ValueError(f"input must be (B, 3, H, W) or (B, T, 3, H, W), not of shape {tuple(x.shape)}")
        return self.backbone(x.flatten(0, -4)).unflatten(0, x.shape[:-3])

    @property
    def sees_people(self) -> bool:
        """Whether its scores depend on where persons are."""
        return self.instances == "boxes"

    def pool(
        self,
        features: Tensor,
        *,
        maps: Maps = False,
        boxes: Boxes | None = None,
        size: tuple[int, int] | None = None,
        views: int = 1,
    ) -> Pooled:
        """Scores features of the backbone, `(B, C, h, w)` or, for clips, `(B, T, C, h, w)`.

        Args:
            features: features as `features` returns them.
            maps: see `Pooled`.
            boxes: boxes of the persons in each image, in pixels of the network's input; only a recognizer with
                instances uses them. Its scores then are not sums over one map, so there are no maps.
            size: height and width of that input in pixels (default: a square of the preprocessing's image_size).
            views: number of test-time views of a frame or an image that follow each other along T, see `pool_clips`.
        """
        if boxes is not None and self.instances == "boxes":
            best = self.pool_instances(features, boxes, size)
            return Pooled(best.logits, pose=best.pose)
        if features.ndim == 5:
            frames = self.standardize(features.flatten(0, 1)).unflatten(0, features.shape[:2])
            return pool_clips(self.head, frames, maps=maps, views=views)
        return self.head(self.standardize(features), maps=maps)

    def token_share(self, features: Tensor) -> Tensor:
        """What the class token gives to the logits of features, `(B, K)`.

        It is what every logit loses when the token is that of the mean training image, which a frozen backbone's
        `Standardize` knows, else zeros. The combined maps still add up to the whole logits: this share lies in them
        wherever the bottom-up map is.

        Raises:
            ValueError: the features have no class token.
        """
        if not self.backbone.has_token:
            raise ValueError(f"{self.backbone.name}: its features have no class token; use tokens cls+patches")
        channels = features.shape[-3] // 2
        norm = self.standardize
        usual = norm.mean[channels:] if isinstance(norm, Standardize) else features.new_zeros(channels)
        without = features.clone()
        without[..., channels:, :, :] = usual[:, None, None]
        return self.pool(features).logits - self.pool(without).logits

    def pool_instances(self, features: Tensor, boxes: Boxes, size: tuple[int, int] | None = None) -> Instances:
        """The score of the best instance for every class, and which it is; see `instance_pooling.pool_instances`."""
        square = (self.preprocessing["image_size"],) * 2
        return pool_instances(self.head, self.standardize(features), boxes, size or square, self.context)

    def describe(self) -> dict[str, Any]:
        """Everything besides the weights that is needed to build this recognizer again, as JSON values."""
        return {
            "classes": list(self.classes),
            "task": self.task,
            "scores": self.scores,
            "backbone": self.backbone.required_name(),
            "freeze_backbone": self.backbone.frozen,
            "pooling": self.pooling,
            "pooling_options": self.pooling_options,
            "standardize": kind_of(self.standardize),
            "preprocessing": self.preprocessing,
            "pixels": {"mean": list(self.backbone.mean), "std": list(self.backbone.std)},
            **({} if self.backbone.in_channels == 3 else {"in_channels": self.backbone.in_channels}),
            **({"tokens": self.backbone.tokens} if self.backbone.has_token else {}),
            **({} if self.instances == "none" else {"instances": self.instances, "context": self.context}),
        }

    @classmethod
    def from_description(cls, about: Mapping[str, Any]) -> Recognizer:
        """Builds a recognizer from the result of `describe`, with random weights.

        Raises:
            KeyError, TypeError, ValueError: a part of the description is missing or unknown.
        """
        # The random weights will be replaced, so they need not advance the caller's random generator.
        with torch.random.fork_rng(devices=[]):
            backbone = Backbone(
                about["backbone"],
                "random",
                frozen=about["freeze_backbone"],
                in_channels=about.get("in_channels", 3),
                tokens=about.get("tokens", "patches"),
            )
            recognizer = cls(
                backbone,
                classes=about["classes"],
                pooling=about["pooling"],
                task=about["task"],
                scores=about["scores"],
                standardize=about["standardize"],
                instances=about.get("instances", "none"),
                context=about.get("context", 1.5),
                preprocessing=about["preprocessing"],
                pooling_options=about["pooling_options"],
            )
        backbone.mean, backbone.std = tuple(about["pixels"]["mean"]), tuple(about["pixels"]["std"])
        return recognizer
