"""Damaged files by the thousand: no crash, no hang, no silent use, at most 2 GB.

.venv/bin/python -m pytest tests/reliability/test_damaged_files.py -o addopts= -s

Every file is read in a process of its own kind, which the test's process watches: a file that takes more than 20
seconds, ends the process, or raises anything but the error for bad input fails the test.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import shutil
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
import torch
from clips import write_clip
from command_line import attnpool
from PIL import Image, ImageCms

import attnpool as ap
from attnpool.data import load, read_splits
from attnpool.data.decoding.image import read_image
from attnpool.data.decoding.video import read_clip
from attnpool.data.formats.coco import read_marks
from attnpool.data.formats.openpose import read_openpose
from attnpool.data.preprocessing import Preprocessing
from attnpool.data.shards.write import shard
from attnpool.features.store import FeatureStore

SECONDS = 20
LARGEST = 2 * 2**20  # KiB of memory


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """Some bits or bytes are others, a part is missing, doubled, or zero; or the end is cut off."""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 6))):
        if not data:
            break
        at, length = int(rng.integers(len(data))), int(rng.integers(1, 2 + len(data) // 8))
        kind = int(rng.integers(7))
        if kind == 0:
            data[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            data[at : at + 4] = rng.bytes(4)
        elif kind == 2:
            del data[at : at + length]
        elif kind == 3:
            data[at:at] = data[at : at + length]
        elif kind == 4:
            data[at : at + length] = bytes(length)
        elif kind == 5:
            del data[at:]
        else:  # a number or a word of a text
            data[at : at + 1] = rng.choice([b"9", b"-", b"e", b'"', b"[", b"}", b"null", b"NaN", b"\xff", b"1e999"])
    return bytes(data)


def work(connection: Connection, read: Callable[[Any], None]) -> None:
    torch.set_num_threads(1)
    while (given := connection.recv()) is not None:
        try:
            read(given)
            answer = "read"
        except ValueError as error:
            answer = "refused" if len(str(error).splitlines()) == 1 else f"several lines: {error}"
        except BaseException as error:
            answer = f"{type(error).__name__}: {error}"
        connection.send((answer, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))


def watch(read: Callable[[Any], None], given: list[Any], title: str) -> dict[str, int]:
    """Reads all, in a process that is watched; returns how many were read and how many refused."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=work, args=(theirs, read))
    process.start()
    theirs.close()
    found = {"read": 0, "refused": 0}
    largest = 0
    for item in given:
        ours.send(item)
        assert ours.poll(SECONDS), f"still reading after {SECONDS} s: {item}"
        answer, largest = ours.recv()  # EOFError, if the process has crashed
        assert answer in found, (answer, item)
        found[answer] += 1
    ours.send(None)
    process.join()
    assert largest < LARGEST
    print(f"{title}: {len(given)}, {found}, {largest // 1024} MiB at most", file=sys.__stderr__)
    return found


def variants(sources: list[Path], count: int, folder: Path, seed: int) -> list[Path]:
    folder.mkdir(exist_ok=True)
    made = []
    for number in range(count):
        source = sources[number % len(sources)]
        made.append(folder / f"{number}{source.suffix}")
        made[-1].write_bytes(damaged(source.read_bytes(), np.random.default_rng([seed, number])))
    return made


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("originals")
    noise = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((90, 70))
    exif = Image.Exif()
    exif[0x0112] = 6
    pillow_heif.from_pillow(image).save(root / "a.heic", quality=80)
    image.save(root / "g.jpg", icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for suffix in ("jpg", "png", "webp", "avif", "jp2", "bmp", "gif", "tif", "ppm"):
        image.save(root / f"a.{suffix}", **({"exif": exif} if suffix in ("jpg", "png", "webp") else {}))
    image.convert("L").save(root / "b.pgm")
    image.convert("RGBA").save(root / "c.png")
    image.save(root / "d.jpg", progressive=True)
    image.save(root / "e.gif", save_all=True, append_images=[image.rotate(90)])
    image.save(root / "f.tif", compression="tiff_lzw")
    return sorted(root.iterdir())


@pytest.mark.timeout(3000)
def test_images(originals: list[Path], tmp_path: Path) -> None:
    def read(path: Path) -> None:
        image = read_image(path)
        assert image.mode == "RGB"
        np.asarray(image)

    found = watch(read, variants(originals, 5000, tmp_path / "files", 1), "images")
    assert min(found.values()) > 250


@pytest.mark.timeout(3000)
def test_clips(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (64, 48), (9 * i, 40, 90)) for i in range(12)]
    sources = []
    for suffix, codec in (("avi", "mjpeg"), ("mp4", "mpeg4"), ("mkv", "mpeg4"), ("mov", "mjpeg")):
        sources.append(tmp_path / f"clip.{suffix}")
        write_clip(sources[-1], frames, codec)
    frames[0].save(tmp_path / "clip.gif", save_all=True, append_images=frames[1:])

    def read(path: Path) -> None:
        count, images, _ = read_clip(path, lambda count: [0, count // 2, count - 1])
        assert count >= 1
        assert len(images) == 3

    found = watch(read, variants([*sources, tmp_path / "clip.gif"], 2000, tmp_path / "files", 2), "clips")
    assert min(found.values()) > 100


@pytest.mark.timeout(3000)
def test_annotations_and_tables(world: Path, tmp_path: Path) -> None:
    """COCO files, OpenPose files, HMDB51's lists and a recipe."""
    small = json.loads((world / "annotations.json").read_text(encoding="utf-8"))
    small["images"], small["annotations"] = small["images"][:3], small["annotations"][:6]
    sources = {
        "annotations.json": json.dumps(small),
        "openpose.json": json.dumps({"version": 1.3, "people": [{"pose_keypoints_2d": [1.5, 2.5, 0.9] * 25}]}),
        "recipe.yaml": "pooling: attentional\nrank: 2\nlr: 1e-3\nimage-size: 448\nflip: 0.5\n",
        "wave_test_split1.txt": "".join(f"clip_{i}.avi {i % 3} \n" for i in range(20)),
    }
    for name, text in sources.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    places = variants([tmp_path / name for name in sources], 2000, tmp_path / "files", 3)

    def read(path: Path) -> None:
        number = int(path.stem) % len(sources)
        if number == 0:
            shutil.copy(path, tmp_path / "files" / "annotations.json")
            read_marks(tmp_path / "files")
        elif number == 1:
            read_openpose(path)
        elif number == 2:
            from attnpool.training.config import typed_options
            from attnpool.training.recipe import read_recipe

            typed_options(read_recipe(path).options, str(path))
        else:
            root = tmp_path / "hmdb51"
            for name in ("wave", "run"):
                (root / name).mkdir(parents=True, exist_ok=True)
                (root / name / "clip_1.avi").touch()
                shutil.copy(tmp_path / "wave_test_split1.txt", root / f"{name}_test_split1.txt")
            shutil.copy(path, root / "wave_test_split1.txt")
            ap.read(f"hmdb51:{root}")

    found = watch(read, places, "annotations and tables")
    assert min(found.values()) > 100


@pytest.mark.timeout(3000)
def test_run_folders(world: Path, tmp_path: Path) -> None:
    """One of their files is damaged; nothing else than the undamaged model is ever loaded."""
    out = tmp_path / "run"
    words = ["--backbone", "test_resnet", "--weights", "random", "--no-freeze-backbone", "--image-size", 64]
    attnpool("train", f"folder:{world}", "--out", out, "--epochs", 1, *words).text()
    good = ap.Run.load(out)
    expected = {name: tensor.clone() for name, tensor in good.model.state_dict().items()}
    about = json.loads((out / "run.json").read_text(encoding="utf-8"))
    names = ("run.json", "model.safetensors", "best.safetensors")

    def read(number: int) -> None:
        copy, name = tmp_path / "copy", names[number % len(names)]
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(out, copy)
        content = (out / name).read_bytes()
        changed = damaged(content, np.random.default_rng([4, number]))
        (copy / name).write_bytes(changed)
        run = ap.Run.load(copy, best=name == "best.safetensors")
        same = changed == content
        if name == "run.json":  # blanks, and the order of keys, may be others
            assert json.loads(changed) == about, "silently used"
        else:
            assert same, "silently used"
        if name != "best.safetensors":
            assert all(torch.equal(expected[key], tensor) for key, tensor in run.model.state_dict().items())

    found = watch(read, list(range(1000)), "run folders")
    assert found["refused"] > 900


@pytest.mark.timeout(3000)
def test_shards(world: Path, tmp_path: Path) -> None:
    """A shard, its index, or one without an index; with an index every sample is what was written, or is left out."""
    shard(f"folder:{world}", tmp_path / "shards", per_shard=7)
    names = ("index.jsonl", "train-000001.tar", "train-000001.tar")
    options, original = Preprocessing(image_size=32), read_splits(f"wds:{tmp_path / 'shards'}")["train"]
    order = [list(range(len(original)))]
    (expected,) = load(original, options, order, seed=0, epoch=0, train=False)

    def read(number: int) -> None:
        copy, name = tmp_path / "copy", names[number % len(names)]
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(tmp_path / "shards", copy)
        content = damaged((copy / name).read_bytes(), np.random.default_rng([6, number]))
        if number % 2:  # of the same size, as after a fault of the disk
            content = content[: (copy / name).stat().st_size].ljust((copy / name).stat().st_size, b"\0")
        (copy / name).write_bytes(content)
        if number % len(names) == 2:
            (copy / "index.jsonl").unlink()
            (copy / ".attnpool.json").unlink()
        found = read_splits(f"wds:{copy}")["train"]
        (batch,) = load(found, options, [list(range(len(found)))], seed=0, epoch=0, train=False)
        if number % len(names) != 2:
            assert found.samples == original.samples, "silently used"
            assert batch.pixels.equal(expected.pixels[batch.indices]), "silently used"

    found = watch(read, list(range(1000)), "shards")
    assert min(found.values()) > 100


@pytest.mark.timeout(3000)
def test_caches(tmp_path: Path) -> None:
    """Whatever is damaged, a row that is served is the row that was written."""
    folder = tmp_path / "store"
    digests = [f"{i:032x}" for i in range(20)]
    rows = np.random.default_rng(0).standard_normal((20, 3, 3, 16)).astype(np.float16)
    with FeatureStore(folder).claim(digests) as writer:
        assert writer is not None
        writer.write(rows, digests, np.random.default_rng(1).random((20, 2, 3)), [0] * 20)
    _arrays, known = FeatureStore(folder).read(digests)
    matrices = {digest: row.matrix for digest, (_, row) in known.items()}
    files = sorted(path for path in folder.iterdir() if path.suffix in (".f16", ".jsonl"))

    def read(number: int) -> None:
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder, copy)
        file = copy / files[number % 2].name
        file.write_bytes(damaged(file.read_bytes(), np.random.default_rng([5, number])))
        arrays, found = FeatureStore(copy).read(digests)
        for digest, (array, row) in found.items():
            assert np.array_equal(arrays[array][row.number], rows[digests.index(digest)]), "silently used"
            assert (row.matrix, row.frames) == (matrices[digest], 0), "silently used"

    assert len(known) == 20
    watch(read, list(range(500)), "caches")
