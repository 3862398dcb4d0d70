"""The result of `check`, as values, JSON and text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

_SHOWN = 20  # lines of a list in the text; the JSON has all of them
MISSING = "missing"
"""The reason given for files that do not exist."""


@dataclass(frozen=True)
class Part:
    """The contents of one split.

    Attributes:
        samples: number of images or clips, unusable ones included.
        classes: number of classes with at least one sample.
        labels: number of labels, one per sample if the task is "single".
        ambiguous: number of labels that annotators marked as uncertain.
        frames: number of frames of the clips.
        people: number of persons with keypoints or a box; in clips, summed over frames.
        joints: number of labelled joints.
        missing: number of files that do not exist.
        broken: number of files that exist but cannot be read.
    """

    samples: int
    classes: int
    labels: int
    ambiguous: int
    frames: int
    people: int
    joints: int
    missing: int
    broken: int


@dataclass(frozen=True)
class Check:
    """The contents of a dataset and the problems found in it.

    Attributes:
        source: the dataset as the user named it.
        media: "images" or "clips".
        classes: class names.
        images: split -> class -> number of images or clips, unusable ones included. A test split that is also val is
            listed once, as "val".
        parts: split -> its contents.
        unusable: `(path, reason)` of samples that are missing or cannot be read; training and evaluation leave them
            out.
        damaged: `(path, reason)` of clips that can be read only in part.
        keypoints: `(path, reason)` of keypoint files that cannot be read.
        duplicates: groups of paths with identical content that lie in different splits or classes.
        near_duplicates: `(path, path in train)` of images outside of train that are nearly images of train.
        outside: paths whose keypoints or boxes lie outside the image (were they made for another size?).
        ignored: suffix -> number of files that are not part of the dataset; in published datasets, of images and videos
            only.
        left_out: classes that have fewer samples than was asked for.
        read_as: what the reader says of how it read the dataset.
        people: number of persons with keypoints or a box.
        joints: number of labelled joints.
        evidence: number of images with an evidence box.
        objects: number of objects in use.
    """

    source: str
    media: str
    classes: tuple[str, ...]
    images: dict[str, dict[str, int]]
    parts: dict[str, Part]
    unusable: tuple[tuple[str, str], ...]
    damaged: tuple[tuple[str, str], ...]
    keypoints: tuple[tuple[str, str], ...]
    duplicates: tuple[tuple[str, ...], ...]
    near_duplicates: tuple[tuple[str, str], ...]
    outside: tuple[str, ...]
    ignored: dict[str, int]
    left_out: tuple[str, ...]
    read_as: tuple[str, ...]
    people: int
    joints: int
    evidence: int
    objects: int

    def to_json(self) -> dict[str, object]:
        """The result as values that `json.dumps` takes; problems of files are `{"file", "reason"}`."""
        content = asdict(self)
        for name, files in (("unusable", self.unusable), ("damaged", self.damaged), ("keypoints", self.keypoints)):
            content[name] = [{"file": path, "reason": reason} for path, reason in files]
        return content

    def __str__(self) -> str:
        """For people to read."""
        total = sum(part.samples for part in self.parts.values())
        lines = [f"{self.source}: {total} {self.media}, {len(self.classes)} classes", ""]
        lines += _table(self.classes, self.images, self.parts, self.media)
        lines += ["", *(f"{split}: {_numbers(part, self.media)}" for split, part in self.parts.items())]
        lines += [f"{self.people} people with {self.joints} labelled joints, {self.objects} objects in use"]
        lines += [f"{self.evidence} {self.media} have evidence boxes"]
        if self.left_out:
            lines.append(f"left out, too few {self.media}: {', '.join(self.left_out)}")
        for suffix, count in self.ignored.items():
            lines.append(f"ignored: {count} x {suffix}")
        lines += [f"note: {said}" for said in self.read_as]
        groups = [" = ".join(group) for group in self.duplicates]
        single = self.media.removesuffix("s")
        lines += _listing(f"the same {single} in several splits or classes (scores will look too good)", groups)
        nearly = [f"{path} is nearly {known}" for path, known in self.near_duplicates]
        lines += _listing("nearly the same image in train and elsewhere (scores will look too good)", nearly)
        lines += _listing(f"keypoints or boxes outside of the {single} (made for another size?)", list(self.outside))
        lines += _listing("keypoint files that cannot be read", [f"{file}: {why}" for file, why in self.keypoints])
        lines += _listing("can be read in part", [f"{file}: {why}" for file, why in self.damaged])
        lines += _listing(MISSING, [file for file, why in self.unusable if why == MISSING])
        lines += _listing("cannot be used", [f"{file}: {why}" for file, why in self.unusable if why != MISSING])
        lines += ["", f"{total - len(self.unusable)} of {total} {self.media} can be used"]
        return "\n".join(lines)


def _numbers(part: Part, media: str) -> str:
    """The numbers of a split that are not 0, as text."""
    shown = [
        f"{part.samples} {media} of {part.classes} classes" if part.labels else f"{part.samples} {media}, no labels"
    ]
    if part.labels not in (0, part.samples):
        shown.append(f"{part.labels} labels")
    if part.ambiguous:
        shown.append(f"{part.ambiguous} ambiguous")
    if part.frames:
        shown.append(f"{part.frames} frames")
    if part.people:
        shown.append(f"{part.people} people, {part.joints} joints")
    return ", ".join([*shown, f"{part.missing} missing, {part.broken} broken"])


def _table(
    classes: tuple[str, ...], images: Mapping[str, Mapping[str, int]], parts: Mapping[str, Part], media: str
) -> list[str]:
    """A table of samples per class and split; of many classes it shows those with the fewest in train."""
    shown = list(classes)
    if len(classes) > 2 * _SHOWN:
        shown = sorted(classes, key=lambda name: next(iter(images.values()))[name])[:_SHOWN]
    width = max(len(name) for name in [*shown, "class"])
    lines = ["  ".join(["class".ljust(width), *(split.rjust(6) for split in images)])]
    for name in shown:
        lines.append("  ".join([name.ljust(width), *(str(counts[name]).rjust(6) for counts in images.values())]))
    lines.append("  ".join(["all".ljust(width), *(str(parts[split].samples).rjust(6) for split in images)]))
    if len(shown) < len(classes):
        lines.append(f"({len(classes) - len(shown)} classes with more {media} are not shown)")
    return lines


def _listing(title: str, items: list[str]) -> list[str]:
    if not items:
        return []
    more = [f"  ... and {len(items) - _SHOWN} more (--json lists all)"] if len(items) > _SHOWN else []
    return ["", f"{title}: {len(items)}", *(f"  {item}" for item in items[:_SHOWN]), *more]
