"""Opens a recognizer by name: a run folder, or a classifier of timm or torchvision, which is converted on the fly."""

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
    """The result of `convert_to_run`: the run, and the name of the converted model."""

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
    """Opens a recognizer, and says whether it was trained on images or clips.

    Args:
        name: a run folder, or a classifier (`classifiers.classifier`), such as "timm:resnet50", "torchvision:resnet50"
            or "lite0", which is converted (`convert`).
        weights: file with the weights of a classifier; by default the published weights.
        classes: file with the class names of a classifier, one per line; by default those of ImageNet.
        image_size: side in pixels of the images for a classifier; by default that of the classifier.

    Raises:
        ValueError: there is no such run, the classifier, its weights or its classes cannot be used, or a run is given
            with an argument that only classifiers take.
    """
    if is_classifier(str(name)):
        names = None if classes is None else read_classes(Path(classes))
        net = classifier(str(name), "pretrained" if weights is None else weights)
        return convert(net, classes=names, image_size=image_size), "images"
    for option, value in (("weights", weights), ("classes", classes), ("image_size", image_size)):
        if value is not None:
            raise ValueError(
                f"{name}: {option} is only for classifiers such as timm:resnet50; leave it out for a run folder"
            )
    if not Path(name).exists() and "/" not in str(name):
        raise ValueError(
            f"{name}: is neither a run folder nor a classifier that timm knows; give a run folder, lite0, timm:NAME or "
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
    """Replaces the average pooling of a trained classifier by attention, without changing a prediction.

    The classifier may be a run with average pooling; the new run then keeps the split that it was trained with.

    Args:
        model: classifier to convert, as timm:NAME, torchvision:NAME, lite0 or a run folder.
        out: run folder to write, which must not hold a run yet.
        weights: file with the weights of a classifier (default: the published weights).
        classes: file with the class names of a classifier, one per line (default: those of ImageNet).
        image_size: side in pixels of the images for a classifier (default: that of the classifier).
        pooling_options: options of the attention, see `AttentionalPooling`.

    Raises:
        ValueError: the model cannot be opened or converted, or the folder holds a run already.
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
