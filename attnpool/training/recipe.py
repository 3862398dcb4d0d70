"""Recipes: YAML files with the options of a training, and the training that they describe.

base: mpii.yaml        another recipe, whose options this one changes
about: {...}           a description of the training; it holds no options
small: {...}           changes for `attnpool reproduce --scale small`
pooling: attentional   an option, named as the flag of `attnpool train` without the dashes
rank: 2
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attnpool.backbones.backbone import Backbone
from attnpool.data import Dataset, read
from attnpool.data.decoding.optical_flow import FLOW_LENGTH
from attnpool.data.groups import note_on_names
from attnpool.data.near_duplicates import note_on_images
from attnpool.models.recognizer import Recognizer
from attnpool.models.run import Run, is_finished, open_folder
from attnpool.progress import is_first
from attnpool.training import auto
from attnpool.training.config import Options, converted_arguments, typed_options
from attnpool.training.cross_validation import Choice
from attnpool.training.processes import once
from attnpool.training.relevance import require_relevant
from attnpool.training.train import check, train

RECIPES = Path(__file__).parents[1] / "experiments" / "paper" / "recipes"
RESERVED = ("about", "base", "small")


@dataclass(frozen=True)
class Recipe:
    """A recipe file merged with its bases: `options` and `small` are flat mappings, `about` is its description."""

    name: str
    options: dict[str, Any]
    small: dict[str, Any]
    about: dict[str, Any]

    def at(self, scale: str) -> Options:
        """Its options at scale "full" or "small"; where `small` leaves an option without a value, it has its default.

        Raises:
            ValueError: as `Options.of`.
        """
        values = self.options if scale != "small" else self.options | self.small
        left_out = {name for name, value in self.small.items() if value is None and scale == "small"}
        return Options.of({name: values[name] for name in values if name not in left_out}, f"recipe {self.name}")


def read_recipe(path: Path) -> Recipe:
    """Reads a recipe and the recipes that it is based on.

    Raises:
        ValueError: a file cannot be read or is not a mapping, it is its own base, or it gives an option twice.
    """
    return _read(path, ())


def _read(path: Path, above: tuple[Path, ...]) -> Recipe:
    import yaml

    if path.resolve() in above:
        raise ValueError(f"{path}: is its own base; remove the line 'base'")
    try:
        text = path.read_text(encoding="utf-8")
        content = yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        mark = getattr(error, "problem_mark", None)
        reason = getattr(error, "problem", None) or getattr(error, "strerror", None) or str(error).splitlines()[0]
        where = f"{path}, line {mark.line + 1}" if mark else f"{path}"
        raise ValueError(f"{where}: cannot be read as a recipe ({reason}); write lines such as 'rank: 2'") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: not a recipe; write lines such as 'rank: 2'")
    _no_repeats(yaml.compose(text, yaml.SafeLoader), path)
    for key in ("about", "small"):
        if not isinstance(content.get(key, {}), dict):
            raise ValueError(f"{path}: {key} is {content[key]!r}; write a mapping, such as {key}: {{rank: 2}}")
    base = _read(path.parent / str(content["base"]), (*above, path.resolve())) if "base" in content else None
    own = _plain({key: value for key, value in content.items() if key not in RESERVED}, path)
    return Recipe(
        path.stem,
        (base.options if base else {}) | own,
        (base.small if base else {}) | _plain(content.get("small", {}), path),
        (base.about if base else {}) | content.get("about", {}),
    )


def _no_repeats(node: Any, path: Path) -> None:
    """Raises ValueError for a key that a mapping has twice, of which YAML would silently take the last."""
    import yaml

    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if key.value in seen:
                line = key.start_mark.line + 1
                raise ValueError(f"{path}, line {line}: {key.value} is given twice; remove one of them")
            seen.add(key.value)
            _no_repeats(value, path)


def _plain(options: Mapping[Any, Any], path: Path) -> dict[str, Any]:
    """Options by the names of their fields: `image-size` becomes `image_size`."""
    plain: dict[str, Any] = {}
    for key, value in options.items():
        name = str(key).replace("-", "_")
        if name in plain:
            raise ValueError(f"{path}: {name} is given twice; remove one of them")
        plain[name] = value
    return plain


@dataclass(frozen=True)
class Trained:
    """What `train_recipe` returns: the run, its options and its results."""

    run: Run
    source: str
    options: Options
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        results = self.run.about["results"]
        last = results["history"][-1]
        return {
            "run": str(self.run.folder),
            "weights": results["weights"],
            "epochs": last["epoch"],
            "loss": last["loss"],
            "mAP": last["mAP"],
            "accuracy": last["accuracy"],
            "skipped": results["skipped"],
            **({"auto": results["auto"]} if "auto" in results else {}),
        }

    def __str__(self) -> str:
        value, folder = self.to_json(), self.run.folder
        part = "a part of train" if self.options.train.patience else "val"
        if self.options.train.trainval:
            part += ", which was trained on"
        mAP = "unknown, as no class has a positive there" if value["mAP"] is None else f"{100 * value['mAP']:.1f} %"
        scores = f"loss {value['loss']:.4f}, mAP on {part} {mAP}"
        return "\n".join(
            [
                *(auto.table(Choice.from_json(value["auto"])) if "auto" in value else ()),
                f"weights: {value['weights']}",
                *(f"skipped {item['file']}: {item['reason']}" for item in value["skipped"]),
                f"{folder}: {value['epochs']} epochs, {scores}",
                f"next: attnpool evaluate {folder} {self.source}",
            ]
        )


def train_recipe(
    source: str,
    *,
    out: Path,
    recipe: Path | None = None,
    options: Mapping[str, Any] | None = None,
    split_seed: int | None = None,
    min_per_class: int | None = None,
    group_by: str | None = None,
    cache: Path | None = None,
    progress: bool = True,
) -> Trained:
    """Reads a dataset, builds the model that a recipe and options describe, and trains it into a run folder.

    Args:
        source: dataset to train on, as FORMAT:PATH, such as folder:photos.
        out: run folder to write; the same command continues an interrupted training in it.
        recipe: YAML file of options, which options given directly override.
        options: flat mapping of options, as `Options.of` takes it. They override those of the recipe.
        split_seed: seed of the split into train and val, for a dataset without a split of its own (default: 0).
        min_per_class: number of images to train on below which a class is left out, for a folder of classes.
        group_by: what belongs together, so that no split divides it, video (names but for the number at their end),
            parent (the folder) or a regular expression on the path.
        cache: folder for the features of frozen backbones (default: $ATTNPOOL_CACHE or the user's cache folder).
        progress: show progress bars.

    Raises:
        ValueError: the recipe, an option or the dataset cannot be used.
        TrainingFailed, Interrupted: see `train`.
    """
    values: dict[str, Any] = {}
    if recipe is not None:
        values = read_recipe(recipe).options
        try:
            beside = converted_arguments(train_recipe, {name: values.pop(name) for name in BESIDE if name in values})
        except ValueError as error:
            raise ValueError(f"{recipe}: {error}") from error
        split_seed = beside.get("split_seed") if split_seed is None else split_seed  # a given 0 is given, too
        min_per_class = beside.get("min_per_class") if min_per_class is None else min_per_class
        group_by = beside.get("group_by") if group_by is None else group_by
        cache = beside.get("cache") if cache is None else cache
        values = typed_options(values, str(recipe))
    chosen = Options.of(values | dict(options or {}), "" if options or recipe is None else str(recipe))
    parts = read(source, split_seed=split_seed, min_per_class=min_per_class, group_by=group_by)
    require_relevant(options or {}, chosen, parts[0].media)
    before = is_finished(Path(out))
    run = fit(chosen, parts, out, cache=cache, split_seed=split_seed, progress=progress)
    said = [*left_out_of(parts[0]), *([] if group_by else note_on_names({"train": parts[0], "val": parts[1]}))]
    if not before and is_first():
        said += note_on_images(*parts, progress=progress)
    return Trained(run, source, chosen, said)


def left_out_of(dataset: Dataset) -> list[str]:
    """What was not trained on, a line for each kind."""
    few = [f"{dataset.name}: left out, too few images: {', '.join(dataset.left_out)}"] if dataset.left_out else []
    return [*few, *dataset.notes]


BESIDE = ("split_seed", "min_per_class", "group_by", "cache")
"""Keys of a recipe that are not options of the model or its training."""


def fit(
    options: Options,
    data: tuple[Dataset, Dataset],
    out: str | Path,
    *,
    backbone: Backbone | None = None,
    cache: Path | None = None,
    split_seed: int | None = None,
    progress: bool = True,
) -> Run:
    """Builds the model that options describe and trains it. Errors are those of `Recognizer` and `train`.

    Args:
        options: all options of the training.
        data: the splits to train on and to validate on, from `data.read`. With `trainval`, both are trained on.
        out: the run folder.
        backbone: backbone to use in place of the one that the options name, so that several heads can share it.
        cache: folder of features.
        split_seed: seed with which the data was split.
        progress: show progress bars.
    """
    train_part, val = data
    name, frozen = options.model["backbone"], options.model["freeze_backbone"]
    own = (name, frozen, options.model["tokens"])
    assert backbone is None or (backbone.name, backbone.frozen, backbone.tokens) == own
    if backbone is None and (auto.is_asked(options) or options.preprocessing.modality == "flow"):
        channels = 2 * FLOW_LENGTH if options.preprocessing.modality == "flow" else 3
        weights, seed, tokens = options.model["weights"], options.train.seed, options.model["tokens"]
        backbone = Backbone(name, weights, frozen=frozen, seed=seed, in_channels=channels, tokens=tokens)

    def make(options: Options) -> Recognizer:
        return Recognizer(
            backbone or name,
            classes=train_part.classes,
            task=train_part.task,
            scores="softmax" if options.train.loss in ("cross_entropy", "random_positive") else None,
            preprocessing=options.preprocessing.of_model(),
            seed=options.train.seed,
            **{key: value for key, value in options.model.items() if key != "backbone"},
        )

    if options.train.trainval:
        train_part = train_part.joined(val, "trainval")
    results = {}
    if auto.is_asked(options):
        asked = {**options.flat(), "data": train_part.name, "images": [sample.path for sample in train_part]}
        plain = auto.without(options)
        check(make(plain), train_part, val, plain.train, plain.optimizer, Path(out))

        def choose() -> Choice:
            with open_folder(Path(out)):
                return auto.choose(options, make, train_part, Path(out), asked, cache=cache, progress=progress)

        choice = once(choose)
        results["auto"] = {"asked": asked, **choice.to_json()}
        options = auto.applied(options, choice.chosen)
    return train(
        make(options),
        train_part,
        val,
        out=out,
        options=options.train,
        optimizer=options.optimizer,
        preprocessing=options.preprocessing,
        cache=cache,
        split_seed=split_seed or 0,
        results=results,
        progress=progress,
    )
