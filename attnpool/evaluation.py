"""Scoring a recognizer on a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from attnpool.checkpoint import Run
from attnpool.data import Index, ViewOptions, read_splits
from attnpool.examples import CachedFeatures, Pictures, Source
from attnpool.explain import peak, pointing
from attnpool.features import extract
from attnpool.metrics import Scores, confusion, score
from attnpool.pooling import Pooled
from attnpool.progress import bar
from attnpool.recognizer import Recognizer

BATCH = 32


@dataclass(frozen=True)
class Outputs:
    """Scores of the readable pictures of an index, in its order.

    Attributes:
        probabilities: `(n, K)` float64, softmax or sigmoids; what average precision ranks.
        targets: `(n, K)` bool.
        paths: of the n samples.
        pointed: `(n,)` 1 where the combined map of the true class peaks in the evidence, 0 where not, NaN without
            evidence or without a combined map.
        failed: `(path, reason)` of pictures that cannot be read.
    """

    probabilities: np.ndarray
    targets: np.ndarray
    paths: list[str]
    pointed: np.ndarray
    failed: list[tuple[str, str]]


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found; `str()` is a summary, `to_json()` what the command line prints."""

    scores: Scores
    confusion: np.ndarray | None
    classes: tuple[str, ...]
    split: str
    pointing: float | None
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        skipped = [{"file": path, "reason": reason} for path, reason in self.skipped]
        return self.scores.to_json() | {"pointing": self.pointing, "split": self.split, "skipped": skipped}

    def __str__(self) -> str:
        s = self.scores
        lines = [
            f"{self.split}: {s.images} images, {len(self.skipped)} skipped",
            f"mAP       {100 * s.mAP:6.2f} %  mean over the {s.classes_scored} classes with positives (VOC2010)",
            f"          {100 * s.mAP_voc07:6.2f} %  VOC2007, 11 points; {100 * s.mAP_sklearn:.2f} % as in scikit-learn",
        ]
        if s.accuracy is not None:
            lines.append(f"accuracy  {100 * s.accuracy:6.2f} %  of {s.images} images")
        if self.pointing is not None:
            lines.append(f"pointing  {100 * self.pointing:6.2f} %  the map of the true class peaks in the evidence")
        width = max(len(name) for name in self.classes)
        lines.append("")
        lines.append(f"{'class':{width}}      AP  positives")
        for row in s.per_class:
            ap = "     -" if row["AP"] is None else f"{100 * row['AP']:6.2f}"
            lines.append(f"{row['class']:{width}}  {ap}  {row['positives']:9d}")
        lines += [f"skipped {path}: {reason}" for path, reason in self.skipped]
        return "\n".join(lines)


@torch.no_grad()
def score_source(
    model: Recognizer,
    source: Source,
    *,
    maps: bool = True,
    device: torch.device | None = None,
    positions: Sequence[int] | None = None,
    progress: str = "",
) -> Outputs:
    """Scores every sample of a source with the model as it stands, in eval mode; leaves the mode as it was.

    Args:
        model: the recognizer.
        source: of pictures or features.
        maps: also make combined maps and see whether they point to the evidence.
        device: where the model is.
        positions: only these samples.
        progress: title of a progress bar, "" for none.
    """
    was_training = model.training
    model.eval()
    order = list(range(len(source.index)) if positions is None else positions)
    probabilities, targets, paths, pointed, failed = [], [], [], [], list(source.failed)
    shown = bar(len(order), progress, "images", hidden=not progress)
    with_evidence = maps and any(sample.evidence for sample in source.index)
    for batch in source.batches(
        [order[i : i + BATCH] for i in range(0, len(order), BATCH)], seed=0, epoch=0, train=False
    ):
        failed += batch.failed
        shown.update(len(batch.paths) + len(batch.failed))
        if not batch.paths:
            continue
        inputs = batch.inputs.to(device) if device else batch.inputs
        if source.cached:
            out = model.pool(inputs, maps=with_evidence)
        else:
            out = model(model.normalize(inputs), maps=with_evidence)
        probabilities.append(as_probabilities(out.logits, model.task))
        targets.append(batch.targets.numpy() > 0)
        paths += batch.paths
        pointed.append(points(out, batch.targets, batch.evidence, model.view["image_size"] or 0))
    shown.close()
    model.train(was_training)
    width = len(model.classes)
    return Outputs(
        np.concatenate(probabilities) if paths else np.zeros((0, width)),
        np.concatenate(targets) if paths else np.zeros((0, width), bool),
        paths,
        np.concatenate(pointed) if paths else np.zeros(0),
        failed,
    )


def merge(accelerator: Any, outputs: Outputs) -> Outputs:
    """The outputs of all processes of a training, in each of them."""
    if accelerator.num_processes == 1:
        return outputs
    from accelerate.utils import gather_object

    parts: list[Outputs] = gather_object([outputs])
    return Outputs(
        np.concatenate([part.probabilities for part in parts]),
        np.concatenate([part.targets for part in parts]),
        [path for part in parts for path in part.paths],
        np.concatenate([part.pointed for part in parts]),
        list(dict.fromkeys(failure for part in parts for failure in part.failed)),
    )


def as_probabilities(logits: Tensor, task: str) -> np.ndarray:
    """Softmax or sigmoids of logits `(B, K)` in float64."""
    exact = logits.detach().double().cpu()
    return (exact.softmax(1) if task == "single" else exact.sigmoid()).numpy()


def points(out: Pooled, targets: Tensor, evidence: Sequence[Sequence[Any]], size: int) -> np.ndarray:
    """`(B,)`: whether the combined map of the (first) true class peaks in the evidence; NaN where none is known."""
    if out.combined is None or not len(targets):
        return np.full(len(targets), np.nan)
    true = targets.argmax(1)
    combined = out.combined[torch.arange(len(true)), true.to(out.combined.device)]
    boxes = [boxes if positive else [] for boxes, positive in zip(evidence, targets.any(1).tolist(), strict=True)]
    return pointing(peak(combined, (size, size)), boxes)


def summarize(outputs: Outputs, model: Recognizer, split: str) -> Evaluation:
    """The scores of some outputs.

    Raises:
        ValueError: not a single picture could be read.
    """
    if not outputs.paths:
        raise ValueError(f"{split}: none of its {len(outputs.failed)} pictures can be read; see attnpool check")
    scores = score(outputs.probabilities, outputs.targets, model.classes, model.task)
    counts = None
    if model.task == "single":
        counts = confusion(outputs.probabilities, outputs.targets.argmax(1), len(model.classes))
    answered = outputs.pointed[~np.isnan(outputs.pointed)]
    return Evaluation(
        scores, counts, model.classes, split, float(answered.mean()) if len(answered) else None, outputs.failed
    )


def choose_split(run: Run, source: str, split: Literal["val", "train", "all", "test"] = "val") -> Index:
    """The part of a dataset that a run is evaluated on.

    For the data that the run was trained on, "val" and "train" are the run's own saved parts; another dataset is split
    as `data.read` does. Data is the run's if it has the same name or at least half of the run's files: two datasets
    may share some names, such as drinking/001.jpg.

    Raises:
        ValueError: the dataset's classes are not the run's, files of the saved split are gone, or there is no test
            part.
    """
    saved = run.about["split"]
    splits = read_splits(source, split_seed=saved.get("split_seed", 0), test=split == "test")
    require_classes(run, splits["train"])
    if split == "test":
        if "test" not in splits:
            raise ValueError(f"{source}: has no test part; use --split val, train or all")
        return splits["test"]
    every = {sample.path: sample for part in ("train", "val") for sample in splits[part]}
    index = Index(
        splits["train"].name,
        splits["train"].root,
        splits["train"].classes,
        tuple(every[path] for path in sorted(every)),
        splits["train"].task,
    )
    if split == "all":
        return index
    used = [*saved.get("train", ()), *saved.get("val", ())]
    gone = [path for path in used if path not in every]
    if not used or (2 * len(gone) > len(used) and source != run.about["recipe"].get("data")):
        return splits[split]
    if missing := sorted(set(gone).intersection(saved[split])):
        raise ValueError(
            f"{source}: {len(missing)} of the {len(saved[split])} {split} pictures of {run.folder} are not there, "
            f"the first is {missing[0]}; put them back, or use --split all"
        )
    return index.select(saved[split], split)


def require_classes(run: Run, index: Index) -> None:
    """Raises ValueError that names the classes in which a dataset differs from a run."""
    missing = sorted(set(run.model.classes) - set(index.classes))
    extra = sorted(set(index.classes) - set(run.model.classes))
    if missing or extra:
        parts = [
            f"{what}: {', '.join(names[:5])}"
            for what, names in (("unknown to the run", extra), ("not in the data", missing))
            if names
        ]
        raise ValueError(
            f"{index.name}: its classes are not those of {run.folder} ({'; '.join(parts)}); "
            "use the data it was trained for"
        )
    if index.classes != run.model.classes:
        raise ValueError(f"{index.name}: the classes of {run.folder} in another order; give them the same order")


def evaluate(
    run: Run | str | Path,
    data: Index | str,
    *,
    split: Literal["val", "train", "all", "test"] = "val",
    best: bool = False,
    cache: Path | None = None,
    use_cache: bool = True,
    workers: int = 0,
    progress: bool = False,
) -> Evaluation:
    """Scores a run on a dataset: mAP in three definitions, accuracy, every class, pointing where boxes are known.

    Args:
        run: a run or its folder.
        data: an index, all of which is used, or a source such as "folder:photos", of which `split` is.
        split: see `choose_split`.
        best: use the weights of the best epoch; they were chosen on the part that the training monitored.
        cache, use_cache: of features, for a frozen backbone.
        workers: processes that decode pictures.
        progress: show a progress bar.

    Raises:
        ValueError: the run or the data cannot be used, or their classes differ.
    """
    loaded = Run.load(run, best=best) if isinstance(run, str | Path) else run
    if isinstance(data, Index):
        require_classes(loaded, data)
        index, split_name = data, data.split
    else:
        index, split_name = choose_split(loaded, data, split), split
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = loaded.model.to(device)
    source: Source = Pictures(index, ViewOptions(**model.view), workers)
    if model.backbone.frozen and use_cache:
        source = CachedFeatures(extract(model, index, cache=cache, workers=workers, device=device, progress=progress))
    outputs = score_source(model, source, device=device, progress="evaluate" if progress else "")
    return summarize(outputs, model, split_name)
