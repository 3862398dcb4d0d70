"""Attention as a departure from average pooling: a regression first, then maps under a penalty that the data choose.

Average pooling is the attention whose bottom-up map is 1 everywhere. So the classifier is fitted as average pooling,
which is a logistic regression; then the map is released, and leaves 1 only as far as the loss pays for the penalty
`strength * mean (h - 1)^2` (`PoolingHead.departure`). The strength and the weight decay of the classifier are chosen by
cross-validation on the training images; infinitely strong is the regression itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from attnpool.features.features import Features
from attnpool.models.recognizer import Recognizer
from attnpool.training.cross_validation import (
    Candidate,
    Choice,
    Tried,
    cross_validate,
    given_options,
    regression,
    smallest_loss,
)
from attnpool.training.optimizer import Setting
from attnpool.training.side_by_side import SideBySide, Trial

STRENGTHS = (0.03, 0.1, 0.3, 1.0)
DECAYS = (1, 3, 10)  # times the regression's: attention fits more, so that more decay may suit it
SURE = 2.0  # standard errors by which attention must be better than average pooling


def candidates(model: Recognizer, images: int, fit: SideBySide) -> list[Setting]:
    """The settings that are tried: average pooling first, then every strength with every weight decay.

    A `departure` or `weight_decay` that the options give is the only one.
    """
    average = regression(model, images, fit.options)
    given, decay = fit.options.departure, fit.schedule.weight_decay
    strengths = STRENGTHS if given is None else (given,)
    decays = [times * average.weight_decay for times in DECAYS] if decay is None else [decay]
    rate = average.lr if fit.schedule.lr is None else float(fit.schedule.lr)
    found = [Setting("departure", rate, value, strength) for strength in strengths for value in decays]
    return [average, *found] if given is None else found


def choose(model: Recognizer, features: Features, fit: SideBySide, *, show: bool = True) -> Choice:
    """Chooses how far attention departs from average pooling by cross-validation, all candidates side by side.

    The one with the smallest loss on images that it was not trained on is chosen, if it is better than average pooling
    by `SURE` standard errors; else it is average pooling.

    Args:
        model: the recognizer; its `Standardize` is fitted. It is not changed.
        features: cached features of the training images.
        fit: how heads are trained; a `departure` or `weight_decay` in its options is the only one tried.
        show: show a progress bar.
    """
    settings = candidates(model, len(features), fit)
    if len(settings) == 1:
        return Choice(Tried(model.pooling, given_options(model), settings[0]), ())
    tried = cross_validate(
        [Candidate(model, setting) for setting in settings],
        features,
        fit,
        "choosing the departure" if show else None,
    )
    return Choice(chosen_of(tried), tuple(tried))


def chosen_of(tried: Sequence[Tried]) -> Tried:
    """The candidate with the smallest loss; average pooling, if it is there and the best is not surely better."""
    best = smallest_loss(tried)
    average = next((entry for entry in tried if math.isinf(entry.setting.departure)), None)
    if average is not None and average.loss - best.loss <= SURE * average.error:
        return average
    return best


def start_at_regression(model: Recognizer, features: Features, fit: SideBySide) -> None:
    """Fits the classifier of a model as average pooling; its bottom-up maps stay where they start."""
    (head,) = fit.run(features.averaged, [Trial(model, model.head, regression(model, len(features), fit.options))])
    model.head.load_state_dict(head.state_dict())
