"""PNG files say that they are ours, and remain what they were."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from attnpool.explain.png import png
from attnpool.files import is_ours, mark


def test_the_mark_is_a_text_of_the_file(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    words = mark("explain", "photo.jpg")
    data = png(Image.fromarray(pixels), words)
    opened = Image.open(io.BytesIO(data))
    opened.load()
    assert opened.info["Software"] == words
    assert (np.asarray(opened) == pixels).all()
    (tmp_path / "a.png").write_bytes(data)
    assert is_ours(tmp_path / "a.png")
    assert is_ours(tmp_path / "a.png", words)
    assert not is_ours(tmp_path / "a.png", mark("explain", "other.jpg"))
