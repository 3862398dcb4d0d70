"""The authors' keypoint files: OpenPose's detections as JSON, with one file per image or frame.

A file holds `{"bodies": [{"joints": [x, y, score, x, y, score, ...]}, ...]}`, in pixels of the upright image on disk,
with `0, 0, 0` for a joint that was not found. The number of joints determines their order: 18 are OpenPose's COCO set
(`OPENPOSE_JOINTS`, with the neck second and right before left), 17 are COCO's own (`COCO_JOINTS`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attnpool.files import MARK, mark, write_text
from attnpool.keypoints.joints import COCO_JOINTS, MPII_JOINTS, OPENPOSE_JOINTS, Joint, Joints, joint_mapping

_MAPPINGS = {len(names): joint_mapping(names) for names in (OPENPOSE_JOINTS, COCO_JOINTS)}
_TO_OPENPOSE = joint_mapping(OPENPOSE_JOINTS)


def frame_file(folder: str, frame: int) -> str:
    """The file of a frame, counted from 0, in the folder of its clip: `image_00001.json` for the first frame."""
    return f"{folder}/image_{frame + 1:05d}.json"


class _Malformed(Exception):
    pass


def read_openpose(path: Path) -> list[Joints]:
    """Reads the people of an image, each as MPII's 16 joints.

    The neck (if there is one) becomes MPII's upper neck, and the nose its top of the head; pelvis and thorax have no
    counterpart and are `None`. A joint counts as found if its x, y and score are all above 0, as in the released code;
    a body without any such joint is left out.

    Args:
        path: the file. If it is missing, nothing is known about the image, and the result is empty.

    Returns:
        For every person 16 entries `(x, y)` in the order of `MPII_JOINTS`, or `None` where there is no label.

    Raises:
        ValueError: the file cannot be read or is malformed; the message is one line with the file and the problem.
    """
    try:
        return _bodies(json.loads(Path(path).read_bytes()))
    except FileNotFoundError:
        return []
    except OSError as error:
        problem = (error.strerror or str(error)).lower()
    except ValueError as error:  # not UTF-8, not JSON, or an absurdly long number
        problem = f"not JSON: {error}"
    except RecursionError:
        problem = "nested too deeply"
    except _Malformed as error:
        problem = str(error)
    raise ValueError(f"{path}: {problem}; correct the file or remove it")


def write_openpose(path: Path, people: Sequence[Sequence[Joint]], scores: Sequence[Sequence[float]] = ()) -> None:
    """Writes people as OpenPose's 18 joints, in the layout that `read_openpose` reads; the write is atomic.

    Pelvis and thorax are lost, and the top of the head is stored as OpenPose's nose, as in the authors' files. Eyes and
    ears are stored as not found. Coordinates are rounded to 1/100 pixel. A joint whose x or y is not above 0, outside
    the image, is stored as not found, because the format cannot distinguish the two.

    Args:
        path: the file; its folder is made.
        people: for every person 16 entries `(x, y)` in the order of `MPII_JOINTS`, or `None`.
        scores: for every person the confidences of its joints, above 0; 1 for all if left out.

    Raises:
        ValueError: a person does not have 16 entries or scores, or a number is not finite.
    """
    bodies = []
    for number, person in enumerate(people):
        certainty = scores[number] if scores else [1.0] * len(person)
        if len(person) != len(MPII_JOINTS) or len(certainty) != len(MPII_JOINTS):
            raise ValueError(f"a person has {len(person)} joints; give all {len(MPII_JOINTS)}, None where unknown")
        joints = [0.0] * (3 * len(OPENPOSE_JOINTS))
        for joint, score, position in zip(person, certainty, _TO_OPENPOSE, strict=True):
            if joint is None or position is None:
                continue
            if not all(map(math.isfinite, (*joint, score))):
                raise ValueError(f"joint {joint} with score {score} is not finite; give finite numbers")
            x, y = round(joint[0], 2), round(joint[1], 2)
            if x > 0 and y > 0 and score > 0:
                joints[3 * position : 3 * position + 3] = [x, y, max(round(score, 4), 1e-4)]
        bodies.append({"joints": joints})
    write_text(Path(path), json.dumps({MARK: mark(), "bodies": bodies}))


def _bodies(content: Any) -> list[Joints]:
    if not isinstance(content, dict) or not isinstance(content.get("bodies"), list):
        raise _Malformed('there is no list of "bodies"')
    people = []
    for number, body in enumerate(content["bodies"]):
        where = f"body {number}"
        values = body.get("joints") if isinstance(body, dict) else None
        if not isinstance(values, list):
            raise _Malformed(f'{where} has no list of "joints"')
        mapping = _MAPPINGS.get(len(values) // 3)
        if len(values) % 3 or mapping is None:
            counts = " or ".join(str(3 * count) for count in sorted(_MAPPINGS))
            raise _Malformed(f"{where} has {len(values)} numbers instead of {counts} (x, y and score of each joint)")
        if not all(isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 1e9 for v in values):
            raise _Malformed(f"the joints of {where} are not finite numbers")
        found = [
            (float(x), float(y)) if x > 0 and y > 0 and score > 0 else None
            for x, y, score in zip(*[iter(values)] * 3, strict=True)
        ]
        person = tuple(None if position is None else found[position] for position in mapping)
        if any(person):
            people.append(person)
    return people
