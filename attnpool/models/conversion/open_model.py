"""A recognizer by what a user types: a run folder, or a classifier of timm or torchvision that is converted at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from attnpool.backbones.classifiers import classifier, is_classifier
from attnpool.models.conversion.classifier import convert
from attnpool.models.conversion.tensorflow import read_classes
from attnpool.models.recognizer import Recognizer
from attnpool.models.run import Run, read_run, require_new, save_run

Media = Literal["images", "clips"]


@dataclass(frozen=True)
class ConvertedNetwork:
    """What `convert_to_run` made: the run, and of what."""

    run: Run
    source: str

    def __str__(self) -> str:
        model = self.run.model
        return (
            f"{self.source}: {len(model.classes)} classes, {model.backbone.out_channels} channels, "
            f"{model.preprocessing['image_size']} px; same predictions, now with attention of rank {model.head.rank}\n"
            f"{self.run.folder}: next: attnpool explain {self.run.folder} photo.jpg --out explained/"
        )

    def to_json(self) -> dict[str, Any]:
        model = self.run.model
        return {
            "run": str(self.run.folder),
            "source": self.source,
            "backbone": model.backbone.name,
            "channels": model.backbone.out_channels,
            "classes": len(model.classes),
            "image_size": model.preprocessing["image_size"],
            "rank": model.head.rank,
        }


def open_model(
    name: str | Path,
    *,
    weights: str | Path | None = None,
    classes: str | Path | None = None,
    image_size: int | None = None,
) -> tuple[Recognizer, Media]:
    """A recognizer, and what it was trained on.

    Args:
        name: a run folder; or a classifier (`classifiers.classifier`), such as "timm:resnet50", "torchvision:resnet50"
            or "lite0", which is converted (`convert`).
        weights: weights of a classifier, a local file; by default the published ones.
        classes: class names of a classifier, a file with one a line; by default ImageNet's.
        image_size: side of the images in pixels, of a classifier; by default its own.

    Raises:
        ValueError: there is no such run, or the classifier, its weights or classes cannot be used; or a run is given
            what only a classifier takes.
    """
    if is_classifier(str(name)):
        names = None if classes is None else read_classes(Path(classes))
        net = classifier(str(name), "pretrained" if weights is None else weights)
        return convert(net, classes=names, image_size=image_size), "images"
    for option, value in (("weights", weights), ("classes", classes), ("image_size", image_size)):
        if value is not None:
            raise ValueError(
                f"{name}: {option} is for classifiers by name, such as timm:resnet50; a run folder has its own"
            )
    if not Path(name).exists() and "/" not in str(name):
        raise ValueError(
            f"{name}: neither a run folder nor a classifier that timm knows; name a run, lite0, timm:NAME or "
            "torchvision:NAME"
        )
    run = Run.load(name)
    return run.model, run.media


def convert_to_run(
    model: str | Path,
    *,
    out: str | Path,
    weights: str | Path | None = None,
    classes: str | Path | None = None,
    image_size: int | None = None,
    pooling_options: Mapping[str, Any] | None = None,
) -> ConvertedNetwork:
    """Puts attention in place of the average pooling of a trained classifier, without changing a prediction.

    The classifier may be a run with average pooling; the new run then knows the split that it was trained with.

    Args:
        model: run folder, or a classifier: timm:NAME, torchvision:NAME or lite0.
        out: run folder to make; it must not hold anything yet.
        weights: weights of a classifier, a local file (default: the published ones).
        classes: class names of a classifier, a file with one a line (default: ImageNet's).
        image_size: side of the images in pixels, of a classifier (default: its own).
        pooling_options: options of the attention, see `AttentionalPooling`.

    Raises:
        ValueError: from `open_model` and `convert`, or the folder holds something already.
    """
    folder = Path(out)
    require_new(folder)
    split: dict[str, Any] = {}
    if is_classifier(str(model)):
        names = None if classes is None else read_classes(Path(classes))
        net: Any = classifier(str(model), "pretrained" if weights is None else weights)
        converted = convert(net, classes=names, image_size=image_size, pooling_options=pooling_options)
    else:
        before, _ = open_model(model, weights=weights, classes=classes, image_size=image_size)
        split = read_run(model)["split"]
        try:
            converted = convert(before, pooling_options=pooling_options, freeze_backbone=before.backbone.frozen)
        except ValueError as error:
            raise ValueError(f"{model}: {error}") from error
    save_run(converted, folder, recipe={"converted_from": str(model)}, split=split)
    return ConvertedNetwork(Run.load(folder), str(model))
