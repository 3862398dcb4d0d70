"""Adds people that a pose estimator found to those that it found before, in a COCO-style file."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from attnpool.keypoints.detections import Estimate
from attnpool.keypoints.joints import MPII_JOINTS, Box

MARK = "estimated"  # our field of an image: the estimator that was run on it, also if it found nobody
_AUTHOR = "estimator"  # our field of an annotation: the estimator that found it


@dataclass
class Labelled:
    """The people found in an image, with its `file_name` and its (width, height)."""

    file: str
    size: tuple[int, int]
    people: list[Estimate]

    def to_json(self) -> dict[str, Any]:
        people = [
            {"joints": person.joints, "scores": person.scores, "score": person.score, "box": person.box}
            for person in self.people
        ]
        return {"file": self.file, "size": self.size, "people": people}

    @staticmethod
    def from_json(value: Any) -> Labelled:
        """Reads the result of `to_json`; raises KeyError, TypeError or ValueError for anything else."""
        people = [
            Estimate(
                tuple(None if joint is None else (float(joint[0]), float(joint[1])) for joint in person["joints"]),
                tuple(map(float, person["scores"])),
                float(person["score"]),
                None if person["box"] is None else tuple(map(float, person["box"])),  # type: ignore[arg-type]
            )
            for person in value["people"]
        ]
        width, height = value["size"]
        return Labelled(str(value["file"]), (int(width), int(height)), people)


def known_names(content: Any) -> set[str]:
    """The names of the images in a COCO-style file on which an estimator was run."""
    return {_name(image) for image in content["images"] if image.get(MARK)}


def merge(content: dict[str, Any], found: Iterable[Labelled], by: str) -> dict[str, Any]:
    """Adds the people found in images, which may be new, to the content of a COCO-style file.

    What an earlier call found in these images is removed.

    Args:
        content: content of a file that this wrote, which is changed.
        found: the people found, at most one entry per image.
        by: value of the fields `estimated` and `estimator`, which distinguish found people from labelled ones.
    """
    images = {_name(image): image for image in content["images"]}
    entries: dict[Any, list[dict[str, Any]]] = {}
    for annotation in content["annotations"]:
        entries.setdefault(annotation["image_id"], []).append(annotation)
    category = _category(content["categories"])
    next_image, next_annotation = _free(content["images"]), _free(content["annotations"])
    dropped: set[Any] = set()
    for labelled in found:
        image = images.get(labelled.file)
        if image is None:
            image = {"id": next_image, "file_name": labelled.file}
            next_image += 1
            content["images"].append(image)
        width, height = labelled.size
        image |= {"width": width, "height": height, MARK: by}
        dropped |= {old["id"] for old in entries.get(image["id"], ())}
        for person in labelled.people:
            entry = _annotation(person, person.box)
            content["annotations"].append(
                {"id": next_annotation, "image_id": image["id"], "category_id": category, _AUTHOR: by} | entry
            )
            next_annotation += 1
    content["annotations"] = [entry for entry in content["annotations"] if entry["id"] not in dropped]
    return content


def _annotation(person: Estimate, box: Box | None) -> dict[str, Any]:
    keypoints: list[float] = []
    for joint in person.joints:
        keypoints += [0, 0, 0] if joint is None else [round(joint[0], 2), round(joint[1], 2), 2]
    x1, y1, x2, y2 = (round(value, 2) for value in box or (0.0, 0.0, 0.0, 0.0))
    return {
        "bbox": [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)],
        "area": round((x2 - x1) * (y2 - y1), 2),
        "iscrowd": 0,
        "keypoints": keypoints,
        "num_keypoints": sum(joint is not None for joint in person.joints),
        "score": round(person.score, 4),
    }


def _category(categories: list[dict[str, Any]]) -> Any:
    """The id of the person category with MPII's joints, which is added if there is none."""
    for category in categories:
        if category.get("name") == "person" and category.get("keypoints") == list(MPII_JOINTS):
            return category["id"]
    made = {"id": _free(categories), "name": "person", "keypoints": list(MPII_JOINTS)}
    categories.append(made)
    return made["id"]


def _free(records: list[dict[str, Any]]) -> int:
    return 1 + max((record["id"] for record in records if isinstance(record["id"], int)), default=0)


def _name(image: dict[str, Any]) -> str:
    return posixpath.normpath(image["file_name"].replace("\\", "/"))
