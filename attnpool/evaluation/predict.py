"""Naming the actions in single images and clips."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attnpool.data import Preprocessing, View, eval_view, read_image
from attnpool.data.clips import Clip, is_clip, read_views
from attnpool.evaluation.inference import as_probabilities
from attnpool.models.recognizer import Recognizer
from attnpool.pooling import Pooled

WHOLE = "scored as a whole: the persons' boxes that this run looks at come with a dataset"


@dataclass(frozen=True)
class Prediction:
    """What a recognizer says about one image or clip.

    Attributes:
        file: its name.
        scores: `(label, probability)`, the best first.
        view: of the image, or of the clip's first frame.
        pooled: the recognizer's output, of one image or clip.
        note: what the reader must know of the scores, "" for nothing.
    """

    file: str
    scores: list[tuple[str, float]]
    view: View
    pooled: Pooled
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        found = {"file": self.file, "predictions": [{"label": label, "score": value} for label, value in self.scores]}
        return found | ({"note": self.note} if self.note else {})


def look(model: Recognizer, path: Path) -> Clip:
    """What a recognizer sees of an image (one frame and one view) or of a clip, as in evaluation.

    A folder, or a file with the name of a video, is a clip, whatever the recognizer was trained on.

    Raises:
        ValueError: it cannot be read, or is an image and the recognizer takes optical flow.
    """
    options = Preprocessing(**model.preprocessing)
    if is_clip(path):
        return read_views(path, options)
    if options.modality == "flow":
        raise ValueError(f"{path}: an image has no optical flow, which this run takes; give it a video, or its frames")
    image = read_image(path)
    return Clip(0, [], [image], [eval_view(image, options)])


@torch.no_grad()
def score(model: Recognizer, file: str | Path, seen: Clip, *, top: int = 5, maps: bool = False) -> Prediction:
    """Scores what `look` gave; arguments are those of `predict`."""
    model.eval()
    pixels = torch.stack([view.pixels for view in seen.views])
    out = model(model.normalize(pixels[None] if seen.count else pixels), maps=maps)
    values = as_probabilities(out.logits, model.scores)[0]
    order = np.argsort(-values, kind="stable")[:top]
    note = WHOLE if model.instances == "boxes" else ""
    return Prediction(str(file), [(model.classes[k], float(values[k])) for k in order], seen.views[0], out, note)


def predict(model: Recognizer, files: Iterable[str | Path], *, top: int = 5, maps: bool = False) -> list[Prediction]:
    """Scores images and clips one by one.

    Args:
        model: a recognizer, in eval mode.
        files: images of any size and format that Pillow reads; clips, see `look`. A clip's logits are the mean over
            the frames that the recognizer's view names.
        top: how many classes to list.
        maps: keep the maps in `Prediction.pooled`.

    Raises:
        ValueError: a file is missing or cannot be read.
    """
    return [score(model, file, look(model, Path(file)), top=top, maps=maps) for file in files]
