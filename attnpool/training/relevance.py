"""What each option of a training belongs to: an option that would change nothing is refused with the reason.

Someone who gives `--color-jitter` believes that images are varied from then on. So every option that matters only
beside others has a line here. The defaults of options are not looked at, only what was given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

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

    @property
    def departs(self) -> bool:
        """Whether the training surely is a departure from average pooling, which chooses the weight decay itself."""
        own = self.options.model["pooling_options"]
        usual = self.options.optimizer.optimizer == "auto" and self.options.optimizer.lr is None
        attention = self.pooling == "attentional" and own.get("init", "average") == "average"
        plain = (
            self.cached and self.options.model["standardize"] is not False and self.options.model["instances"] == "none"
        )
        return (usual and attention and plain and self.options.train.departure != 0) or (
            self.options.optimizer.optimizer == "departure"
        )


# Each line says when options matter, and what is so if they do not.
Rule = tuple[tuple[str, ...], Callable[[Situation], bool], str]
RULES: tuple[Rule, ...] = (
    (
        ("flip", "color_jitter", "random_resized_crop"),
        lambda s: not s.cached,
        "the features of a frozen backbone are computed once (with use_cache off, images are decoded in every epoch)",
    ),
    (("backbone_lr",), lambda s: not s.frozen, "the backbone is frozen (with freeze_backbone off it is trained)"),
    (("pose_weight", "pose_target"), lambda s: s.pooling == "pose", "only pooling pose predicts joints"),
    (("pose_target",), lambda s: s.options.train.pose_weight > 0, "pose_weight is 0"),
    (("dropout_on",), lambda s: s.dropout > 0, "dropout is 0"),
    (("context",), lambda s: s.options.model["instances"] == "boxes", "it is for instances boxes"),
    (("tune_fraction",), lambda s: s.options.train.patience > 0, "a part of train is held out with patience alone"),
    (("step_updates", "step_factor"), lambda s: s.options.optimizer.schedule == "step", "it is for schedule step"),
    (("segments", "frames"), lambda s: s.media == "clips", "the dataset holds images"),
    (
        ("weight_decay",),
        lambda s: not s.departs,
        "it is chosen on train (with lr or another optimizer it is not)",
    ),
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
            raise ValueError(f"{min(idle)} would change nothing: {reason}; leave it out")
