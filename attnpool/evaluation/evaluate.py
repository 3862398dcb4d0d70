"""Scoring a recognizer on a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from attnpool.data import Dataset, Preprocessing
from attnpool.data.crops import require_crops
from attnpool.evaluation.deletion import Deletion
from attnpool.evaluation.deletion import deletion as delete
from attnpool.evaluation.inference import Outputs, as_probabilities, score_source
from attnpool.evaluation.late_fusion import fuse as fused
from attnpool.evaluation.late_fusion import weighted_run
from attnpool.evaluation.metrics import Scores, confusion, score
from attnpool.evaluation.mpii_submission import image_numbers, write_submission
from attnpool.evaluation.splits import choose_split, require_classes, require_unseen
from attnpool.evaluation.tables import text_table
from attnpool.features.batches import BatchSource, CachedFeatures, Images
from attnpool.features.extraction import extract
from attnpool.files import require_ours
from attnpool.models.recognizer import Recognizer
from attnpool.models.run import Run


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found; `str()` is a summary, `to_json()` what the command line prints.

    Attributes:
        scores: the scores of the images whose labels are known.
        confusion: `(K, K)` counts, see `metrics.confusion`; `None` if an image may have several classes.
        classes: names of the classes.
        split: part of the dataset that was scored.
        pointing: pointing accuracy, a fraction; `None` if it is known of no image where the evidence is.
        skipped: `(path, reason)` of images that cannot be read.
        known_object: the scores in HICO's Known-Object setting, where it is known which negatives were looked for.
        unlabelled: how many images could be read and have no label, as in MPII's test part.
        submission: the file for a benchmark's server that was written.
        unit: what was scored, "images" or "clips".
        run: folder of the run that was scored.
        deletion: the deletion test, if it was asked for.
        asked: the dataset and the options of `evaluate`, which tell evaluations of one run apart.
        notes: what of the dataset is left out, or read in a way that is to be said.
    """

    scores: Scores
    confusion: np.ndarray | None
    classes: tuple[str, ...]
    split: str
    pointing: float | None
    skipped: list[tuple[str, str]] = field(default_factory=list)
    known_object: Scores | None = None
    unlabelled: int = 0
    submission: Path | None = None
    unit: str = "images"
    run: Path | None = None
    deletion: Deletion | None = None
    asked: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        skipped = [{"file": path, "reason": reason} for path, reason in self.skipped]
        return self.scores.to_json() | {
            "known_object": None if self.known_object is None else self.known_object.to_json(),
            "pointing": self.pointing,
            "split": self.split,
            "skipped": skipped,
            "unlabelled": self.unlabelled,
            "submission": None if self.submission is None else str(self.submission),
            "deletion": None if self.deletion is None else self.deletion.to_json(),
        }

    def __str__(self) -> str:
        s, known = self.scores, self.known_object
        lines = [f"{self.split}: {s.images} {self.unit}, {len(self.skipped)} skipped"]
        if self.unlabelled:
            lines.append(f"{self.unlabelled} images have no label that is known here: they are not in the scores")
        if self.submission:
            lines.append(f"submission: {self.submission}")
        if not s.images:
            return "\n".join(lines)
        if s.classes_scored:
            other = f"VOC2007, 11 points; {100 * s.mAP_sklearn:.2f} % as in scikit-learn"
            lines += [
                f"mAP       {100 * s.mAP:6.2f} %  mean over the {s.classes_scored} classes with positives (VOC2010)",
                f"          {100 * s.mAP_voc07:6.2f} %  {other}",
            ]
        else:
            lines.append("mAP       unknown: no class has a positive here")
        if known is not None:
            lines.append(
                f"          {100 * known.mAP_voc07:6.2f} %  VOC2007, Known-Object: mean over {known.classes_scored} "
                "classes, each on the images that show its object"
            )
        if s.accuracy is not None:
            lines.append(f"accuracy  {100 * s.accuracy:6.2f} %  of {s.images} {self.unit}")
        if self.pointing is not None:
            lines.append(f"pointing  {100 * self.pointing:6.2f} %  the map of the true class peaks in the evidence")
        if self.deletion is not None:
            lines += ["", *self.deletion.lines()]
        columns = [("AP", s, "AP")]
        if known is not None:
            columns += [("VOC2007", s, "AP_voc07"), ("Known-Object", known, "AP_voc07")]
        header = ["class", *(title for title, _, _ in columns), "positives"]
        rows = [
            [row["class"], *(in_percent(found.per_class[k][key]) for _, found, key in columns), str(row["positives"])]
            for k, row in enumerate(s.per_class)
        ]
        lines += ["", *text_table(header, rows)]
        lines += [f"skipped {path}: {reason}" for path, reason in self.skipped]
        return "\n".join(lines)


def in_percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.2f}"


def summarize(
    outputs: Outputs,
    model: Recognizer,
    split: str,
    looked_for: np.ndarray | None = None,
    submission: Path | None = None,
) -> Evaluation:
    """The scores of some outputs.

    Args:
        outputs: from `score_source`.
        model: the recognizer that gave them.
        split: name of the part of the dataset.
        looked_for: `(n, K)` bool, the negatives that were looked for (HICO's -1): there is a Known-Object setting.
        submission: the file that was written.

    Raises:
        ValueError: not a single image could be read.
    """
    if not outputs.paths:
        raise ValueError(f"{split}: none of its {len(outputs.failed)} images can be read; see attnpool check")
    probabilities = as_probabilities(torch.from_numpy(outputs.logits), model.scores)
    # With several labels, none at all is an answer; with one, it is a label that is not public.
    rows = outputs.targets.any(1) if model.task == "single" else np.ones(len(outputs.paths), bool)
    given, targets, label_mask = probabilities[rows], outputs.targets[rows], outputs.label_mask[rows]
    shown = None
    if looked_for is not None:
        shown = score(given, targets, model.classes, model.task, label_mask & (targets | looked_for[rows]))
    answered = outputs.pointed[~np.isnan(outputs.pointed)]
    return Evaluation(
        score(given, targets, model.classes, model.task, label_mask),
        confusion(given, targets.argmax(1), len(model.classes)) if model.task == "single" else None,
        model.classes,
        split,
        float(answered.mean()) if len(answered) else None,
        outputs.failed,
        shown,
        int((~rows).sum()),
        submission,
    )


def negatives(dataset: Dataset, paths: Sequence[str]) -> np.ndarray | None:
    """`(n, K)` bool: the negatives of these samples that were looked for; `None` if the dataset does not say which."""
    samples = {sample.path: sample for sample in dataset}
    listed = [samples[path].negatives for path in paths]
    if all(classes is None for classes in listed):
        return None
    table = np.zeros((len(paths), len(dataset.classes)), bool)
    for row, classes in enumerate(listed):
        table[row, slice(None) if classes is None else list(classes)] = True
    return table


def evaluate(
    run: Run | str | Path,
    source: Dataset | str,
    *,
    split: Literal["val", "train", "all", "test"] = "val",
    best: bool = False,
    submission: str | Path | None = None,
    frames: int | None = None,
    crops: Literal[1, 2, 10] = 1,
    flip: bool = False,
    fuse: Sequence[str | tuple[Run | str | Path, float]] = (),
    deletion: bool = False,
    workers: int = 0,
    use_cache: bool = True,
    cache: str | Path | None = None,
    progress: bool = False,
) -> Evaluation:
    """Scores a run on a dataset: mAP in three definitions, accuracy, every class, pointing where boxes are known.

    A `Dataset` is scored as a whole, of a source such as "folder:photos" the part that `split` names, see
    `splits.choose_split`. The logits of several crops, of an image and its mirror image, and of several runs are
    averaged.

    Args:
        run: folder of the run.
        source: dataset to score, such as folder:DIR.
        split: part of the dataset.
        best: use the weights of the epoch with the best mAP, which was chosen on the part that the training monitored.
        submission: MATLAB file to write the scores to, as MPII's server takes them; for split test, whose labels are
            not public.
        frames: frames of each clip (default: as many as the run was trained with).
        crops: test-time views of each image: 2 are the middle, and its middle enlarged; 10 are the middle, the
            corners, and their mirror images.
        flip: also score the mirror image of every view.
        fuse: RUN or RUN=W for other runs of the same classes, whose logits are added with weight W (1 if it is not
            given); for a stream of optical flow 1.5 is usual.
        deletion: also cover the cells where the maps are highest and score the images again, see docs/deletion.md.
        workers: processes that decode images and clips.
        use_cache: use and keep the features of a frozen backbone; those of 10 crops are not kept.
        cache: folder of features (default: $ATTNPOOL_CACHE or the user's cache).
        progress: show progress bars.

    Raises:
        ValueError: the run or the data cannot be used, or their classes differ.
    """
    loaded = Run.load(run, best=best) if isinstance(run, str | Path) else run
    submission, cache = (None if path is None else Path(path) for path in (submission, cache))
    if isinstance(source, Dataset):
        require_classes(loaded, source)
        dataset, split_name = source, source.split
    else:
        dataset, split_name = choose_split(loaded, source, split), split
    if frames is not None and dataset.media != "clips":
        raise ValueError(f"frames is {frames}, but {dataset.name} holds images; leave frames out")
    if crops == 10 and flip:
        raise ValueError("crops is 10, which has the mirror images already; leave flip out")
    require_crops(crops, Preprocessing(**loaded.model.preprocessing))
    if deletion:
        check_deletion(loaded, dataset, crops=crops, flip=flip, fuse=fuse)
    if submission is not None:
        require_ours(submission, "submission")
    numbers = {} if submission is None else image_numbers(submission, dataset)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    others = [weighted_run(item) if isinstance(item, str) else item for item in fuse]
    streams = [Run.load(other) if isinstance(other, str | Path) else other for other, _ in others]
    for stream in streams:
        require_classes(stream, dataset)
        require_unseen(stream, loaded, dataset)

    def outputs(stream: Run) -> Outputs:
        model = stream.model.to(device)
        data = dataset if model.sees_people else dataset.without_people()
        options = Preprocessing(**model.preprocessing | ({} if frames is None else {"frames": frames}))
        inputs: BatchSource = Images(data, options, workers, crops=crops, flip=flip)
        kept = model.backbone.frozen and use_cache and crops != 10 and frames is None
        if kept and (dataset.media == "images" or not (crops == 2 or flip)):
            found = extract(
                model, data, crops=crops, flip=flip, cache=cache, workers=workers, device=device, progress=progress
            )
            inputs = CachedFeatures(found, all_views=True)
        return score_source(model, inputs, device=device, progress="evaluate" if progress else "")

    found = outputs(loaded)
    if streams:
        added = [outputs(stream) for stream in streams]
        for other in added:
            if other.paths != found.paths:
                raise ValueError(f"{split_name}: the streams could not read the same samples; see attnpool check")
        weights = [1.0, *(weight for _, weight in others)]
        found = replace(found, logits=fused([stream.logits for stream in (found, *added)], weights))
    if submission is not None:
        if found.failed:
            raise ValueError(f"{split_name}: {len(found.failed)} images cannot be read; a submission needs them all")
        probabilities = as_probabilities(torch.from_numpy(found.logits), loaded.model.scores)
        write_submission(submission, [numbers[path] for path in found.paths], dataset.classes, probabilities)
    result = summarize(found, loaded.model, split_name, negatives(dataset, found.paths), submission)
    if deletion:
        images = Images(dataset, Preprocessing(**loaded.model.preprocessing), workers)
        result = replace(result, deletion=delete(loaded.model, images, device=device, progress=progress))
    place = dataset.name if dataset.storage else f"{dataset.format}:{dataset.root.resolve()}"
    asked = {"data": place, "split": split_name, "best": best, "crops": crops}
    asked |= {"flip": flip, "frames": frames, "fuse": [str(item) for item in fuse]}
    return replace(result, unit=f"{dataset.media}", run=loaded.folder, asked=asked, notes=dataset.notes)


def check_deletion(run: Run, dataset: Dataset, *, crops: int, flip: bool, fuse: Sequence[Any]) -> None:
    """Raises ValueError where there is no single map of each image to delete by."""
    for wrong, reason in (
        (dataset.media == "clips", "the dataset holds clips"),
        (run.model.instances == "boxes", "this run looks at the boxes of persons, and has no maps"),
        (crops != 1 or flip, "several views have several maps; leave out crops and flip"),
        (bool(fuse), "several runs have several maps; leave out fuse"),
    ):
        if wrong:
            raise ValueError(f"deletion is for the maps of images: {reason}")
