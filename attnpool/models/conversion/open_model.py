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
            f"{model.preprocessing['image_size']} px; same predictions, now with attention of rank {model.head.rank}"
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
    classes: Path | None = None,
    image_size: int | None = None,
) -> tuple[Recognizer, Media]:
    """A recognizer, and what it was trained on.

    Args:
        name: a run folder; or a classifier (`classifiers.classifier`), such as "timm:resnet50", "torchvision:resnet50"
            or "lite0", which is converted (`convert`).
        weights, classes, image_size: of a classifier: a local file, a file with a class name on each line, and the side
            of the images.

    Raises:
        ValueError: there is no such run, or the classifier, its weights or classes cannot be used; or a run is given
            what only a classifier takes.
    """
    if is_classifier(str(name)):
        names = None if classes is None else read_classes(classes)
        net = classifier(str(name), "pretrained" if weights is None else weights)
        return convert(net, classes=names, image_size=image_size), "images"
    for option, value in (("weights", weights), ("classes", classes), ("image-size", image_size)):
        if value is not None:
            raise ValueError(
                f"{name}: --{option} is for classifiers by name, such as timm:resnet50; a run folder has its own"
            )
    if not Path(name).exists() and "/" not in str(name):
        raise ValueError(
            f"{name}: neither a run folder nor a classifier that timm knows; name a run, lite0, timm:NAME or "
            "torchvision:NAME"
        )
    run = Run.load(name)
    return run.model, run.media


def convert_to_run(
    name: str | Path,
    *,
    out: str | Path,
    weights: str | Path | None = None,
    classes: Path | None = None,
    image_size: int | None = None,
    pooling_options: Mapping[str, Any] | None = None,
) -> ConvertedNetwork:
    """Converts a classifier, or a run with average pooling, into a new run with attentional pooling.

    Args:
        name, weights, classes, image_size: see `open_model`.
        out: folder of the new run; it must not hold one. It knows the split of the run that it was made from.
        pooling_options: options of the attention, see `AttentionalPooling`.

    Raises:
        ValueError: from `open_model` and `convert`, or the folder holds something already.
    """
    folder = Path(out)
    require_new(folder)
    split: dict[str, Any] = {}
    if is_classifier(str(name)):
        names = None if classes is None else read_classes(classes)
        net: Any = classifier(str(name), "pretrained" if weights is None else weights)
        model = convert(net, classes=names, image_size=image_size, pooling_options=pooling_options)
    else:
        before, _ = open_model(name, weights=weights, classes=classes, image_size=image_size)
        split = read_run(name)["split"]
        try:
            model = convert(before, pooling_options=pooling_options, freeze_backbone=before.backbone.frozen)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    save_run(model, folder, recipe={"converted_from": str(name)}, split=split)
    return ConvertedNetwork(Run.load(folder), str(name))
