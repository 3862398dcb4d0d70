"""The annotations of images in COCO's format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from attnpool.keypoints.joints import MPII_JOINTS, Box
from attnpool.playground.objects import KINDS
from attnpool.playground.scene import Scene
from attnpool.playground.staging import RECORD

DESCRIPTION = "attnpool playground: a generated world of people doing things with objects"
# The version of the playground, increased whenever the same seed gives other images or annotations than before.
VERSION = 1
# Pairs of MPII's joints joined by a bone, counted from 0.
BONES = (
    (0, 1),
    (1, 2),
    (2, 6),
    (3, 6),
    (3, 4),
    (4, 5),
    (6, 7),
    (7, 8),
    (8, 9),
    (10, 11),
    (11, 12),
    (12, 7),
    (13, 7),
    (13, 14),
    (14, 15),
)


class Annotations:
    """Collects the annotations of a world's images and writes them to a file; ids count from 1."""

    def __init__(self) -> None:
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []

    def add(self, name: str, scene: Scene, label: Any) -> None:
        """Adds the next image, with its file below the root, its scene and its label."""
        number = len(self.images) + 1
        width, height = scene.image.size
        self.images.append({"id": number, "file_name": name, "width": width, "height": height, "label": label})
        for entry in annotate(scene):
            self.annotations.append({"id": len(self.annotations) + 1, "image_id": number, **entry})

    def write(self, world: Path, info: dict[str, Any], files: list[str] | None = None) -> None:
        """Writes `annotations.json`; `files` are the other files of the world."""
        skeleton = [[a + 1, b + 1] for a, b in BONES]
        person = {"id": 1, "name": "person", "keypoints": list(MPII_JOINTS), "skeleton": skeleton}
        categories = [person] + [{"id": number, "name": kind} for number, kind in enumerate(KINDS, start=2)]
        content = {"info": info, "images": self.images, "categories": categories, "annotations": self.annotations}
        if files is not None:
            content["files"] = files
        (world / RECORD).write_text(json.dumps(content), encoding="utf-8")


def annotate(scene: Scene) -> list[dict[str, Any]]:
    """The people and things of a scene as COCO annotations, without ids; joints outside the image are 0, 0, 0."""
    entries: list[dict[str, Any]] = []
    for person in scene.people:
        keypoints: list[float] = []
        for (x, y), v in zip(person.joints, person.visible, strict=True):
            keypoints += [round(float(x), 2), round(float(y), 2), int(v)] if v else [0, 0, 0]
        entries.append(
            {
                "category_id": 1,
                "bbox": _bbox(person.box),
                "area": person.area,
                "iscrowd": 0,
                "keypoints": keypoints,
                "num_keypoints": int((person.visible > 0).sum()),
                "actor": person.actor,
            }
        )
    for thing in scene.objects:
        entries.append(
            {
                "category_id": KINDS.index(thing.name) + 2,
                "bbox": _bbox(thing.box),
                "area": thing.area,
                "iscrowd": 0,
                "in_use": thing.in_use,
            }
        )
    return entries


def _bbox(box: Box) -> list[float]:
    x1, y1, x2, y2 = box
    return [x1, y1, x2 - x1, y2 - y1]
