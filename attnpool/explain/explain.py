"""The verb `explain`: the paper's Figure 2 of an image, or Figure 4 of a clip."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from PIL import Image

from attnpool.data import segment_positions
from attnpool.data.clips import Clip
from attnpool.evaluation.inputs import open_with_files
from attnpool.evaluation.pointing import peak
from attnpool.evaluation.predict import Answers, Prediction, looked_at, score
from attnpool.explain.clip_figure import figure_rows, storyboard
from attnpool.explain.image_figure import figure_columns
from attnpool.explain.overlay import panel
from attnpool.explain.png import png
from attnpool.files import mark, require_folder, unused, write_bytes
from attnpool.models.recognizer import Recognizer

SHOWN = 5  # frames of a clip


def explain(
    prediction: Prediction,
    model: Recognizer,
    image: Image.Image,
    *,
    chosen: int,
    title: str | None = None,
    plain: bool = True,
) -> Image.Image:
    """The maps of the best and of a chosen class, and their difference, beside the image.

    Args:
        prediction: made with `maps=True`.
        model: the recognizer that made it.
        image: upright, of any size; the part that the network did not see is dimmed.
        chosen: class number.
        title: above the panel; the image's name by default.
        plain: also show the top-down and combined maps, not only the difference.
    """
    out = prediction.pooled
    assert prediction.view is not None
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
        plain=plain,
    )
    return panel(image, columns, title or Path(prediction.file).name, box=prediction.view.area)


def explain_clip(
    prediction: Prediction,
    model: Recognizer,
    seen: Clip,
    *,
    chosen: int,
    title: str | None = None,
    plain: bool = True,
) -> Image.Image:
    """A few frames of a clip in a row, with the maps of the best and a chosen class, and their difference.

    Args:
        prediction: made with `maps=True`, by a head with combined maps.
        model: the recognizer that made it.
        seen: what the model saw of the clip.
        chosen: class number.
        title: above the panel; the clip's name by default.
        plain: also show the combined maps, not only the difference.
    """
    out, probabilities = prediction.pooled, dict(prediction.scores)
    assert prediction.view is not None
    assert out.top_down is not None
    assert out.bottom_up is not None
    assert out.combined is not None
    shown = segment_positions(len(seen.numbers), min(SHOWN, len(seen.numbers)))
    rows = figure_rows(
        model.classes,
        out.logits[0],
        shown,
        seen.numbers,
        seen.count,
        top_down=out.top_down[0],
        bottom_up=out.bottom_up[0],
        combined=out.combined[0],
        chosen=[model.classes.index(prediction.scores[0][0]), chosen],
        probabilities=[probabilities[name] for name in model.classes],
        remark="each begins a stack of optical flow" if model.preprocessing.get("modality") == "flow" else "",
        plain=plain,
    )
    frames = [seen.frames[t] for t in shown]
    return storyboard(frames, rows, title or Path(prediction.file).name, box=prediction.view.area)


class Explanations(Answers[dict[str, Any]]):
    """What `explain_files` drew, an entry for each file in their order; its entries are described there."""

    def to_json(self) -> list[dict[str, Any]]:
        return [*self, *self.errors()]

    def __str__(self) -> str:
        lines = []
        for item in self:
            note = f" ({item['note']})" if "note" in item else ""
            lines.append(f"{item['panel']}: {item['best']}, beside it {item['chosen']}{note}")
        return "\n".join(lines)


def explain_files(
    model: Recognizer | str | Path,
    files: Sequence[str | Path],
    *,
    out: str | Path,
    class_: str | None = None,
    plain: bool = False,
    weights: str | Path | None = None,
    classes: str | Path | None = None,
    image_size: int | None = None,
) -> Explanations:
    """Draws where the evidence is in images and clips; no backward pass is needed, the maps are the score.

    Args:
        model: run folder, or a classifier: timm:NAME, torchvision:NAME or lite0.
        files: images or clips, or folders of them.
        out: folder for the panels, NAME.png for every file. A panel takes a name with a number where there is a file of
            that name, unless that is an earlier panel of the same.
        class_: class to show beside the best one (default: the second best).
        plain: also show the top-down and combined maps of both classes, not only the difference of the combined ones.
            Without it, maps show why the best class and not the other: a softmax decides by differences alone.
            Where a sigmoid scores every class by itself, the maps of both classes are shown in any case.
        weights: weights of a classifier, a local file (default: the published ones).
        classes: class names of a classifier, a file with one a line (default: ImageNet's).
        image_size: side of the images in pixels, of a classifier (default: its own).

    Returns:
        For every file `{"file", "panel", "best", "chosen", "peak", "maps", "predictions"}`. `peak` is where the
        combined map of the best class is highest, in pixels of the image; of a clip there is also `"frame"`, the number
        of the frame in which that is, counted from 1. `maps` has the combined maps `best` and `chosen` as lists of rows
        (of a clip, of frames), each of which adds up to its class's score before the softmax or sigmoid, and their
        `difference`. `"token"` has the class token's shares of the same, if the model looks at one (see
        `Recognizer.token_share`). `"note"` says what the maps are of, where that is not plain. What a folder means is
        said in `predict`.

    Raises:
        ValueError: the model cannot be opened, no file can be read, the class is unknown, or `plain` would change
            nothing. Files that cannot be read are in `failed` if there are others.
    """
    inputs = open_with_files(model, files, weights=weights, classes=classes, image_size=image_size)
    opened = inputs.model
    if class_ is not None and class_ not in opened.classes:
        raise ValueError(f"unknown class {class_!r}: use one of {some_of(opened.classes, class_)}")
    by_difference = opened.scores == "softmax"
    if plain and not by_difference:
        raise ValueError(
            "plain would change nothing: scores of a sigmoid are explained by the plain maps; leave it out"
        )
    folder = Path(out)
    require_apart(folder, files)
    explained = Explanations()
    for path, seen in looked_at(inputs, explained):
        prediction = score(opened, path, seen, top=len(opened.classes), maps=True)
        ranked = [label for label, _ in prediction.scores]
        other = class_ or ranked[1]
        entry: dict[str, Any] = {"file": str(path), "best": ranked[0], "chosen": other}
        best, chosen = opened.classes.index(ranked[0]), opened.classes.index(other)
        shown = plain or not by_difference
        if seen.count:
            panel_of = explain_clip(prediction, opened, seen, chosen=chosen, plain=shown)
        else:
            panel_of = explain(prediction, opened, seen.frames[0], chosen=chosen, plain=shown)
        words = mark("explain", of_model(model), str(path.resolve()), other, plain)
        target = unused(folder, f"{path.name if path.is_dir() else path.stem}.png", words)
        write_bytes(target, png(panel_of, words))
        entry |= {"panel": str(target), **highest(prediction, seen, best)}
        entry["maps"] = numbers(prediction, best, chosen)
        if prediction.token_share is not None:
            one, second = prediction.token_share.double()[[best, chosen]].tolist()
            entry["token"] = {"best": one, "chosen": second, "difference": one - second}
        entry["predictions"] = prediction.to_json()["predictions"][:5]
        explained.append(entry | ({"note": prediction.note} if prediction.note else {}))
    return explained


def some_of(classes: Sequence[str], wanted: str) -> str:
    """All classes, or of many those that are most like the one that was wanted."""
    if len(classes) <= 50:
        return ", ".join(classes)
    near = [name for name in classes if wanted.lower() in name.lower()] or get_close_matches(wanted, classes, cutoff=0)
    return f"{', '.join(near[:5])} or the other {len(classes) - len(near[:5])}"


def highest(prediction: Prediction, seen: Clip, label: int) -> dict[str, Any]:
    """Where a class's combined map is highest, `{"peak": [x, y]}`; of a clip also in which frame."""
    assert prediction.pooled.combined is not None
    maps = prediction.pooled.combined[0].movedim(-3, 0)[label]
    where: dict[str, Any] = {}
    if seen.count:
        best = int(maps.amax((-2, -1)).argmax())
        where["frame"] = seen.numbers[best] + 1
        maps = maps[best]
    assert prediction.view is not None
    height, width = prediction.view.pixels.shape[-2:]
    x, y = peak(maps, (height, width))
    found = prediction.view.inverse @ (x, y, 1.0)
    inside = found.clip(0, seen.frames[0].size)  # the middle of a cell at the margin of a whole view lies outside
    return {"peak": [round(float(value), 1) for value in inside], **where}


def numbers(prediction: Prediction, best: int, chosen: int) -> dict[str, list[Any]]:
    """The combined maps of two classes and their difference, `(h, w)` or of a clip `(T, h, w)`, as lists."""
    assert prediction.pooled.combined is not None
    one, other = prediction.pooled.combined[0].double().movedim(-3, 0)[[best, chosen]]
    return {"best": one.tolist(), "chosen": other.tolist(), "difference": (one - other).tolist()}


def require_apart(out: Path, files: Sequence[str | Path]) -> None:
    """Raises ValueError if panels would be written to a file, or into a folder that is looked through for images."""
    require_folder(out)
    for file in map(Path, files):
        if file.is_dir() and out.resolve() == file.resolve():
            raise ValueError(
                f"out {out}: is the folder of the images, where panels would be taken for images; give another folder"
            )


def of_model(model: Recognizer | str | Path) -> Any:
    """What tells one model from another, for the mark of a panel."""
    if isinstance(model, Recognizer):
        return model.describe()
    return str(Path(model).resolve()) if Path(model).is_dir() else str(model)
