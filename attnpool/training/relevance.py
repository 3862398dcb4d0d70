"""What each option of a training belongs to: an option that would change nothing is refused with the reason.

Someone who gives `--color-jitter` believes that images are varied from then on. So every option that matters only
beside others has a line here. The defaults of options are not looked at, only what was given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from attnpool.data import Preprocessing
from attnpool.training.config import Options


@dataclass(frozen=True)
class Situation:
    """What decides whether an option matters: all options of a training, and whether it is on images or clips."""

    options: Options
    media: Literal["images", "clips"]

    @property
    def frozen(self) -> bool:
        return bool(self.options.model["freeze_backbone"])

    @property
    def cached(self) -> bool:
        return self.frozen and self.options.train.use_cache

    @property
    def pooling(self) -> str:
        return str(self.options.model["pooling"])

    @property
    def dropout(self) -> float:
        return float(self.options.model["pooling_options"].get("dropout", 0.0))


# What varies images, and why it is idle on features that are kept.
VARYING = ("flip", "color_jitter", "random_resized_crop")
KEPT = "the features of a frozen backbone are computed once (with use_cache off, images are decoded in every epoch)"

# Each line says when options matter, and what is so if they do not.
Rule = tuple[tuple[str, ...], Callable[[Situation], bool], str]
RULES: tuple[Rule, ...] = (
    (VARYING, lambda s: not s.cached, KEPT),
    (("backbone_lr",), lambda s: not s.frozen, "the backbone is frozen (with freeze_backbone off it is trained)"),
    (("pose_weight", "pose_target"), lambda s: s.pooling == "pose", "only pooling pose predicts joints"),
    (("pose_target",), lambda s: s.options.train.pose_weight > 0, "pose_weight is 0"),
    (("dropout_on",), lambda s: s.dropout > 0, "dropout is 0"),
    (("context",), lambda s: s.options.model["instances"] == "boxes", "it is for instances boxes"),
    (("tune_fraction",), lambda s: s.options.train.patience > 0, "a part of train is held out with patience alone"),
    (("step_updates", "step_factor"), lambda s: s.options.optimizer.schedule == "step", "it is for schedule step"),
    (("segments", "frames"), lambda s: s.media == "clips", "the dataset holds images"),
)


def require_relevant(given: Iterable[str], options: Options, media: Literal["images", "clips"]) -> None:
    """Refuses options that would change nothing.

    Args:
        given: the names of the options that the user gave.
        options: all options.
        media: what the dataset holds.

    Raises:
        ValueError: an option would change nothing; the message says why.
    """
    situation = Situation(options, media)
    names = set(given)
    for belonging, matters, reason in RULES:
        if (idle := names & set(belonging)) and not matters(situation):
            raise idle_option(min(idle), reason)


def require_no_augmentation(preprocessing: Preprocessing) -> None:
    """Raises ValueError for options that would vary images whose features are kept."""
    for name in VARYING:
        if getattr(preprocessing, name) != getattr(Preprocessing(), name):
            raise idle_option(name, KEPT)


def idle_option(name: str, reason: str) -> ValueError:
    """The error for an option that would change nothing."""
    return ValueError(f"{name} would change nothing: {reason}; leave it out")
