"""Computes the logits of a clip from the features of its frames."""

from __future__ import annotations

from torch import Tensor

from attnpool.pooling import Pooled, PoolingHead
from attnpool.pooling.base import Maps


def pool_clips(head: PoolingHead, features: Tensor, *, maps: Maps = False, views: int = 1) -> Pooled:
    """Scores clips: the mean of the logits of their frames, or, with a head that pools over time, of their views.

    If every frame has V test-time views, a head that pools over time scores V clips: the clip of the first views, that
    of the second views, and so on.

    Args:
        head: head of a recognizer.
        features: standardised features `(B, T V, C, H, W)`; the views of a frame follow each other.
        maps: see `Pooled`; maps are `(B, T V, ...)`, and `combined` adds up to the logits over T V, H and W.
        views: number V of views per frame.
    """
    parts = views if head.over_time else features.shape[1]
    if head.over_time:
        each = head(features.unflatten(1, (-1, views)).transpose(1, 2).flatten(0, 1), maps=maps)
    else:
        each = head(features.flatten(0, 1), maps=maps)
    return clips_of(each, parts, over_time=head.over_time)


def clips_of(each: Pooled, parts: int, *, over_time: bool = False) -> Pooled:
    """The output of clips from that of their parts, which follow each other: frames, or views of a whole clip."""

    def together(found: Tensor | None) -> Tensor | None:
        if found is None:
            return None
        of_parts = found.unflatten(0, (-1, parts))
        return of_parts.transpose(1, 2).flatten(1, 2) if over_time else of_parts

    combined = together(each.combined)
    return Pooled(
        each.logits.unflatten(0, (-1, parts)).mean(1),
        together(each.top_down),
        together(each.bottom_up),
        None if combined is None else combined / parts,
        together(each.pose),
    )
