"""Naming the actions in single images and clips."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from attnpool.data import Preprocessing, View, eval_view, read_image
from attnpool.data.clips import Clip, read_views
from attnpool.data.crops import detail
from attnpool.data.decoding.contents import Media, is_clip
from attnpool.data.decoding.image import only_first
from attnpool.evaluation.inference import as_probabilities
from attnpool.evaluation.inputs import Inputs, open_with_files
from attnpool.models.recognizer import Recognizer
from attnpool.pooling import Pooled

AT_ONCE = 8  # frames
WHOLE = "scored as a whole: the persons' boxes that this run looks at come with a dataset"


@dataclass(frozen=True)
class Prediction:
    """What a recognizer says about one image or clip.

    Attributes:
        file: its name.
        scores: `(label, probability)`, the best first.
        view: the test-time view of the image, or of the clip's first frame, if the maps are kept.
        pooled: the recognizer's output for it, a batch of one.
        note: what the reader must know of the scores, "" for nothing.
        token_share: `(K,)`, what a class token gives to the logits, if the recognizer looks at one.
    """

    file: str
    scores: list[tuple[str, float]]
    view: View | None
    pooled: Pooled
    note: str = ""
    token_share: torch.Tensor | None = None

    def to_json(self) -> dict[str, Any]:
        found = {"file": self.file, "predictions": [{"label": label, "score": value} for label, value in self.scores]}
        return found | ({"note": self.note} if self.note else {})

    def __str__(self) -> str:
        lines = [self.file, *(f"  {100 * value:5.1f} %  {label}" for label, value in self.scores)]
        return "\n".join([*lines, *([f"  note: {self.note}"] if self.note else [])])


Answer = TypeVar("Answer")


class Answers(list[Answer]):
    """What was found of each file that can be read, in their order.

    Attributes:
        failed: `(file, reason)` of the files that cannot be read.
        notes: what of the folders that were named is left out.
    """

    exit_code = 2  # of a command in which files failed

    def __init__(self) -> None:
        super().__init__()
        self.failed: list[tuple[str, str]] = []
        self.notes: list[str] = []

    @property
    def problems(self) -> list[str]:
        return [reason for _, reason in self.failed]

    def errors(self) -> list[dict[str, Any]]:
        """The files that cannot be read, as entries of JSON."""
        return [{"file": file, "error": reason} for file, reason in self.failed]


class Predictions(Answers[Prediction]):
    """What `predict` found, in the order of the files."""

    def to_json(self) -> list[dict[str, Any]]:
        return [*(prediction.to_json() for prediction in self), *self.errors()]

    def __str__(self) -> str:
        return "\n".join(str(prediction) for prediction in self)


def look(model: Recognizer, path: Path, media: Media = "images") -> Clip:
    """What a recognizer sees of an image (a single test-time view) or of a clip, as in evaluation.

    A folder, or a file with the name of a video, is a clip, whatever the recognizer was trained on (`media`). An
    animated GIF is one among clips.

    Raises:
        ValueError: it cannot be read, or is an image and the recognizer takes optical flow.
    """
    options = Preprocessing(**model.preprocessing)
    if is_clip(path, media):
        return read_views(path, options)
    if options.modality == "flow":
        raise ValueError(f"{path}: an image has no optical flow, which this run takes; give it a video, or its frames")
    image = read_image(path, partial(detail, options=options))
    return Clip(0, [], [image], [eval_view(image, options)], only_first(path))


@torch.no_grad()
def score(model: Recognizer, file: str | Path, seen: Clip, *, top: int = 5, maps: bool = False) -> Prediction:
    """Scores what `look` saw; `top` and `maps` are those of `predict`."""
    model.eval()
    # A few frames at a time, in this layout, take a processor less than half the time of all at once.
    parts = torch.stack([view.pixels for view in seen.views]).split(AT_ONCE)
    inputs = [model.normalize(part).contiguous(memory_format=torch.channels_last) for part in parts]
    features = torch.cat([model.features(part) for part in inputs])
    features = features[None] if seen.count else features
    out = model.pool(features, maps=maps)
    share = model.token_share(features)[0] if model.backbone.has_token else None
    values = as_probabilities(out.logits, model.scores)[0]
    order = np.argsort(-values, kind="stable")[:top]
    note = "; ".join(filter(None, [WHOLE if model.instances == "boxes" else "", seen.problem]))
    best = [(model.classes[k], float(values[k])) for k in order]
    return Prediction(str(file), best, seen.views[0] if maps else None, out, note, share)


def predict(
    model: Recognizer | str | Path,
    files: Sequence[str | Path],
    *,
    top: int = 5,
    weights: str | Path | None = None,
    classes: str | Path | None = None,
    image_size: int | None = None,
    maps: bool = False,
) -> Predictions:
    """Names the actions in images and clips, one by one.

    A clip's logits are the mean over the frames that the recognizer's preprocessing chooses. A folder that is given
    with the name of a model is looked through, with the folders in it, for images and videos, or for clips if the model
    was trained on clips: videos, animated GIFs and folders of frames. What is left out is said. Given with a
    `Recognizer` it is the frames of one clip.

    Args:
        model: run folder, or a classifier: timm:NAME, torchvision:NAME or lite0.
        files: images or clips, or folders of them.
        top: how many classes to list.
        weights: weights of a classifier, a local file (default: the published ones).
        classes: class names of a classifier, a file with one a line (default: ImageNet's).
        image_size: side of the images in pixels, of a classifier (default: its own).
        maps: keep the maps in `Prediction.pooled`, and the view in `Prediction.view`.

    Returns:
        The predictions for the files that can be read; the others are in its `failed`.

    Raises:
        ValueError: the model cannot be opened, files are missing, or none of them can be read.
    """
    if top < 1:
        raise ValueError(f"top is {top}; give at least 1")
    inputs = open_with_files(model, files, weights=weights, classes=classes, image_size=image_size)
    found = Predictions()
    for path, seen in looked_at(inputs, found):
        found.append(score(inputs.model, path, seen, top=top, maps=maps))
    return found


def looked_at(inputs: Inputs, answers: Answers[Any]) -> Iterator[tuple[Path, Clip]]:
    """What a recognizer sees of each file that can be read; `answers` get the others and what else is to be said.

    Raises:
        ValueError: after all, if none can be read.
    """
    answers.notes += inputs.notes
    answers.failed += inputs.failed
    for path in inputs.files:
        try:
            seen = look(inputs.model, path, inputs.media)
        except ValueError as error:
            answers.failed.append((str(path), str(error)))
        else:
            yield path, seen
    if inputs.files and len(answers.failed) - len(inputs.failed) == len(inputs.files):
        raise ValueError("; ".join(answers.problems))
