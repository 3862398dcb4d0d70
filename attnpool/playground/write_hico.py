"""Writes a world in HICO's format: images that show several verb-object pairs, `anno.mat` and OpenPose keypoints."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from attnpool.playground.annotation import DESCRIPTION, VERSION, Annotations
from attnpool.playground.crowd import compose_crowd
from attnpool.playground.mat import cells, save_mat, struct
from attnpool.playground.objects import KINDS
from attnpool.playground.openpose import detections, write_bodies
from attnpool.playground.raster import Array
from attnpool.playground.scene import Scene, draw
from attnpool.playground.staging import Progress, make_world
from attnpool.playground.write_folder import QUALITY, check_numbers, is_validation

TEST_FRACTION = 0.25
FILES = ["anno.mat"]


@dataclass(frozen=True)
class Interaction:
    """A class of HICO: an object, a verb, and the playground's action ("" for no interaction)."""

    object: str
    verb: str
    verb_ing: str
    action: str


NOTHING = "no_interaction"
_ACTIONS = {
    "drinking from a mug": ("mug", "drink_from", "drinking_from"),
    "drinking from a bottle": ("bottle", "drink_from", "drinking_from"),
    "calling with a phone": ("phone", "talk_on", "talking_on"),
    "texting on a phone": ("phone", "text_on", "texting_on"),
    "reading a book": ("book", "read", "reading"),
    "carrying a book": ("book", "carry", "carrying"),
    "throwing a ball": ("ball", "throw", "throwing"),
    "kicking a ball": ("ball", "kick", "kicking"),
    "catching a ball": ("ball", "catch", "catching"),
    "playing a guitar": ("guitar", "play", "playing"),
    "carrying a guitar": ("guitar", "carry", "carrying"),
    "swinging a racket": ("racket", "swing", "swinging"),
    "sweeping with a broom": ("broom", "sweep_with", "sweeping_with"),
    "holding an umbrella": ("umbrella", "hold", "holding"),
}
INTERACTIONS: tuple[Interaction, ...] = tuple(
    sorted(
        [Interaction(kind, verb, verb_ing, action) for action, (kind, verb, verb_ing) in _ACTIONS.items()]
        + [Interaction(kind, NOTHING, NOTHING, "") for kind in KINDS],
        key=lambda it: (it.object, it.verb),
    )
)
"""The classes in the order of `list_action`: by object, then by verb, as in HICO."""

# Phases in which an image does not distinguish two actions: (action, first phase, last phase, other action).
ALIKE = (
    ("catching a ball", 0.8, 1.0, "throwing a ball"),
    ("throwing a ball", 0.85, 1.0, "catching a ball"),
)
# With fewer visible pixels of the thing in use, at 448 px, or fewer joints of the actor, the action is ambiguous.
FEWEST_PIXELS, FEWEST_JOINTS = 140, 8


def labels(scene: Scene, phases: dict[str, float]) -> Array:
    """HICO's label of each class for an image, (K,): +1 shown, -1 not shown, 0 ambiguous, NaN unknown.

    - Objects that are not in the image: NaN for all their classes. HICO's annotators looked at images in which
      the object was expected.
    - Actions that are shown: +1; 0 if the thing or the actor is hardly visible (`FEWEST_PIXELS`, `FEWEST_JOINTS`).
    - Other classes of objects that are in the image: -1; 0 for an action that looks the same at this moment.
    - `no_interaction`: +1 if there are objects of the kind and nobody uses one, 0 if some are used and others are not,
      -1 if all of them are in use.

    Args:
        scene: the image.
        phases: phase in 0..1 of each action that is shown.
    """
    least = FEWEST_PIXELS * (scene.image.width / 448) ** 2
    seen = {thing.label: thing.area for thing in scene.objects if thing.in_use}
    joints = {person.label: int((person.visible == 2).sum()) for person in scene.people if person.actor}
    unclear = {name for name in phases if seen.get(name, 0) < least or joints.get(name, 0) < FEWEST_JOINTS}
    alike = {b for a, start, end, b in ALIKE if a in phases and start <= phases[a] <= end}
    used = {_ACTIONS[name][0] for name in phases}
    idle = {thing.name for thing in scene.objects if not thing.in_use}
    there = {thing.name for thing in scene.objects}
    found = np.full(len(INTERACTIONS), np.nan)
    for number, it in enumerate(INTERACTIONS):
        if it.action in unclear:
            found[number] = 0
        elif it.object not in there:
            continue
        elif it.verb == NOTHING:
            found[number] = -1 if it.object not in idle else 0 if it.object in used else 1
        elif it.action in phases:
            found[number] = 1
        else:
            found[number] = 0 if it.action in alike else -1
    return found


def write_hico(directory: Path, images: int, seed: int, *, size: int = 448, progress: Progress | None = None) -> None:
    """Writes a world in HICO's format below `directory`, either completely or not at all.

    - `images/train2015/HICO_train2015_00000001.jpg` ..., `images/test2015/...`: one actor or two, who do different
      things. About a quarter is test, in whole blocks of K images, as `is_validation` says.
    - `anno.mat`: `anno_train` and `anno_test` (classes x images, see `labels`), `list_action` (nname, vname,
      vname_ing), `list_train` and `list_test`.
    - `keypoints/train2015/HICO_train2015_00000001.json` ...: the people as OpenPose's JSON.
    - `annotations.json`: the same annotations as in `write_folder`; an image's "label" is the list of its actions.

    Args:
        directory: folder to write, which must be new or empty, or hold exactly this world already.
        images: number of images, at least two per action.
        seed: seed of the world, at least 0.
        size: width and height of each image in pixels.
        progress: function that is called with (images done, total images).

    Raises:
        ValueError: a number is out of range, or the directory holds something else.
        OSError: the files cannot be written; nothing is left behind.
    """
    check_numbers(images, seed, size=size)
    info = {
        "description": DESCRIPTION,
        "version": VERSION,
        "style": "hico",
        "seed": seed,
        "images": images,
        "size": size,
    }

    def fill(world: Path) -> None:
        known = Annotations()
        names: dict[str, list[str]] = {"train": [], "test": []}
        columns: dict[str, list[Array]] = {"train": [], "test": []}
        poses = []
        for part in names:
            (world / "images" / f"{part}2015").mkdir(parents=True)
        for index in range(images):
            plan, phases = compose_crowd(seed, index, size)
            scene = draw(plan)
            part = "test" if is_validation(index, TEST_FRACTION) else "train"
            name = f"HICO_{part}2015_{len(names[part]) + 1:08d}"
            scene.image.save(world / "images" / f"{part}2015" / f"{name}.jpg", quality=QUALITY)
            poses.append(f"keypoints/{part}2015/{name}.json")
            write_bodies(world / poses[-1], map(detections, scene.people))
            names[part].append(f"{name}.jpg")
            columns[part].append(labels(scene, phases))
            known.add(f"images/{part}2015/{name}.jpg", scene, sorted(phases))
            if progress is not None:
                progress(index + 1, images)
        _write_mat(world / "anno.mat", names, columns)
        known.write(world, info, FILES + poses)

    make_world(directory, info, images, fill, progress)


def _write_mat(path: Path, names: dict[str, list[str]], columns: dict[str, list[Array]]) -> None:
    actions = [{"nname": it.object, "vname": it.verb, "vname_ing": it.verb_ing} for it in INTERACTIONS]
    content: dict[str, Any] = {"list_action": struct(actions).T}
    for part in names:
        content[f"anno_{part}"] = np.stack(columns[part], axis=1)
        content[f"list_{part}"] = cells(names[part])
    save_mat(path, content)
