"""What all formats of the playground have in common: everything or nothing, the same again, refusals."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from attnpool.playground import CLASSES, STYLES, write_playground
from attnpool.playground.playground import CLIPS, IMAGES
from attnpool.playground.write_folder import write_folder
from attnpool.playground.write_hico import write_hico
from attnpool.playground.write_hmdb51 import write_hmdb51
from attnpool.playground.write_mpii import write_mpii

WRITERS: dict[str, Any] = {"folder": write_folder, "mpii": write_mpii, "hico": write_hico, "hmdb51": write_hmdb51}
COUNTS = {"folder": 28, "mpii": 42, "hico": 28, "hmdb51": 28}
MORE: dict[str, dict[str, int]] = {style: {"frames": 2} if style == "hmdb51" else {"size": 64} for style in COUNTS}
styles = pytest.mark.parametrize("style", list(COUNTS))


def contents(directory: Path) -> dict[str, str]:
    return {
        path.relative_to(directory).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.rglob("*")
        if path.is_file()
    }


def write(directory: Path, style: Any, seed: int = 0, **more: Any) -> None:
    WRITERS[style](directory, COUNTS[style], seed, **MORE[style], **more)


def test_every_style_is_tried() -> None:
    assert list(STYLES) == list(COUNTS) == list(WRITERS)
    assert min(IMAGES, CLIPS) >= max(*COUNTS.values(), 10 * len(CLASSES))


@styles
def test_the_function_for_all_styles(style: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "a", style, seed=3)
    made = write_playground(tmp_path / "b", style=style, images=COUNTS[style], seed=3, **MORE[style], progress=True)  # type: ignore[arg-type]
    assert contents(tmp_path / "b") == contents(tmp_path / "a")
    assert f"{COUNTS[style]}/{COUNTS[style]}" in capsys.readouterr().err
    unit = "clips" if style == "hmdb51" else "images"
    expected = {"directory": str(tmp_path / "b"), "style": style, unit: COUNTS[style], "seed": 3, **MORE[style]}
    assert made.to_json() == expected
    assert f"attnpool train {style}:{tmp_path / 'b'}" in str(made)
    again = write_playground(tmp_path / "b", style=style, images=COUNTS[style], seed=3, **MORE[style])  # type: ignore[arg-type]
    assert again == made
    assert capsys.readouterr().err == ""


@styles
def test_a_world_is_made_once_and_recognised(style: str, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    (tmp_path / "a").mkdir()  # an empty directory is filled
    write(tmp_path / "a", style, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, COUNTS[style]) for done in range(1, COUNTS[style] + 1)]
    made = contents(tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    seen.clear()
    write(tmp_path / "a", style, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(COUNTS[style], COUNTS[style])]
    assert times == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(ValueError, match="holds something else"):
        write(tmp_path / "a", style, seed=1)
    for other in COUNTS:
        if other != style:
            with pytest.raises(ValueError, match="holds something else"):
                write(tmp_path / "a", other)
    # A world of which a file has gone is not this world any more; every file counts.
    for name in list(made)[:: max(len(made) // 6, 1)]:
        (tmp_path / "a" / name).rename(tmp_path / "away")
        with pytest.raises(ValueError, match="holds something else"):
            write(tmp_path / "a", style)
        (tmp_path / "away").rename(tmp_path / "a" / name)
    assert contents(tmp_path / "a") == made
    (tmp_path / "a" / "annotations.json").write_text(json.dumps([1]))
    with pytest.raises(ValueError, match="holds something else"):
        write(tmp_path / "a", style)


@styles
def test_an_interruption_leaves_nothing_and_the_next_call_starts_anew(style: str, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == total:  # the last moment before the lists are written
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "a", style, progress=stop)
    assert list(tmp_path.iterdir()) == []


@styles
def test_the_same_numbers_give_the_same_bytes(style: str, tmp_path: Path) -> None:
    write(tmp_path / "a", style)
    write(tmp_path / "b", style)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@styles
def test_refusals_leave_everything_as_it_was(style: str, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    cases: list[tuple[str, int, int, dict[str, int], str]] = [
        ("mine", COUNTS[style], 0, {}, "not empty"),
        ("file", COUNTS[style], 0, {}, "is a file"),
        ("a", COUNTS[style] - 1, 0, {}, "or more"),
        ("a", COUNTS[style], -1, {}, "0 or more"),
        ("a", COUNTS[style], 0, {"frames": 1}, "2 to 3000" if style == "hmdb51" else "no frames"),
        ("a", COUNTS[style], 0, {"size": 10}, "320 x 240" if style == "hmdb51" else "64 to 4096"),
    ]
    for name, count, seed, more, reason in cases:
        with pytest.raises(ValueError, match=reason) as caught:
            write_playground(tmp_path / name, style=style, images=count, seed=seed, **more)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "mine", "photo.txt"]


def test_unknown_style(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="folder, mpii, hico, hmdb51"):
        write_playground(tmp_path / "a", style="coco")  # type: ignore[arg-type]
