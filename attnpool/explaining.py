"""`explain_files`: pictures in, the paper's Figure 2 for each of them out."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image

from attnpool.data import read_image
from attnpool.explain import figure_columns, panel, peak
from attnpool.prediction import Prediction, predict
from attnpool.recognizer import Recognizer


def explain(
    prediction: Prediction, model: Recognizer, picture: Image.Image, *, chosen: int, title: str | None = None
) -> Image.Image:
    """The bottom-up, top-down and combined maps of the best and of a chosen class, beside the picture.

    Args:
        prediction: made with `maps=True`.
        model: that made it.
        picture: upright, of any size; the part that the network did not see is dimmed.
        chosen: class number.
        title: above the panel; the picture's name by default.
    """
    out = prediction.pooled
    probabilities = dict(prediction.scores)
    best = model.classes.index(prediction.scores[0][0])
    columns = figure_columns(
        model.classes,
        out.logits[0],
        top_down=None if out.top_down is None else out.top_down[0],
        bottom_up=None if out.bottom_up is None else out.bottom_up[0],
        combined=None if out.combined is None else out.combined[0],
        best=best,
        chosen=chosen,
        probabilities=[probabilities[name] for name in model.classes],
    )
    return panel(picture, columns, title or Path(prediction.file).name, box=prediction.view.area)


def explain_files(
    model: Recognizer, files: Iterable[str | Path], out: str | Path, *, chosen: str | None = None
) -> list[dict[str, Any]]:
    """Writes a panel of maps for every picture; no backward pass is needed, the maps are the score.

    Args:
        model: a recognizer, in eval mode.
        files: pictures of any size.
        out: the folder for the panels, `NAME.png` each.
        chosen: a class to show beside the best one; the second best by default.

    Returns:
        For every picture `{"file", "panel", "best", "chosen", "peak", "predictions"}`; `peak` is where the combined
        map of the best class is highest, in pixels of the picture.

    Raises:
        ValueError: a picture cannot be read, or the class is unknown. Nothing is written before all could be read.
    """
    if chosen is not None and chosen not in model.classes:
        raise ValueError(f"unknown class {chosen!r}: use one of {', '.join(model.classes)}")
    paths = [Path(file) for file in files]
    for path in paths:
        read_image(path)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    taken: set[str] = set()
    explained = []
    for path in paths:
        (prediction,) = predict(model, [path], top=len(model.classes), maps=True)
        ranked = [label for label, _ in prediction.scores]
        other = chosen or ranked[1]
        image = explain(prediction, model, read_image(path), chosen=model.classes.index(other))
        target = folder / f"{unused(path.stem, taken)}.png"
        image.save(target)
        entry: dict[str, Any] = {"file": str(path), "panel": str(target), "best": ranked[0], "chosen": other}
        if prediction.pooled.combined is not None:
            size = prediction.view.pixels.shape[-1]
            x, y = peak(prediction.pooled.combined[0, model.classes.index(ranked[0])], (size, size))
            inverse = prediction.view.inverse
            entry["peak"] = [round(float(v), 1) for v in inverse @ (x, y, 1.0)]
        entry["predictions"] = prediction.to_json()["predictions"][:5]
        explained.append(entry)
    return explained


def unused(stem: str, taken: set[str]) -> str:
    """A file name that no earlier picture has: a.jpg and b/a.png must not overwrite each other's panel."""
    name, count = stem, 1
    while name in taken:
        count += 1
        name = f"{stem}-{count}"
    taken.add(name)
    return name
