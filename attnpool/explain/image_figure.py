"""The maps of one image as columns of a panel: the paper's Figure 2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from attnpool.evaluation.pointing import as_array
from attnpool.explain.lettering import number
from attnpool.explain.overlay import Column


def figure_columns(
    classes: Sequence[str],
    logits: Any,
    *,
    top_down: Any | None = None,
    bottom_up: Any | None = None,
    combined: Any | None = None,
    best: int | None = None,
    chosen: int | None = None,
    probabilities: Any | None = None,
    plain: bool = True,
) -> list[Column]:
    """The paper's Figure 2 for one image: image, bottom-up, then top-down and combined for one or two classes.

    With two classes and combined maps, the last column is the difference of these maps, which adds up to the difference
    of the scores. That is what a softmax decides by: it does not change if the same map is added to those of all
    classes, so a class that is nearly certain may have a map that is negative everywhere.

    Both classes share one colour scale a kind of map, so that their colours compare. Of the P terms of a higher rank
    the one with the largest share in the first class's score is shown, and said so. Maps that the head does not have
    are left out.

    Args:
        classes: K names.
        logits: `(K,)` scores of the image.
        top_down: `(P, K, h, w)`. bottom_up: `(P, 1 or K, h, w)`. combined: `(K, h, w)`, which adds up to the logits.
            Each is one image of the `Pooled` field of that name, array or tensor.
        best: the first class; `None`: the one that scores highest.
        chosen: a second class to compare with; `None` or the same as `best`: no further columns.
        probabilities: `(K,)`, printed with the top-down maps and, of both classes, with the difference.
        plain: also show the top-down and combined maps, not only the difference; of a single class they are shown in
            any case.
    """
    scores = as_array(logits)
    best = int(scores.argmax()) if best is None else best
    shown = [best] if chosen is None or chosen == best else [best, chosen]
    down, up, both = (None if x is None else as_array(x) for x in (top_down, bottom_up, combined))
    term, of_rank = leading_term(down, up, best)

    columns = [Column("image")]
    if up is not None:
        per_class = up.shape[1] > 1
        saliency = up[term, best if per_class else 0]
        columns.append(
            Column("bottom-up", saliency, signed=False, label=classes[best] if per_class else "", note=of_rank)
        )
    down_scale = None if down is None else float(np.abs(down[term, shown]).max())
    both_scale = None if both is None else float(np.abs(both[shown]).max())
    for k in shown if plain or len(shown) == 1 else ():
        if down is not None:
            likely = "" if probabilities is None else f"probability {percent(as_array(probabilities)[k])}"
            note = " · ".join(part for part in (of_rank, likely) if part)
            columns.append(Column("top-down", down[term, k], scale=down_scale, label=classes[k], note=note))
        if both is not None:
            note = f"adds up to its score, {number(float(both[k].sum()))}"
            columns.append(Column("combined", both[k], scale=both_scale, label=classes[k], note=note))
    if both is not None and len(shown) == 2:
        apart = both[best] - both[shown[1]]
        likely = "" if probabilities is None else " : ".join(percent(as_array(probabilities)[k]) for k in shown)
        note = " · ".join(text for text in (f"adds up to {number(float(apart.sum()))}", likely) if text)
        columns.append(Column("difference", apart, label=f"{classes[best]} rather than {classes[shown[1]]}", note=note))
    return columns


def leading_term(down: np.ndarray | None, up: np.ndarray | None, k: int) -> tuple[int, str]:
    """The term of the rank-P sum with the largest share in the score of class k, and how to say so."""
    if down is None or len(down) == 1:
        return 0, ""
    share = down[:, k] if up is None else down[:, k] * (up[:, k] if up.shape[1] > 1 else up[:, 0])
    term = int(np.abs(share.sum((-2, -1))).argmax())
    return term, f"term {term + 1} of {len(down)}"


def percent(fraction: float) -> str:
    return f"{100 * fraction:.0f}%" if 0.01 <= fraction <= 0.99 else ("<1%" if fraction < 0.01 else ">99%")
