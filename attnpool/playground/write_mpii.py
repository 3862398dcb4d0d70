"""Writes a world in the format of MPII Human Pose: images, `mpii_human_pose_v1_u12_1.mat` and the split's lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from attnpool.keypoints.joints import MPII_JOINTS
from attnpool.playground.annotation import DESCRIPTION, VERSION, Annotations
from attnpool.playground.compose import CLASSES, compose
from attnpool.playground.mat import EMPTY, cells, save_mat, struct
from attnpool.playground.raster import Array
from attnpool.playground.scene import Figure, Scene, draw
from attnpool.playground.staging import Progress, make_world
from attnpool.playground.write_folder import QUALITY, check_numbers, is_validation

MAT = "mpii_human_pose_v1_u12_1.mat"
PARTS = ("train", "val", "test")
LISTS = {part: f"images_mpii_{part}.txt" for part in PARTS}
VAL_FRACTION = 0.25
# The coordinate x is x + MATLAB in the file, where the centre of the first pixel is 1.
MATLAB = 0.5
# A separate random stream that decides what the annotations leave out.
OMISSIONS = 15_485_863

# Categories as in MPII's list of activities. An action has different act_ids indoors and outdoors, because in MPII,
# too, several act_ids share a name.
CATEGORIES = {
    "drinking from a mug": "self care",
    "drinking from a bottle": "self care",
    "calling with a phone": "miscellaneous",
    "texting on a phone": "miscellaneous",
    "reading a book": "miscellaneous",
    "carrying a book": "walking",
    "throwing a ball": "sports",
    "kicking a ball": "sports",
    "catching a ball": "sports",
    "playing a guitar": "music playing",
    "carrying a guitar": "walking",
    "swinging a racket": "sports",
    "sweeping with a broom": "home activities",
    "holding an umbrella": "walking",
}


def part_of(index: int) -> str:
    """The split of image `index`: a quarter of them is val and about a sixth test, in whole blocks of K images."""
    if is_validation(index, VAL_FRACTION):
        return "val"
    return "test" if index // len(CLASSES) % 6 == 2 else "train"


def write_mpii(directory: Path, images: int, seed: int, *, size: int = 448, progress: Progress | None = None) -> None:
    """Writes a world in MPII's format below `directory`, either completely or not at all.

    - `images/NNNNNNNNN.jpg`: the images of `render(seed, index, size=size)`, numbered in another order.
    - `mpii_human_pose_v1_u12_1.mat`: the struct RELEASE. It is irregular where the real file is: bystanders have no
      `annopoints`, images of test have no people or only their positions, act_id is -1 and names are empty where labels
      are withheld, joints outside the image are missing, `is_visible` is empty for neck and head.
    - `images_mpii_train.txt`, `images_mpii_val.txt`, `images_mpii_test.txt`: stems, one per line.
    - `annotations.json`: the same annotations as in `write_folder`, also of test.

    As in MATLAB, the centre of the first pixel is (1, 1) in the .mat file; in `annotations.json` it is (0.5, 0.5).

    Args:
        directory: folder to write, which must be new or empty, or hold exactly this world already.
        images: number of images, at least three per class.
        seed: seed of the world, at least 0.
        size: width and height of each image in pixels.
        progress: function that is called with (images done, total images).

    Raises:
        ValueError: a number is out of range, or the directory holds something else.
        OSError: the files cannot be written; nothing is left behind.
    """
    check_numbers(images, seed, blocks=3, size=size)
    info = {
        "description": DESCRIPTION,
        "version": VERSION,
        "style": "mpii",
        "seed": seed,
        "images": images,
        "size": size,
    }

    def fill(world: Path) -> None:
        known = Annotations()
        (world / "images").mkdir()
        entries = []
        for index in range(images):
            plan = compose(seed, index, size)
            scene, part = draw(plan), part_of(index)
            stem = stem_of(seed, index)
            scene.image.save(world / "images" / f"{stem}.jpg", quality=QUALITY)
            known.add(f"images/{stem}.jpg", scene, scene.label)
            rng = np.random.default_rng([seed, index, OMISSIONS])
            entries.append((stem, part, _annorect(scene, part, rng), _act(scene.label, part, plan.place.indoor)))
            if progress is not None:
                progress(index + 1, images)
        entries.sort(key=lambda entry: entry[0])
        for part, name in LISTS.items():
            text = "".join(f"{stem}\n" for stem, where, _, _ in entries if where == part)
            (world / name).write_text(text, encoding="ascii")
        _write_mat(world / MAT, entries)
        known.write(world, info, [MAT, *LISTS.values()])

    make_world(directory, info, images, fill, progress)


def stem_of(seed: int, index: int) -> str:
    """The stem of an image's file name: nine unique digits as in MPII, in another order than the images."""
    assert index < 10**7
    scattered = (index * 7_368_787 + label_key(seed)) % 10**7
    return f"{scattered:07d}{index % 89 + 10}"


def label_key(seed: int) -> int:
    """The start of the numbers of a world's files."""
    return int(np.random.default_rng([seed, OMISSIONS]).integers(10**7))


def _annorect(scene: Scene, part: str, rng: np.random.Generator) -> Array:
    """The annotated people of an image. In test only their positions are known, in a tenth of the images not even
    those.
    """
    people = sorted(scene.people, key=lambda person: not person.actor)
    if part == "test":
        if rng.random() < 0.1:
            return EMPTY
        return struct([_position(person) for person in people])
    entries = []
    for person in people:
        left_out = not person.actor and rng.random() < 0.4
        points = EMPTY if left_out else _annopoints(person)
        entries.append(_head(person) | {"annopoints": points} | _position(person))
    return struct(entries)


def _position(person: Figure) -> dict[str, Any]:
    """The scale (the person's height in units of 200 px) and the approximate centre of the body."""
    middle = (person.joints[MPII_JOINTS.index("pelvis")] + person.joints[MPII_JOINTS.index("thorax")]) / 2
    x, y = np.round(middle + MATLAB)
    return {"scale": round(person.scale / 200, 4), "objpos": struct([{"x": x, "y": y}])}


def _head(person: Figure) -> dict[str, Any]:
    """MPII's rectangle of the head."""
    neck, top = person.joints[MPII_JOINTS.index("upper_neck")], person.joints[MPII_JOINTS.index("head_top")]
    middle, half = (neck + top) / 2 + MATLAB, float(np.hypot(*(top - neck))) / 2
    corner = np.array([0.75 * half, half])
    (x1, y1), (x2, y2) = np.round(middle - corner), np.round(middle + corner)
    return {"x1": x1, "y1": y1, "x2": x2, "y2": y2}


def _annopoints(person: Figure) -> Array:
    points = []
    for joint, ((x, y), v) in enumerate(zip(person.joints, person.visible, strict=True)):
        if v:
            seen: Any = EMPTY if MPII_JOINTS[joint] in ("upper_neck", "head_top") else float(v == 2)
            points.append(
                {
                    "x": round(float(x) + MATLAB, 2),
                    "y": round(float(y) + MATLAB, 2),
                    "id": float(joint),
                    "is_visible": seen,
                }
            )
    return struct([{"point": struct(points)}]) if points else EMPTY


def _act(label: str, part: str, indoor: bool) -> dict[str, Any]:
    if part == "test":
        return {"cat_name": EMPTY, "act_name": EMPTY, "act_id": -1.0}
    number = 2 * CLASSES.index(label) + (1 if indoor else 2)
    return {"cat_name": CATEGORIES[label], "act_name": label, "act_id": float(number)}


def _write_mat(path: Path, entries: list[tuple[str, str, Array, dict[str, Any]]]) -> None:
    annolist = [
        {"image": struct([{"name": f"{stem}.jpg"}]), "annorect": annorect, "frame_sec": EMPTY, "vididx": EMPTY}
        for stem, _, annorect, _ in entries
    ]
    release = {
        "annolist": struct(annolist),
        "img_train": np.array([[float(part != "test") for _, part, _, _ in entries]]),
        "version": "12",
        "single_person": cells([np.ones((1, 1)) if rects.shape[1] == 1 else EMPTY for _, _, rects, _ in entries]),
        "act": struct([act for _, _, _, act in entries]).T,
        "video_list": cells([""]),
    }
    save_mat(path, {"RELEASE": struct([release])})
