from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnpool.data.formats.openpose import read_openpose, write_openpose
from attnpool.keypoints import COCO_JOINTS, MPII_JOINTS
from attnpool.keypoints.joints import OPENPOSE_JOINTS

# The released code's table (`../shared/official-code.md` describes it): MPII's joint -> OpenPose's.
OFFICIAL = {9: 0, 8: 1, 12: 2, 11: 3, 10: 4, 13: 5, 14: 6, 15: 7, 2: 8, 1: 9, 0: 10, 3: 11, 4: 12, 5: 13}


def write(file: Path, content: Any) -> Path:
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return file


def body(count: int) -> list[float]:
    """Joint k lies at (10 k + 1, 10 k + 2) with score 0.5."""
    return [value for k in range(count) for value in (10.0 * k + 1, 10.0 * k + 2, 0.5)]


def test_openpose_order_becomes_mpii_order(tmp_path: Path) -> None:
    (person,) = read_openpose(write(tmp_path / "a.json", {"bodies": [{"joints": body(18)}]}))
    assert person == tuple(
        (10.0 * OFFICIAL[j] + 1, 10.0 * OFFICIAL[j] + 2) if j in OFFICIAL else None for j in range(16)
    )
    assert [name for name, joint in zip(MPII_JOINTS, person, strict=True) if joint is None] == ["pelvis", "thorax"]


def test_seventeen_joints_are_cocos(tmp_path: Path) -> None:
    (person,) = read_openpose(write(tmp_path / "a.json", {"bodies": [{"joints": body(17)}]}))
    for name, joint in zip(MPII_JOINTS, person, strict=True):
        source = "nose" if name == "head_top" else name
        k = COCO_JOINTS.index(source) if source in COCO_JOINTS else None
        assert joint == (None if k is None else (10.0 * k + 1, 10.0 * k + 2))


def test_what_was_not_found_has_no_label(tmp_path: Path) -> None:
    joints = body(18)
    for k, values in {2: (0, 0, 0), 3: (5, 5, 0), 4: (-1, 5, 0.9), 5: (5, 0, 0.9), 6: (5, 5, -1)}.items():
        joints[3 * k : 3 * k + 3] = values
    nobody = [0.0] * 54
    only_an_ear = [*nobody[:48], 5, 5, 1, 0, 0, 0]
    bodies = [{"joints": joints}, {"joints": nobody}, {"joints": only_an_ear}]
    (person,) = read_openpose(write(tmp_path / "a.json", {"bodies": bodies}))
    assert [j for j in OFFICIAL if person[j] is None] == [12, 11, 10, 13, 14]


def test_no_file_and_nobody(tmp_path: Path) -> None:
    assert read_openpose(tmp_path / "absent.json") == []
    assert read_openpose(tmp_path / "no" / "folder.json") == []
    assert read_openpose(write(tmp_path / "a.json", {"bodies": []})) == []


@given(
    people=st.lists(
        st.lists(st.none() | st.tuples(st.floats(0.01, 5000), st.floats(0.01, 5000)), min_size=16, max_size=16).filter(
            lambda person: any(person[j] for j in OFFICIAL)
        ),
        max_size=3,
    )
)
def test_written_people_are_read_again(tmp_path_factory: pytest.TempPathFactory, people: list[Any]) -> None:
    file = tmp_path_factory.mktemp("openpose") / "keypoints" / "a.json"
    write_openpose(file, people)
    assert [path.name for path in file.parent.iterdir()] == ["a.json"]
    assert all(len(entry["joints"]) == 54 for entry in json.loads(file.read_text())["bodies"])
    again = read_openpose(file)
    assert len(again) == len(people)
    for person, read in zip(people, again, strict=True):
        for j, (joint, found) in enumerate(zip(person, read, strict=True)):
            assert (found is None) == (joint is None or j not in OFFICIAL)
            if found is not None:
                assert found == pytest.approx(joint, abs=0.0051)


def test_scores_are_written_and_low_ones_stay_above_none(tmp_path: Path) -> None:
    person = [(3.0, 4.0)] * 16
    write_openpose(tmp_path / "a.json", [person], [[0.25] * 15 + [1e-9]])
    joints = json.loads((tmp_path / "a.json").read_text())["bodies"][0]["joints"]
    assert joints[2::3] == [0.25] * 7 + [1e-4] + [0.25] * 6 + [0.0] * 4
    assert OPENPOSE_JOINTS[7] == MPII_JOINTS[15]


def test_outside_on_the_left_or_above_is_not_found(tmp_path: Path) -> None:
    person = [(-3.0, 4.0), (3.0, -4.0), (0.001, 5.0), *[(1.0, 1.0)] * 13]
    write_openpose(tmp_path / "a.json", [person])
    assert [joint is None for joint in read_openpose(tmp_path / "a.json")[0][:4]] == [True, True, True, False]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ([], "bodies"),
        ({"people": []}, "bodies"),
        ({"bodies": {}}, "bodies"),
        ({"bodies": [[]]}, "body 0"),
        ({"bodies": [{"joints": body(18)}, {"joints": "no"}]}, "body 1"),
        ({"bodies": [{"joints": body(18)[:-1]}]}, "53 numbers instead of 51 or 54"),
        ({"bodies": [{"joints": body(25)}]}, "75 numbers"),
        ({"bodies": [{"joints": [*body(17), "x", 1, 1]}]}, "finite"),
        ({"bodies": [{"joints": [*body(17), True, 1, 1]}]}, "finite"),
        ('{{"bodies": [{{"joints": [{}]}}]}}'.format(", ".join(["NaN"] * 54)), "finite"),
        ('{{"bodies": [{{"joints": [{}]}}]}}'.format(", ".join(["1e999"] * 54)), "finite"),
        ('{{"bodies": [{{"joints": [{}]}}]}}'.format(", ".join(["9" * 5000] * 54)), "not JSON"),
    ],
)
def test_malformed_files(tmp_path: Path, content: Any, problem: str) -> None:
    file = write(tmp_path / "broken.json", content)
    with pytest.raises(ValueError) as caught:
        read_openpose(file)
    message = str(caught.value)
    assert message.startswith(f"{file}: ")
    assert problem in message
    assert "\n" not in message


def test_bytes_that_are_no_text_and_folders(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"\xff\xfe\xff")
    for path in (tmp_path / "a.json", tmp_path):
        with pytest.raises(ValueError, match="correct the file"):
            read_openpose(path)


@pytest.mark.parametrize(
    "people", [[[None] * 15], [[(math.nan, 1.0), *[None] * 15]], [[(1.0, math.inf), *[None] * 15]]]
)
def test_people_that_cannot_be_written(tmp_path: Path, people: Any) -> None:
    with pytest.raises(ValueError):
        write_openpose(tmp_path / "a.json", people)
    assert list(tmp_path.iterdir()) == []
