"""Stores the joints that a pose estimator found where the readers of datasets find them.

The format's entry in `READERS` determines where: in `poses.json`, or as OpenPose JSON, with a file per image or frame.
Labels made by hand, and other files of the user, are left as they are.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from attnpool.data.dataset import Dataset, Sample
from attnpool.data.formats import READERS
from attnpool.data.formats.coco import FILE_NAME, POSES_NAME, read_annotations
from attnpool.data.formats.coco_merging import Labelled, known_names, merge
from attnpool.data.formats.openpose import frame_file, write_openpose
from attnpool.files import MARK, is_ours, mark, require_ours, write_text
from attnpool.keypoints.detections import Estimate

Place = Callable[[Dataset, Sample], str]


class Store(Protocol):
    """Stores labels of images (with frame `None`) and of frames of clips, counted from 0."""

    def begin(self, samples: Sequence[Sample]) -> None:
        """Prepares the store; called before the first image."""

    def missing(self, sample: Sample, frames: Sequence[int | None]) -> list[int | None]:
        """Those of the frames that have no labels yet."""

    def add(self, sample: Sample, frame: int | None, size: tuple[int, int], people: list[Estimate]) -> None:
        """Stores the people found in an image, atomically; `size` is the image's (width, height)."""

    def finish(self) -> None:
        """Completes the store; called after the last image. Then the readers find everything."""


class OpenPoseFiles:
    """Stores labels as a file `{"bodies": [...]}` for every image or frame; see `formats.openpose`.

    Args:
        dataset: the dataset.
        base: the folder that paths are relative to, the dataset's root or another.
        place: where the reader finds the files, see `Format.keypoint_place`.
        overwrite: whether to replace files that an earlier call wrote. Other files stay, and images with joints in the
            dataset's own annotations never get one.
    """

    def __init__(self, dataset: Dataset, base: Path, place: Place, *, overwrite: bool = False) -> None:
        self.dataset, self.base, self.place, self.overwrite = dataset, base, place, overwrite
        self.begun: set[Path] = set()  # with `overwrite`, the files that this call has written

    def begin(self, samples: Sequence[Sample]) -> None:
        # Readers decide by the folders that exist, so some of the folders would mislead them.
        for folder in {self.file(sample, None).parent for sample in samples}:
            folder.mkdir(parents=True, exist_ok=True)

    def missing(self, sample: Sample, frames: Sequence[int | None]) -> list[int | None]:
        if any(person.joints for person in sample.people):
            return []
        files = [self.file(sample, frame) for frame in frames]
        return [
            frame
            for frame, file in zip(frames, files, strict=True)
            if file not in self.begun and (not file.exists() or (self.overwrite and is_ours(file)))
        ]

    def add(self, sample: Sample, frame: int | None, size: tuple[int, int], people: list[Estimate]) -> None:
        file = self.file(sample, frame)
        write_openpose(file, [person.joints for person in people], [person.scores for person in people])
        self.begun.add(file)

    def finish(self) -> None:
        pass

    def file(self, sample: Sample, frame: int | None) -> Path:
        """The file of an image or of a frame; for a clip with frame `None`, its folder."""
        place = self.place(self.dataset, sample)
        return self.base / (place if frame is None else frame_file(place, frame))


class PosesFile:
    """Stores labels in `poses.json` of a folder of images, which is written at the end; until then in a journal.

    The journal beside the file has a line per image, so that an interrupted labelling continues where it stopped.
    Images with joints in the folder's `annotations.json` are not labelled; that file is never written.

    Args:
        dataset: the dataset.
        base: the folder to write to, the dataset's root or another.
        by: the estimator and its settings; a journal of another estimator is dropped.
        overwrite: whether to label images again that an earlier call labelled, and replace what it found.

    Raises:
        ValueError: the dataset's annotation file is malformed, or a file is in the way that is not ours.
    """

    def __init__(self, dataset: Dataset, base: Path, *, by: str, overwrite: bool = False) -> None:
        self.target = base / POSES_NAME
        self.journal = base / f".{POSES_NAME}.partial.jsonl"
        for file in (self.target, self.journal):
            require_ours(file, "pose")
        self.by, self.overwrite = by, overwrite
        by_hand = dataset.root / FILE_NAME
        marks = read_annotations(by_hand) if by_hand.exists() else {}
        self.labelled = {name for name, known in marks.items() if any(person.joints for person in known.people)}
        self.before = None
        if self.target.exists():
            read_annotations(self.target)  # so that a damaged file is named before the long work
            self.before = json.loads(self.target.read_bytes())
        self.known = known_names(self.before) if self.before else set()
        self.header = json.dumps({MARK: mark(), "by": by, "overwrite": overwrite}) + "\n"
        self.lines = self._read_journal()

    def begin(self, samples: Sequence[Sample]) -> None:
        self.journal.parent.mkdir(parents=True, exist_ok=True)

    def missing(self, sample: Sample, frames: Sequence[int | None]) -> list[int | None]:
        done = sample.path in self.lines or sample.path in self.labelled
        done |= sample.path in self.known and not self.overwrite
        return [] if done else list(frames)

    def add(self, sample: Sample, frame: int | None, size: tuple[int, int], people: list[Estimate]) -> None:
        entry = Labelled(sample.path, size, people)
        with self.journal.open("a", encoding="utf-8") as file:
            if file.tell() == 0:
                file.write(self.header)
            file.write(json.dumps(entry.to_json()) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.lines[sample.path] = entry

    def finish(self) -> None:
        if not self.lines:
            return
        content = self.before or {"info": {"description": mark()}, "images": [], "annotations": [], "categories": []}
        merged = merge(content, self.lines.values(), self.by)
        write_text(self.target, json.dumps(merged, ensure_ascii=False) + "\n")
        self.journal.unlink(missing_ok=True)

    def _read_journal(self) -> dict[str, Labelled]:
        """The labels of an interrupted call; removes an incomplete line, and the journal of another estimator."""
        if not self.journal.exists():
            return {}
        whole = self.journal.read_bytes().rpartition(b"\n")[0]
        header, *lines = whole.decode("utf-8", errors="replace").split("\n")
        entries: dict[str, Labelled] = {}
        if header + "\n" == self.header:
            try:
                found = [Labelled.from_json(json.loads(line)) for line in lines]
                entries = {entry.file: entry for entry in found}
            except (ValueError, KeyError, TypeError):  # not a journal of ours: start again
                entries = {}
        kept = self.header + "".join(json.dumps(entry.to_json()) + "\n" for entry in entries.values())
        self.journal.write_text(kept, encoding="utf-8")
        return entries


def open_store(dataset: Dataset, base: Path, *, by: str, overwrite: bool) -> Store:
    """Makes the store for the format of a dataset."""
    place = READERS[dataset.format].keypoint_place
    if place is None or not place(dataset, dataset.samples[0]):
        return PosesFile(dataset, base, by=by, overwrite=overwrite)
    return OpenPoseFiles(dataset, base, place, overwrite=overwrite)
