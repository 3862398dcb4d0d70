"""A frozen backbone and the splits of the small world, which the trainings of several files share."""

from __future__ import annotations

from pathlib import Path

import pytest

import attnpool as ap
from attnpool.backbones.backbone import Backbone
from attnpool.data import Dataset


@pytest.fixture(scope="module")
def frozen() -> Backbone:
    return Backbone("lite0", frozen=True)


@pytest.fixture(scope="module")
def parts(world: Path) -> tuple[Dataset, Dataset]:
    return ap.read(f"folder:{world}")
