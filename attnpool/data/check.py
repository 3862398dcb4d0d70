"""Look at every file of a dataset before hours are spent on it."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from attnpool.data.annotations import FILE_NAME
from attnpool.data.index import Index, Sample
from attnpool.data.media import UnreadableImage, decode, quiet

_SHOWN = 20  # lines of a list in the text; the JSON has all of them


@dataclass(frozen=True)
class Check:
    """What a dataset holds and what is wrong with it.

    Attributes:
        source: what the user typed.
        classes: class names.
        images: split -> class -> number of pictures, unusable ones included.
        unusable: `(path, reason)` of pictures that cannot be read; training and evaluation leave them out.
        duplicates: groups of paths with the very same content that lie in different splits or classes.
        outside: paths whose keypoints or boxes lie outside of the picture (were they made for another size?).
        ignored: suffix -> number of files that are not part of the dataset.
        people: number of persons with keypoints or a box.
        joints: number of labelled joints.
        evidence: number of pictures with an evidence box.
        objects: number of objects in use.
    """

    source: str
    classes: tuple[str, ...]
    images: dict[str, dict[str, int]]
    unusable: tuple[tuple[str, str], ...]
    duplicates: tuple[tuple[str, ...], ...]
    outside: tuple[str, ...]
    ignored: dict[str, int]
    people: int
    joints: int
    evidence: int
    objects: int

    def to_json(self) -> dict[str, object]:
        """The same as values that `json.dumps` takes; unusable files as `{"file", "reason"}`."""
        content = asdict(self)
        content["unusable"] = [{"file": path, "reason": reason} for path, reason in self.unusable]
        return content

    def text(self) -> str:
        """For people to read."""
        total = sum(sum(counts.values()) for counts in self.images.values())
        lines = [f"{self.source}: {total} pictures, {len(self.classes)} classes", ""]
        lines += _table(self.classes, self.images)
        lines += ["", f"{self.people} people with {self.joints} labelled joints, {self.objects} objects in use"]
        lines += [f"{self.evidence} pictures say where the evidence is"]
        for suffix, count in self.ignored.items():
            lines.append(f"left aside: {count} x {suffix}")
        groups = [" = ".join(group) for group in self.duplicates]
        broken = [f"{path}: {reason}" for path, reason in self.unusable]
        lines += _listing("the same picture in several splits or classes (scores will look too good)", groups)
        lines += _listing("keypoints or boxes outside of the picture (made for another size?)", list(self.outside))
        lines += _listing("cannot be used", broken)
        lines += ["", f"{total - len(broken)} of {total} pictures can be used"]
        return "\n".join(lines)


def check_splits(source: str, splits: Mapping[str, Index], progress: Callable[[int, int], None] | None = None) -> Check:
    """Decode every picture of a dataset and count what is there.

    Args:
        source: what the user typed.
        splits: split -> its index, all with the same root and classes.
        progress: called with (pictures done, pictures in all) after each.
    """
    entries = [(split, index, sample) for split, index in splits.items() for sample in index]
    first = next(iter(splits.values()))
    unusable: list[tuple[str, str]] = []
    outside: list[str] = []
    same: dict[bytes, list[tuple[str, Sample]]] = {}
    done = 0
    # Pillow lets other threads run while it decodes.
    with quiet(), ThreadPoolExecutor(2) as pool:
        looks = pool.map(lambda entry: _look(entry[1], entry[2]), entries)
        try:
            for (split, _, sample), (digest, problem, is_outside) in zip(entries, looks, strict=True):
                done += 1
                if problem:
                    unusable.append((sample.path, problem))
                else:
                    same.setdefault(digest, []).append((split, sample))
                if is_outside:
                    outside.append(sample.path)
                if progress is not None:
                    progress(done, len(entries))
        finally:
            pool.shutdown(cancel_futures=True)  # Ctrl-C must not wait for all the rest

    used = {sample.path for _, _, sample in entries}
    people = [person for _, _, sample in entries for person in sample.people]
    return Check(
        source=source,
        classes=first.classes,
        images={split: _per_class(index) for split, index in splits.items()},
        unusable=tuple(unusable),
        duplicates=tuple(
            tuple(sample.path for _, sample in group)
            for group in same.values()
            if len({(split, sample.labels) for split, sample in group}) > 1
        ),
        outside=tuple(outside),
        ignored=_ignored(first.root, used),
        people=len(people),
        joints=sum(joint is not None for person in people for joint in person.joints),
        evidence=sum(bool(sample.evidence) for _, _, sample in entries),
        objects=sum(len(sample.objects) for _, _, sample in entries),
    )


def _look(index: Index, sample: Sample) -> tuple[bytes, str, bool]:
    """Hash of the file, what is wrong with it, and whether annotations lie outside of the picture."""
    file = index.file(sample)
    try:
        width, height = decode(file).size
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").digest()
    except UnreadableImage as error:
        return b"", error.reason, False
    boxes = [*sample.evidence, *sample.objects, *(person.box for person in sample.people if person.box)]
    corners = [corner for x1, y1, x2, y2 in boxes for corner in ((x1, y1), (x2, y2))]
    # Annotators' boxes often end a little beyond the border; joints, too, where a body is cut off.
    slack_x, slack_y = max(2.0, 0.1 * width), max(2.0, 0.1 * height)
    joints = [joint for person in sample.people for joint in person.joints if joint is not None]
    far = any(
        not (-slack_x <= x <= width + slack_x and -slack_y <= y <= height + slack_y) for x, y in [*corners, *joints]
    )
    return digest, "", far


def _ignored(root: Path, used: set[str]) -> dict[str, int]:
    """Suffix -> number of the files, hidden ones too, which are neither samples nor the annotations."""
    counts: Counter[str] = Counter()
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            if path.relative_to(root).as_posix() not in used and path != root / FILE_NAME:
                counts[path.suffix.lower() if path.suffix.isascii() else "other"] += 1
    return {suffix or "no suffix": count for suffix, count in sorted(counts.items())}


def _per_class(index: Index) -> dict[str, int]:
    counts = Counter(label for sample in index for label in sample.labels)
    return {name: counts[label] for label, name in enumerate(index.classes)}


def _table(classes: tuple[str, ...], images: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Pictures per class and split; of many classes those with the fewest in train."""
    shown = list(classes)
    if len(classes) > 2 * _SHOWN:
        shown = sorted(classes, key=lambda name: next(iter(images.values()))[name])[:_SHOWN]
    width = max(len(name) for name in [*shown, "class"])
    lines = ["  ".join(["class".ljust(width), *(split.rjust(6) for split in images)])]
    for name in shown:
        lines.append("  ".join([name.ljust(width), *(str(counts[name]).rjust(6) for counts in images.values())]))
    lines.append("  ".join(["all".ljust(width), *(str(sum(counts.values())).rjust(6) for counts in images.values())]))
    if len(shown) < len(classes):
        lines.append(f"({len(classes) - len(shown)} classes with more pictures are not shown)")
    return lines


def _listing(title: str, items: list[str]) -> list[str]:
    if not items:
        return []
    more = [f"  ... and {len(items) - _SHOWN} more (--json lists all)"] if len(items) > _SHOWN else []
    return ["", f"{title}: {len(items)}", *(f"  {item}" for item in items[:_SHOWN]), *more]
