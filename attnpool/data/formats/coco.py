"""`annotations.json`: COCO-style keypoints and boxes beside a folder of images.

The conventions are COCO's: boxes are `[x, y, width, height]` and keypoints `[x, y, v, ...]` with v = 0 for "no label",
all in pixels of the upright image from its top left corner. Two additional fields mark the evidence: `"actor": true` on
a person and `"in_use": true` on an object.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from attnpool.data.dataset import Dataset, Person
from attnpool.keypoints.joints import Box, Joints, joint_mapping

FILE_NAME = "annotations.json"
POSES_NAME = "poses.json"  # what a pose estimator found; the other file is the user's and is never written


@dataclass
class Marks:
    """The annotations of one image; the fields are those of `Sample`."""

    people: list[Person] = field(default_factory=list)
    evidence: list[Box] = field(default_factory=list)
    objects: list[Box] = field(default_factory=list)


def read_annotations(file: Path) -> dict[str, Marks]:
    """Reads the annotations in a COCO-style file, by `file_name`.

    Persons may have any joint set whose names the person category lists, such as MPII's 16 or COCO's 17; it is mapped
    to MPII's 16. Crowds (`iscrowd`) are left out. The evidence of an image is one box around its actors and the objects
    in use; without those fields there are no evidence and no objects.

    Raises:
        ValueError: the file cannot be read or is malformed; the message is one line with the file and the problem.
    """
    try:
        content = json.loads(file.read_bytes())
        return _images(content)
    except OSError as error:
        problem = (error.strerror or str(error)).lower()
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        problem = f"not JSON: {error}"
    except RecursionError:
        problem = "nested too deeply"
    except _Malformed as error:
        problem = str(error)
    raise ValueError(f"{file}: {problem}; correct the file or remove it")


def read_marks(root: Path) -> dict[str, Marks]:
    """What `annotations.json` and `poses.json` in a folder say about its images, where there are these files.

    The people that an estimator found count where the annotations have no joints. If they have boxes of persons, the
    people found get none, as they would be the same persons twice.

    Raises:
        ValueError: a file cannot be read or is malformed.
    """
    marks, found = (read_annotations(root / name) if (root / name).exists() else {} for name in (FILE_NAME, POSES_NAME))
    for name, estimated in found.items():
        own = marks.setdefault(name, Marks())
        if any(person.joints for person in own.people):
            continue
        boxed = any(person.box for person in own.people)
        own.people += [replace(person, box=None) if boxed else person for person in estimated.people]
    return marks


def with_evidence(dataset: Dataset) -> Dataset:
    """Adds the evidence from `annotations.json` to a dataset whose own format has none.

    The playground writes that file in every format. Without it the dataset is returned unchanged.

    Raises:
        ValueError: the file cannot be read or is malformed.
    """
    file = dataset.root / FILE_NAME
    if not file.exists():
        return dataset
    marks = read_annotations(file)
    nothing = Marks()
    found = [(sample, marks.get(sample.path, nothing)) for sample in dataset]
    samples = [replace(sample, evidence=tuple(m.evidence), objects=tuple(m.objects)) for sample, m in found]
    return replace(dataset, samples=tuple(samples))


class _Malformed(Exception):
    pass


def _images(content: Any) -> dict[str, Marks]:
    names: dict[Any, str] = {}
    for image in _records(content, "images"):
        name = _get(image, "file_name", "an image")
        if not isinstance(name, str) or not name:
            raise _Malformed(f"file_name {name!r} is not a name")
        names[image["id"]] = posixpath.normpath(name.replace("\\", "/"))
    if len(set(names.values())) < len(names):
        twice = sorted(name for name in set(names.values()) if list(names.values()).count(name) > 1)
        raise _Malformed(f"file_name {twice[0]!r} occurs twice")
    categories = {category["id"]: category for category in _records(content, "categories")}

    marks = {name: Marks() for name in names.values()}
    used: dict[str, list[Box]] = {}
    for annotation in _records(content, "annotations"):
        where = f"annotation {annotation['id']!r}"
        name = _lookup(names, _get(annotation, "image_id", where), f"{where}: there is no image")
        category = _lookup(categories, _get(annotation, "category_id", where), f"{where}: there is no category")
        if annotation.get("iscrowd"):
            continue
        box = _box(annotation.get("bbox"), where)
        if "keypoints" in annotation or category.get("name") == "person":
            joints = _joints(annotation.get("keypoints"), category, where)
            if box is not None or any(joints):
                marks[name].people.append(Person(joints if any(joints) else (), box))
            if annotation.get("actor") is True and box is not None:
                used.setdefault(name, []).append(box)
        elif annotation.get("in_use") is True and box is not None:
            marks[name].objects.append(box)
            used.setdefault(name, []).append(box)
    for name, boxes in used.items():
        x1, y1, x2, y2 = zip(*boxes, strict=True)
        marks[name].evidence.append((min(x1), min(y1), max(x2), max(y2)))
    return marks


def _records(content: Any, key: str) -> Iterator[dict[str, Any]]:
    """The objects in one of the file's lists, each of which must have a unique id."""
    if not isinstance(content, dict) or not isinstance(content.get(key), list):
        raise _Malformed(f"there is no list of {key!r} as in COCO's files")
    seen: set[Any] = set()
    for record in content[key]:
        if not isinstance(record, dict) or not isinstance(record.get("id"), int | str):
            raise _Malformed(f"an entry of {key!r} is not an object with an id")
        if record["id"] in seen:
            raise _Malformed(f"id {record['id']!r} occurs twice in {key!r}")
        seen.add(record["id"])
        yield record


def _get(record: dict[str, Any], key: str, where: str) -> Any:
    if key not in record:
        raise _Malformed(f"{where} has no {key}")
    return record[key]


def _lookup(table: dict[Any, Any], key: Any, problem: str) -> Any:
    if not isinstance(key, int | str) or key not in table:
        raise _Malformed(f"{problem} {key!r}")
    return table[key]


def _numbers(value: Any, count: int, what: str) -> list[float]:
    if (
        not isinstance(value, list)
        or len(value) != count
        or not all(isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 1e9 for v in value)
    ):
        raise _Malformed(f"{what} is not {count} finite numbers")
    return [float(v) for v in value]


def _box(value: Any, where: str) -> Box | None:
    if value is None:
        return None
    x, y, width, height = _numbers(value, 4, f"the bbox of {where}")
    if width < 0 or height < 0:
        raise _Malformed(f"the bbox of {where} has a negative size")
    # COCO writes [0, 0, 0, 0] for "no box".
    return (x, y, x + width, y + height) if width > 0 and height > 0 else None


def _joints(value: Any, category: dict[str, Any], where: str) -> Joints:
    if value is None:
        return ()
    names = category.get("keypoints")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise _Malformed(f"{where} has keypoints, but its category {category.get('name')!r} does not list their names")
    numbers = _numbers(value, 3 * len(names), f"the keypoints of {where}")
    points = [(x, y) if v > 0 else None for x, y, v in zip(*[iter(numbers)] * 3, strict=True)]
    return tuple(None if position is None else points[position] for position in joint_mapping(names))
