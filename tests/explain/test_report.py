from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from attnpool.explain.plots import comparison_plot
from attnpool.explain.png import png
from attnpool.explain.report import write_report

NASTY = '<script>alert("1")</script> & $x^2$'
RESULTS = {
    "seeds": [0, 1, 2],
    "heads": {
        "average": {"mAP": [0.62, 0.63, 0.61], "accuracy": [0.5, 0.5, 0.5], "pointing": [None, None, None]},
        NASTY: {"mAP": [0.79, 0.80, 0.81], "accuracy": [0.4, 0.5, 0.6], "pointing": [0.5, float("nan"), 0.7]},
    },
    "seconds": 125.4,
}


class Page(HTMLParser):
    """What a page shows and what it asks for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.images: list[dict] = []
        self.text = ""
        self.cells: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)
        values = dict(attrs)
        self.links += [values[key] for key in ("src", "href", "action", "data", "srcset") if key in values]
        if tag == "img":
            self.images.append(values)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.cells and self.tags[-1] in ("td", "th", "span"):
            self.cells[-1] = (self.cells[-1] + " " + data.strip()).strip()


def image(colour: str = "red") -> bytes:
    return png(Image.new("RGB", (60, 40), colour))


def write(path: Path, results: dict = RESULTS) -> tuple[str, Page]:
    write_report(
        path,
        results,
        title=NASTY,
        intro="First.\n\nSecond <b>paragraph</b>.",
        plots=[(f"plot of {NASTY}", image())],
        panels=[("maps", image("blue")), ("more maps", image("green"))],
        command="attnpool quickstart --out <here>",
    )
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


def test_report_holds_everything_it_shows(tmp_path: Path) -> None:
    text, page = write(tmp_path / "new" / "report.html")
    assert len(page.images) == 3
    assert len(page.links) == 3
    for image in page.images:
        kind, data = image["src"].split(",", 1)
        assert kind == "data:image/png;base64"
        with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as decoded:
            assert decoded.format == "PNG"
            decoded.load()
        assert image["alt"]
    assert not re.search(r"https?://|@import|url\(", text)
    assert "script" not in page.tags
    assert "b" not in page.tags
    assert NASTY in page.text
    assert "attnpool quickstart --out <here>" in page.text
    assert "2 min 5 s" in page.text
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["report.html"], "no temporary file stays"


def test_table(tmp_path: Path) -> None:
    _, page = write(tmp_path / "report.html")
    rows = [page.cells[i : i + 4] for i in range(0, len(page.cells), 4)]
    assert rows[0] == ["Pooling", "mAP", "Accuracy", "Pointing"]
    assert rows[1][1:] == ["62.0 ± 1.0", "50.0 ± 0.0", "–"]
    assert rows[2][1:] == ["80.0 ± 1.0", "50.0 ± 10.0", "60.0 ± 14.1"]
    assert "over 3 seeds" in page.text


def test_one_seed_has_no_spread(tmp_path: Path) -> None:
    results = {"seeds": [4], "heads": {"average": {"mAP": [0.5], "accuracy": [None]}}}
    _, page = write(tmp_path / "report.html", results)
    assert page.cells == ["Pooling", "mAP", "average", "50.0"]
    assert "one seed" in page.text


def test_a_failed_report_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write(path)
    before = path.read_bytes()
    with pytest.raises(OSError):
        write_report(path, RESULTS, title="t", intro="i", plots=[("broken", b"no image")], command="c")
    assert path.read_bytes() == before
    directory = tmp_path / "taken"
    directory.mkdir()
    with pytest.raises(OSError):
        write_report(directory, RESULTS, title="t", intro="i", command="c")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.html", "taken"]


@pytest.mark.parametrize("k", [1, 14, 90])
def test_comparison_plot(k: int) -> None:
    random = np.random.default_rng(k)
    per_class = {
        head: random.random((3, k)) for head in ("average", "attentional", "a head of a long name $y$", "pose")
    }
    if k > 1:
        for values in per_class.values():
            values[:, 0] = np.nan
    drawn = comparison_plot(per_class, [NASTY, *(f"class {i}" for i in range(k))][:k])
    with Image.open(io.BytesIO(drawn)) as image:
        pixels = np.asarray(image.convert("L"))
    for edge in (pixels[:4], pixels[-4:], pixels[:, :4], pixels[:, -4:]):
        assert edge.min() == 255, "nothing is cut off at the edge"


def test_comparison_of_nothing_is_named() -> None:
    with pytest.raises(ValueError, match="nothing to compare"):
        comparison_plot({}, ["a"])
    with pytest.raises(ValueError, match="no class"):
        comparison_plot({"average": np.full((2, 1), np.nan)}, ["a"])
