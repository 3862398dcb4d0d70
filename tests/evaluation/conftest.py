"""What tests of evaluation share."""

from __future__ import annotations

from pathlib import Path

import pytest
from clips import numbered, write_clip

from attnpool.data.decoding.video import read_frames


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip, its frames as images, and one of them alone. Not to be changed."""
    root = tmp_path_factory.mktemp("files")
    clip = write_clip(root / "clip.avi", 12)
    (root / "clip.frames").mkdir()
    for i, frame in enumerate(read_frames(clip, range(12))):
        frame.save(root / "clip.frames" / f"image_{i + 1:05d}.png")
    numbered(5).save(root / "photo.png")
    return root
