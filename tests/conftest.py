"""What all tests share: no time limit for an example of a property (the machine may be busy), one thread
unless the environment asks for more.

And for those of the command line: a cache of their own, a small world, and a run on it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import attnpool
from filelock import FileLock
from hypothesis import HealthCheck, settings
from PIL import Image

# The same examples in every run: a failure is one of the change at hand, and is there again in the next run.
settings.register_profile(
    "attnpool", deadline=None, max_examples=30, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("attnpool")
# Small tensors: threads would only wait for each other. More are asked for to see that no test depends on them.
torch.set_num_threads(int(os.environ.get("ATTNPOOL_TEST_THREADS", "1")))
# torch.compile keeps what it compiled from run to run, and code for AVX2 does not compile with the flags for less.
CAPABILITY = os.environ.get("ATEN_CPU_CAPABILITY")
if CAPABILITY:
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path(tempfile.gettempdir(), f"torchinductor-{CAPABILITY}")))


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of features of all tests; the user's own is never touched."""
    before = os.environ.get("ATTNPOOL_CACHE")
    folder = tmp_path_factory.mktemp("cache")
    os.environ["ATTNPOOL_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["ATTNPOOL_CACHE"]
    else:
        os.environ["ATTNPOOL_CACHE"] = before


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """`shared(name, make)` is a folder that all workers of pytest-xdist share: the first calls `make(folder)`."""
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    root.mkdir(exist_ok=True)

    def made(name: str, make: Callable[[Path], object]) -> Path:
        folder, ready = root / name, root / f"{name}.ready"
        with FileLock(root / f"{name}.lock"):
            if not ready.exists():
                make(folder)
                ready.touch()
        return folder

    return made


@pytest.fixture(scope="session")
def world(shared: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """A playground of 28 images to train on and 14 to validate, 14 classes, 96 px. Not to be changed."""
    return shared(
        "play", lambda folder: attnpool("playground", folder, "--images", 42, "--seed", 1, "--size", 96).text()
    )


@pytest.fixture(scope="session")
def command(world: Path) -> list[str]:
    """The command that makes `run`."""
    return ["train", f"folder:{world}", "--out", str(world.with_name("run")), "--image-size", "96", "--epochs", "4"]


@pytest.fixture(scope="session")
def run(command: list[str], shared: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """The folder of a finished run on the world. Not to be changed."""
    return shared("run", lambda folder: attnpool(*command).text())


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Six noisy images of each of two classes, without a split."""
    root = tmp_path / "photos"
    for number, name in enumerate(f"{c}/{i}.jpg" for c in ("calling", "drinking") for i in range(6)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng([7, number]).integers(0, 256, (8, 10, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((80, 64)).save(root / name)
    return root
