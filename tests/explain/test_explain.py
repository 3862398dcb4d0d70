"""Panels of maps for the user's own photos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import HEIGHT, WIDTH, write_clip
from command_line import attnpool
from networks import arguments
from PIL import Image, ImageOps

from attnpool.data import segment_positions
from attnpool.evaluation.predict import predict
from attnpool.explain.explain import explain_files, require_apart
from attnpool.models.recognizer import Recognizer
from attnpool.models.run import Run, save_run


@pytest.fixture(scope="module")
def model(run: Path) -> Recognizer:
    return Run.load(run).model


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    """640 x 427 pixels of a temple."""
    from sklearn.datasets import load_sample_image

    return Image.fromarray(load_sample_image("china.jpg"))


def test_a_photo(run: Path, photo: Image.Image, tmp_path: Path) -> None:
    photo.save(tmp_path / "china.jpg")
    (found,) = attnpool("explain", run, tmp_path / "china.jpg", "--out", tmp_path / "a" / "b", "--json").value()
    assert set(found) == {"file", "panel", "best", "chosen", "peak", "maps", "predictions"}
    assert found["panel"] == str(tmp_path / "a" / "b" / "china.png")
    assert found["best"] == found["predictions"][0]["label"]
    assert found["chosen"] == found["predictions"][1]["label"]
    with Image.open(found["panel"]) as panel:
        panel.load()
        assert panel.format == "PNG"
        assert 700 < panel.width < 800  # image, bottom-up and the difference side by side
        assert 200 < panel.height < panel.width / 2
        assert np.asarray(panel.convert("L")).std() > 10
    wide = attnpool("explain", run, tmp_path / "china.jpg", "--out", tmp_path / "c", "--json", "--class", found["best"])
    assert wide.value()[0]["chosen"] == found["best"]
    with Image.open(tmp_path / "c" / "china.png") as same:
        assert 900 < same.width < 1100  # the maps of this class alone
    plain = attnpool("explain", run, tmp_path / "china.jpg", "--out", tmp_path / "d", "--json", "--plain").value()
    with Image.open(tmp_path / "d" / "china.png") as both:
        assert 1600 < both.width < 1800  # those of both classes, and their difference
    assert plain[0]["maps"] == found["maps"]
    maps = {name: np.array(values) for name, values in found["maps"].items()}
    assert np.array_equal(maps["difference"], maps["best"] - maps["chosen"])
    (prediction,) = predict(run, [tmp_path / "china.jpg"], top=14, maps=True)
    classes, logits = Run.load(run).model.classes, prediction.pooled.logits[0]
    for name in ("best", "chosen"):
        assert maps[name].sum() == pytest.approx(float(logits[classes.index(found[name])]), abs=1e-4)


def test_sigmoids_do_not_decide_by_differences(model: Recognizer, photo: Image.Image, tmp_path: Path) -> None:
    photo.resize((64, 48)).save(tmp_path / "p.png")
    several = Recognizer(model.backbone, classes=["b", "a"], preprocessing=model.preprocessing, task="multi").eval()
    (found,) = explain_files(several, [tmp_path / "p.png"], out=tmp_path / "out")
    with Image.open(found["panel"]) as panel:
        assert panel.width > 1600
    with pytest.raises(ValueError, match="plain would change nothing"):
        explain_files(several, [tmp_path / "p.png"], out=tmp_path / "other", plain=True)
    assert not (tmp_path / "other").exists()


def test_the_chosen_class(model: Recognizer, photo: Image.Image, tmp_path: Path) -> None:
    photo.resize((90, 60)).save(tmp_path / "p.png")
    for name in (model.classes[3], model.classes[-1]):
        (found,) = explain_files(model, [tmp_path / "p.png"], out=tmp_path / "out", class_=name)
        assert found["chosen"] == name
    with pytest.raises(ValueError, match=r"unknown class 'flying': use one of .*calling"):
        explain_files(model, [tmp_path / "p.png"], out=tmp_path / "other", class_="flying")
    assert not (tmp_path / "other").exists()


def test_photos_of_the_same_name(model: Recognizer, photo: Image.Image, tmp_path: Path) -> None:
    names = ("a/p.png", "b/p.png", "b/p.jpg", "b/p-2.png")
    for angle, name in enumerate(names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        photo.resize((60, 60)).rotate(90 * angle).save(tmp_path / name)
    found = explain_files(model, [tmp_path / name for name in names], out=tmp_path / "out")
    panels = [Path(item["panel"]) for item in found]
    assert [item["file"] for item in found] == [str(tmp_path / name) for name in names]
    assert len(set(panels)) == len({path.read_bytes() for path in panels}) == 4
    assert sorted(panels) == sorted((tmp_path / "out").iterdir())


def test_photos_stay_and_a_panel_replaces_only_its_own(model: Recognizer, photo: Image.Image, tmp_path: Path) -> None:
    photo.resize((60, 60)).save(tmp_path / "p.png")
    before = (tmp_path / "p.png").read_bytes()

    def panel(**options: Any) -> str:
        (found,) = explain_files(model, [tmp_path / "p.png"], out=tmp_path, **options)
        return Path(found["panel"]).name

    assert [panel(), panel(), panel(plain=True), panel()] == ["p-2.png", "p-2.png", "p-3.png", "p-2.png"]
    assert (tmp_path / "p.png").read_bytes() == before
    with pytest.raises(ValueError, match="is the folder of the images"):
        require_apart(tmp_path, [tmp_path / "p.png", tmp_path])
    with pytest.raises(ValueError, match="is a file; give a new folder"):
        require_apart(tmp_path / "p.png", [tmp_path / "p.png"])


def test_what_cannot_be_read_does_not_stop_the_others(model: Recognizer, photo: Image.Image, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no image")
    photo.resize((60, 60)).save(tmp_path / "b.png")
    (tmp_path / "c.png").touch()
    found = explain_files(model, [tmp_path / name for name in ("a.png", "b.png", "c.png")], out=tmp_path / "out")
    assert [Path(item["file"]).name for item in found] == ["b.png"]
    assert [Path(file).name for file, _ in found.failed] == ["a.png", "c.png"]
    assert [item.get("error") for item in found.to_json()] == [None, *found.problems]
    with pytest.raises(ValueError, match=r"a\.png: .*; .*c\.png: "):
        explain_files(model, [tmp_path / "a.png", tmp_path / "c.png"], out=tmp_path / "out")


@pytest.mark.parametrize(
    ("size", "orientation"),
    [((300, 90), 1), ((90, 300), 1), ((300, 90), 6), ((90, 300), 8), ((70, 70), 3), ((1, 1), 1)],
)
def test_the_peak_lies_in_the_part_that_was_seen(
    model: Recognizer, photo: Image.Image, tmp_path: Path, size: tuple[int, int], orientation: int
) -> None:
    stored = photo.resize(size)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "p.png", exif=exif)
    upright = ImageOps.exif_transpose(Image.open(tmp_path / "p.png"))
    upright.info = {}
    upright.save(tmp_path / "upright.png", exif=Image.Exif())
    model.preprocessing |= {"view": "crop"}
    found, same = explain_files(model, [tmp_path / "p.png", tmp_path / "upright.png"], out=tmp_path / "out")
    width, height = upright.size
    x, y = found["peak"]
    short = min(width, height)
    assert abs(x - width / 2) < short / 2  # in the middle square, in pixels of the upright image
    assert abs(y - height / 2) < short / 2
    assert (found["peak"], found["predictions"]) == (same["peak"], same["predictions"])


def test_the_peak_is_where_the_map_is_highest(model: Recognizer, photo: Image.Image, tmp_path: Path) -> None:
    """A 3 x 3 map of a square photo: the peak is the centre of one of nine cells."""
    photo.crop((0, 0, 420, 420)).save(tmp_path / "p.png")
    (found,) = explain_files(model, [tmp_path / "p.png"], out=tmp_path / "out")
    assert {round((v / 420) * 6, 3) % 2 for v in found["peak"]} == {1.0}


@pytest.mark.parametrize("options", [{"pooling": "average"}, {"pooling": "max"}, {"rank": 3, "per_class": True}])
def test_other_heads(model: Recognizer, photo: Image.Image, tmp_path: Path, options: dict[str, Any]) -> None:
    photo.resize((64, 48)).save(tmp_path / "p.png")
    other = Recognizer(
        model.backbone, classes=["b", "a"], preprocessing=model.preprocessing, **arguments(options)
    ).eval()
    (found,) = explain_files(other, [tmp_path / "p.png"], out=tmp_path / "out")
    assert {found["best"], found["chosen"]} == {"a", "b"}
    with Image.open(found["panel"]) as panel:
        panel.load()


def test_a_clip(run: Path, tmp_path: Path) -> None:
    write_clip(tmp_path / "a.b.avi", 12)
    model = Run.load(run).model
    model.preprocessing |= {"frames": 7, "view": "crop"}
    found, same = explain_files(model, [tmp_path / "a.b.avi", tmp_path / "a.b.avi"], out=tmp_path / "out")
    assert set(found) == {"file", "panel", "best", "chosen", "peak", "frame", "maps", "predictions"}
    assert [Path(item["panel"]).name for item in (found, same)] == ["a.b.png", "a.b.png"]
    (prediction,) = predict(model, [tmp_path / "a.b.avi"], top=1, maps=True)
    assert prediction.pooled.combined is not None
    maps = prediction.pooled.combined[0, :, model.classes.index(found["best"])]
    assert float(maps.sum()) == pytest.approx(float(prediction.pooled.logits.max()), abs=1e-4)
    t, row, column = np.unravel_index(int(maps.argmax()), maps.shape)
    assert found["frame"] == segment_positions(12, 7)[t] + 1
    side, left = HEIGHT, (WIDTH - HEIGHT) / 2  # the middle square of the frame
    expected = [left + (column + 0.5) * side / maps.shape[2], (row + 0.5) * side / maps.shape[1]]
    assert found["peak"] == pytest.approx(expected, abs=0.1)
    with Image.open(found["panel"]) as panel:
        panel.load()
        assert 1200 < panel.width < 1400  # five frames, and a column of text
        assert 400 < panel.height < panel.width
    value = attnpool("explain", run, tmp_path / "a.b.avi", "--out", tmp_path / "b", "--json", "--class", found["best"])
    with Image.open(value.value()[0]["panel"]) as one, Image.open(found["panel"]) as two:
        assert one.height < two.height  # one class, shown once


@pytest.mark.parametrize(
    "options",
    [
        {"pooling": "compact_bilinear", "signed_sqrt": True, "dim": 64},
        {"pooling": "covariance", "channels": 8},
        {"pooling": "netvlad", "clusters": 4},
    ],
)
def test_a_score_with_a_normaliser_has_maps(
    model: Recognizer, photo: Image.Image, tmp_path: Path, options: dict[str, Any]
) -> None:
    photo.resize((64, 48)).save(tmp_path / "p.png")
    write_clip(tmp_path / "c.avi", 3)
    other = Recognizer(
        model.backbone, classes=["b", "a"], preprocessing=model.preprocessing | {"frames": 2}, **arguments(options)
    )
    save_run(other, tmp_path / "run")
    words = ("explain", tmp_path / "run", tmp_path / "p.png", tmp_path / "c.avi", "--out", tmp_path / "out")
    for item in attnpool(*words, "--json").value():
        assert "note" not in item
        assert len(item["peak"]) == 2
        with Image.open(item["panel"]) as panel:
            panel.load()


def test_instances_are_named(model: Recognizer, photo: Image.Image, tmp_path: Path) -> None:
    photo.resize((64, 48)).save(tmp_path / "p.png")
    other = Recognizer(model.backbone, classes=["b", "a"], preprocessing=model.preprocessing, instances="boxes").eval()
    (found,) = explain_files(other, [tmp_path / "p.png"], out=tmp_path / "out")
    assert "scored as a whole" in found["note"]
    assert Path(found["panel"]).exists()


def test_nothing_is_written_if_nothing_can_be_read(model: Recognizer, photo: Image.Image, tmp_path: Path) -> None:
    photo.resize((64, 48)).save(tmp_path / "p.png")
    (tmp_path / "q.png").write_bytes((tmp_path / "p.png").read_bytes()[:500])
    with pytest.raises(ValueError, match=r"q\.png: cannot be read as an image"):
        explain_files(model, [tmp_path / "q.png"], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
