"""Naming the actions in single pictures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attnpool.data import View, ViewOptions, eval_view, read_image
from attnpool.pooling import Pooled
from attnpool.recognizer import Recognizer
from attnpool.scoring import as_probabilities


@dataclass(frozen=True)
class Prediction:
    """What a recognizer says about one picture: `scores` are `(label, probability)`, the best first."""

    file: str
    scores: list[tuple[str, float]]
    view: View
    pooled: Pooled

    def to_json(self) -> dict[str, Any]:
        return {"file": self.file, "predictions": [{"label": label, "score": value} for label, value in self.scores]}


@torch.no_grad()
def predict(model: Recognizer, files: Iterable[str | Path], *, top: int = 5, maps: bool = False) -> list[Prediction]:
    """Scores pictures one by one.

    Args:
        model: a recognizer, in eval mode.
        files: pictures of any size and format that Pillow reads.
        top: how many classes to list.
        maps: keep the maps in `Prediction.pooled`.

    Raises:
        ValueError: a file is missing or cannot be read as a picture.
    """
    model.eval()
    options = ViewOptions(**model.view)
    predictions = []
    for file in files:
        view = eval_view(read_image(Path(file)), options)
        out = model(model.normalize(view.pixels.unsqueeze(0)), maps=maps)
        values = as_probabilities(out.logits, model.scores)[0]
        order = np.argsort(-values, kind="stable")[:top]
        predictions.append(Prediction(str(file), [(model.classes[k], float(values[k])) for k in order], view, out))
    return predictions
