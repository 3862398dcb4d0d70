from __future__ import annotations

import csv
import io
import os
import re
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
import torch
import torchvision
from PIL import Image, ImageCms, ImageOps

from attnpool.data.decoding.image import IMAGE_SUFFIXES, MAX_PIXELS, UnreadableImage, full_size, is_image, read_image


def sample_image(width: int = 96, height: int = 64, seed: int = 0) -> Image.Image:
    """Smooth colours, which survive lossy formats."""
    coarse = np.random.default_rng([seed]).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def difference(a: Image.Image, b: Image.Image) -> float:
    assert a.size == b.size
    return float(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).mean())


# GIF has 256 colours, many others are lossy; the rest comes back exactly.
LOSSY = {".gif": 12.0, ".webp": 4.0, **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"), 3.0)}
LOSSY |= dict.fromkeys((".avif", ".avifs", ".heic", ".heif", ".hif"), 4.0)


@pytest.mark.parametrize("suffix", [*IMAGE_SUFFIXES, ".JPG", ".HEIC"])
def test_every_format_comes_back(tmp_path: Path, suffix: str) -> None:
    original = sample_image().convert("L") if suffix == ".pgm" else sample_image()
    file = tmp_path / f"a{suffix}"
    if suffix.lower() in (".heic", ".heif", ".hif"):
        pillow_heif.from_pillow(original).save(file, quality=95)
    else:
        original.save(file)
    read = read_image(file)
    assert read.mode == "RGB"
    assert read.info == {}
    assert difference(read, original.convert("RGB")) <= LOSSY.get(suffix.lower(), 0.0)


@pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")  # torchvision is going to give it up
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_against_an_independent_decoder(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    sample_image(211, 133).save(path)
    if not hasattr(torchvision.io, "decode_image"):
        pytest.skip("this torchvision decodes no images")
    content = torch.from_numpy(np.fromfile(path, np.uint8))
    theirs = torchvision.io.decode_image(content, torchvision.io.ImageReadMode.RGB)
    ours = torch.from_numpy(np.array(read_image(path))).permute(2, 0, 1)
    assert (theirs.int() - ours.int()).abs().max() <= 3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_exif_orientation(tmp_path: Path, orientation: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a{suffix}"
    sample_image().save(path, exif=exif)
    read = read_image(path)
    with Image.open(path) as image:
        expected = ImageOps.exif_transpose(image).convert("RGB")
    assert read.size == ((64, 96) if orientation >= 5 else (96, 64))
    assert difference(read, expected) == 0
    # Turning it once more must not turn it again.
    assert read.getexif().get(0x0112, 1) == 1


def test_an_orientation_counts_though_the_rest_cannot_be_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    sample_image().save(tmp_path / "a.png", exif=exif)

    def damaged(self: Image.Exif, offset: int = 8) -> bytes:
        raise OverflowError

    monkeypatch.setattr(Image.Exif, "tobytes", damaged)
    width, height = sample_image().size
    assert read_image(tmp_path / "a.png").size == (height, width)


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"]
)
def test_damaged_exif_counts_as_upright(tmp_path: Path, exif: bytes) -> None:
    path = tmp_path / "a.jpg"
    sample_image().save(path, exif=exif)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert read_image(path).size == (96, 64)
    assert not seen


def test_warnings_of_pillow_neither_raise_nor_show(tmp_path: Path) -> None:
    # A palette whose transparency is given as bytes makes Pillow warn in a direct conversion.
    path = tmp_path / "a.png"
    image = sample_image().quantize(8)
    image.save(path, transparency=bytes([0, 128, 255, 255, 255, 255, 255, 255]))
    for action in ("error", "always"):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter(action)  # type: ignore[arg-type]
            read_image(path)
        assert not seen


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_becomes_white(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGBA", (8, 8), (200, 30, 30, 0))
    image.paste((10, 20, 30, 255), (4, 0, 8, 8))
    image.convert(mode).save(tmp_path / "a.png")
    read = read_image(tmp_path / "a.png")
    assert read.getpixel((1, 1)) == (255, 255, 255)
    right = read.getpixel((6, 1))
    assert right == ((18, 18, 18) if mode == "LA" else (10, 20, 30))


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_transparent_colour_becomes_white(tmp_path: Path, mode: str) -> None:
    image = Image.new(mode, (4, 4), 0)
    image.paste(255 if mode == "L" else (9, 8, 7), (2, 0, 4, 4))
    image.save(tmp_path / "a.png", transparency=0 if mode == "L" else (9, 8, 7))
    read = read_image(tmp_path / "a.png")
    white = (0, 0) if mode == "L" else (3, 0)
    assert read.getpixel(white) == (255, 255, 255)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_sixteen_bits(tmp_path: Path, suffix: str) -> None:
    wide = np.linspace(0, 65535, 64 * 32).reshape(32, 64).round().astype(np.uint16)
    path = tmp_path / f"a{suffix}"
    if suffix == ".pgm":
        path.write_bytes(b"P5 64 32 65535\n" + wide.astype(">u2").tobytes())
    else:
        Image.fromarray(wide).save(path)
    read = np.asarray(read_image(path))
    np.testing.assert_array_equal(read[..., 0], np.round(wide / 257).astype(np.uint8))
    np.testing.assert_array_equal(read[..., 0], read[..., 2])


def test_cmyk_one_bit_and_palette(tmp_path: Path) -> None:
    sample_image().convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    assert difference(read_image(tmp_path / "cmyk.jpg"), sample_image()) < 4
    sample_image().convert("1").save(tmp_path / "bit.png")
    assert set(np.unique(np.asarray(read_image(tmp_path / "bit.png")))) == {0, 255}
    sample_image().quantize(64).save(tmp_path / "palette.png")
    assert difference(read_image(tmp_path / "palette.png"), sample_image()) < 12


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png", ".tif"])
def test_first_frame(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue", "lime")]
    frames[0].save(tmp_path / f"a{suffix}", save_all=True, append_images=frames[1:])
    r, g, b = read_image(tmp_path / f"a{suffix}").getpixel((8, 8))  # type: ignore[misc]
    assert r > 200
    assert g < 40
    assert b < 40


def test_the_content_tells_the_format(tmp_path: Path) -> None:
    sample_image().save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    assert difference(read_image(tmp_path / "a.jpg"), sample_image()) == 0


def png_of_claimed_size(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def jpeg_bytes() -> bytes:
    stream = io.BytesIO()
    noise = np.random.default_rng([1]).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    Image.fromarray(noise).save(stream, "JPEG")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"hello, this is a text file\n", "not an image"),
        (b"\xff\xd8\xff\xe0", "(no|not|truncated|cannot)"),
        (jpeg_bytes()[:3000], "truncated"),
        (jpeg_bytes()[:-500], "truncated"),
        (png_of_claimed_size(10_000, 9_000), "pixels"),
        (png_of_claimed_size(60_000, 60_000), "pixels"),
        (png_of_claimed_size(100, 100), "truncated"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
    ],
)
def test_unusable_content(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "bad image.jpg"
    path.write_bytes(content)
    with pytest.raises(
        UnreadableImage, match=rf"(?i)^{re.escape(str(path))}: cannot be read as an image \(.*{reason}.*remove"
    ) as caught:
        read_image(path)
    assert "\n" not in str(caught.value)
    assert caught.value.reason in str(caught.value)


def test_truncated_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    whole = jpeg_bytes()
    for length in np.linspace(2, len(whole) - 300, 40).astype(int):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="cannot be read as an image"):
            read_image(path)


def test_scrambled_files_raise_nothing_but_value_errors(tmp_path: Path) -> None:
    rng = np.random.default_rng([7])
    for suffix in (".png", ".jpg", ".gif", ".webp", ".tif", ".bmp"):
        path = tmp_path / f"a{suffix}"
        sample_image(40, 30).save(path)
        whole = path.read_bytes()
        for _ in range(40):
            bad = bytearray(whole)
            for place in rng.integers(0, min(len(bad), 400), 5):
                bad[place] = rng.integers(256)
            path.write_bytes(bad)
            try:
                assert read_image(path).mode == "RGB"
            except ValueError as error:
                assert str(path) in str(error)  # noqa: PT017


def test_not_even_a_file(tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "nowhere.jpg")
    for name, reason in [("folder", "not a file"), ("pipe", "not a file"), ("link", "no such"), ("x", "no such")]:
        with pytest.raises(UnreadableImage) as caught:
            read_image(tmp_path / f"{name}.jpg")
        assert reason in caught.value.reason


def test_floating_point_is_refused_with_the_fix(tmp_path: Path) -> None:
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match="save it with 8 or 16 bits"):
        read_image(tmp_path / "a.tif")


def test_the_limit_is_pillows() -> None:
    assert MAX_PIXELS == Image.MAX_IMAGE_PIXELS


REAL = Path(__file__).parents[4] / "shared" / "real" / "awkward"


@pytest.mark.skipif(not REAL.is_dir(), reason="the files of other projects' tests are not here")
def test_awkward_files_of_other_projects() -> None:
    """Size, orientation and mean colour as decoders independent of ours see them, or a refusal."""
    with (REAL / "expected.tsv").open(encoding="utf-8", newline="") as table:
        rows = list(csv.DictReader(table, delimiter="\t"))
    assert len(rows) > 100
    wrong = []
    for row in rows:
        try:
            image = read_image(REAL / row["file"])
        except UnreadableImage as error:
            if row["right"] != "refuse" or len(str(error).splitlines()) != 1:
                wrong.append((row["file"], str(error)))
            continue
        mean = np.asarray(image, np.float64).mean((0, 1))
        reference = [float(row[name] or "nan") for name in ("mean_r", "mean_g", "mean_b")]
        right = row["right"] == "read" and image.size == (int(row["width"]), int(row["height"]))
        if not right or np.abs(mean - reference).max() > 2:
            wrong.append((row["file"], f"{image.size} {mean}"))
    assert wrong == []


def profile(primaries: str) -> bytes:
    """A colour profile: sRGB, or one with red and green exchanged, as wide as sRGB."""
    made = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    if primaries == "exchanged":
        at = {made[132 + 12 * i : 136 + 12 * i].decode(): 132 + 12 * i for i in range(int.from_bytes(made[128:132]))}
        red, green = at["rXYZ"], at["gXYZ"]
        made[red : red + 4], made[green : green + 4] = made[green : green + 4], made[red : red + 4]
    return bytes(made)


@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "tif", "alpha", "palette"])
def test_colours_are_those_of_the_profile(tmp_path: Path, kind: str) -> None:
    original = sample_image()
    file = tmp_path / f"a.{kind if len(kind) <= 4 and kind != 'alpha' else 'png'}"
    saved = {"alpha": original.convert("RGBA"), "palette": original.quantize(256)}.get(kind, original)
    plain = tmp_path / f"plain{file.suffix}"
    saved.save(plain)
    for primaries in ("sRGB", "exchanged"):
        saved.save(file, icc_profile=profile(primaries))
        red, green, blue = read_image(plain).split()
        expected = Image.merge("RGB", (green, red, blue) if primaries == "exchanged" else (red, green, blue))
        assert difference(read_image(file), expected) < 1.0


@pytest.mark.parametrize("broken", [b"none", b"", profile("sRGB")[:200], bytes(500)])
def test_a_damaged_profile_is_none(tmp_path: Path, broken: bytes) -> None:
    sample_image().save(tmp_path / "a.png", icc_profile=broken)
    sample_image().save(tmp_path / "b.png")
    assert difference(read_image(tmp_path / "a.png"), read_image(tmp_path / "b.png")) == 0


def test_a_profile_for_other_pixels_is_none(tmp_path: Path) -> None:
    sample_image().convert("L").save(tmp_path / "a.png", icc_profile=profile("exchanged"))
    assert difference(read_image(tmp_path / "a.png"), sample_image().convert("L").convert("RGB")) == 0


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize(("needed", "side"), [(1.0, 1600), (3.9, 1600), (4.0, 800), (7.9, 800), (9, 400), (40, 200)])
def test_a_large_jpeg_is_decoded_at_the_scale_that_is_needed(
    tmp_path: Path, needed: float, side: int, orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    sample_image(1600, 1200).save(tmp_path / "a.jpg", exif=exif)
    asked = []

    def detail(size: tuple[int, int]) -> float:
        asked.append(size)
        return needed

    image = read_image(tmp_path / "a.jpg", detail)
    full = (1600, 1200) if orientation == 1 else (1200, 1600)
    assert asked == [full]
    assert full_size(image) == full
    assert image.size == (full[0] * side // 1600, full[1] * side // 1600)
    reference = read_image(tmp_path / "a.jpg").resize(image.size, Image.Resampling.BOX)
    assert difference(image, reference) < 2


def test_what_is_told_by_its_content(tmp_path: Path) -> None:
    """A file without a suffix, and a file of another kind than its name says."""
    sample_image().save(tmp_path / "photo", "JPEG")
    pillow_heif.from_pillow(sample_image()).save(tmp_path / "b.heic", quality=95)
    (tmp_path / "b.heic").rename(tmp_path / "b.jpg")
    (tmp_path / "Makefile").write_text("all:\n", encoding="utf-8")
    (tmp_path / "notes.txt").write_bytes((tmp_path / "photo").read_bytes())
    assert {file.name for file in tmp_path.iterdir() if is_image(file)} == {"photo", "b.jpg"}
    assert difference(read_image(tmp_path / "photo"), sample_image()) < 3
    assert difference(read_image(tmp_path / "b.jpg"), sample_image()) < 4


CHATTER = """
import sys
from attnpool.data.decoding.image import read_image
for name in sys.argv[1:]:
    try:
        read_image(name)
    except ValueError:
        pass
"""


def test_libtiff_says_nothing(tmp_path: Path) -> None:
    """Neither of damaged data nor of odd tags; errors are in the exception."""
    rng = np.random.default_rng(0)
    files = []
    for compression in ("tiff_lzw", "jpeg", "tiff_adobe_deflate", "packbits"):
        buffer = io.BytesIO()
        sample_image(50, 40).save(buffer, "TIFF", compression=compression)
        for i in range(60):
            content = bytearray(buffer.getvalue())
            for _ in range(3):
                content[rng.integers(len(content))] = rng.integers(256)
            files.append(tmp_path / f"{compression}{i}.tif")
            files[-1].write_bytes(bytes(content[: len(content) if i % 3 else len(content) * 2 // 3]))
    command = [sys.executable, "-c", CHATTER, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
