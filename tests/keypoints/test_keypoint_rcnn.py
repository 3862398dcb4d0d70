"""Keypoint R-CNN with a checkpoint that the test writes, against torchvision's network called directly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from estimating import photo, save_checkpoint
from PIL import Image
from safetensors.torch import save_file
from torchvision.models.detection import keypointrcnn_resnet50_fpn

from attnpool.keypoints import COCO_JOINTS, MPII_JOINTS
from attnpool.keypoints.keypoint_rcnn import KeypointRCNN

SIDE = 64
PUBLISHED = "keypointrcnn_resnet50_fpn_coco-fc266e95.pth"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("weights") / "random.pth"
    save_checkpoint(file)
    return file


@pytest.fixture(scope="module")
def image() -> Image.Image:
    return photo().resize((64, 75))


@pytest.fixture(scope="module")
def estimator(checkpoint: Path) -> KeypointRCNN:
    return KeypointRCNN(checkpoint, short_side=SIDE, min_score=0.5)


def test_against_the_network_itself(checkpoint: Path, image: Image.Image, estimator: KeypointRCNN) -> None:
    # Every box takes a fifth of a second, so only those are kept that are nearly sure enough.
    sizes = {"min_size": SIDE, "max_size": 107, "box_score_thresh": 0.4}
    network = keypointrcnn_resnet50_fpn(weights=None, weights_backbone=None, **sizes)
    network.load_state_dict(torch.load(checkpoint, weights_only=True))
    pixels = torch.tensor(np.asarray(image) / np.float32(255)).permute(2, 0, 1)
    with torch.no_grad():
        (found,) = network.eval()([pixels])
    people = estimator(image)
    known = [COCO_JOINTS.index(name) for name in COCO_JOINTS if name in MPII_JOINTS or name == "nose"]
    # joints count that are sure enough and inside of the image, and persons who have one
    x, y = found["keypoints"][..., 0], found["keypoints"][..., 1]
    usable = (found["keypoints_scores"] >= 0) & (x >= 0) & (x < image.width) & (y >= 0) & (y < image.height)
    sure = (found["scores"] >= 0.5) & usable[:, known].any(1)
    assert len(found["scores"]) > len(people) == int(sure.sum()) > 2
    seen = set()
    columns = [found[key][sure] for key in ("scores", "boxes", "keypoints", "keypoints_scores")]
    for person, score, box, joints, logits, counts in zip(people, *columns, usable[sure], strict=True):
        assert person.score == pytest.approx(float(score), abs=1e-5)
        assert person.box == pytest.approx(box.tolist(), abs=1e-3)
        for j, name in enumerate(MPII_JOINTS):
            source = "nose" if name == "head_top" else name
            k = COCO_JOINTS.index(source) if source in COCO_JOINTS else None
            if k is None or not counts[k]:
                assert (person.joints[j], person.scores[j]) == (None, 0)
            else:
                assert person.joints[j] == pytest.approx(joints[k, :2].tolist(), abs=1e-3)
                assert person.scores[j] == pytest.approx(1 / (1 + np.exp(-float(logits[k]))), abs=1e-5)
                seen.add(name)
    assert len(seen) > 8


def test_pixels_are_those_of_the_image(image: Image.Image, estimator: KeypointRCNN) -> None:
    """Twice as large, with every pixel four times, is the same to the network, and everything is twice as far."""
    large = image.resize((128, 150), Image.Resampling.NEAREST)
    for person, doubled in zip(estimator(image), estimator(large), strict=True):
        assert doubled.box == pytest.approx([2 * value for value in person.box or ()], abs=1e-2)
        for joint, other in zip(person.joints, doubled.joints, strict=True):
            assert (joint is None) == (other is None)
            if joint is not None and other is not None:
                assert other == pytest.approx((2 * joint[0], 2 * joint[1]), abs=1e-2)


def test_higher_scores_leave_fewer(checkpoint: Path, image: Image.Image, estimator: KeypointRCNN) -> None:
    everybody = estimator(image)
    middle = float(np.median([person.score for person in everybody]))
    fewer = KeypointRCNN(checkpoint, short_side=SIDE, min_score=middle)(image)
    assert 0 < len(fewer) < len(everybody)
    assert all(person.score >= middle for person in fewer)
    assert all(score >= middle for person in fewer for score in person.scores if score)


def test_other_files_of_the_same_weights(checkpoint: Path, tmp_path: Path, image: Image.Image) -> None:
    state = torch.load(checkpoint, weights_only=True)
    save_file(state, tmp_path / "a.safetensors")
    torch.save({"model": state, "epoch": 3}, tmp_path / "b.pth")
    first, second = (KeypointRCNN(tmp_path / name, short_side=SIDE)(image) for name in ("a.safetensors", "b.pth"))
    assert first == second != []


def test_the_published_weights_come_from_torchs_hub(
    checkpoint: Path, tmp_path: Path, image: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # no network
    with pytest.raises(ValueError, match=r"cannot be downloaded.*give that file as weights") as caught:
        KeypointRCNN()
    assert "\n" not in str(caught.value)
    place = tmp_path / "hub" / "checkpoints" / PUBLISHED
    place.symlink_to(checkpoint)
    estimator = KeypointRCNN(short_side=SIDE)
    assert PUBLISHED in estimator.name
    assert estimator(image) == KeypointRCNN(checkpoint, short_side=SIDE)(image)


def test_no_global_generator_is_read(checkpoint: Path) -> None:
    before = torch.get_rng_state()
    KeypointRCNN(checkpoint)
    assert torch.equal(torch.get_rng_state(), before)


def test_files_that_are_something_else(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(3)}, tmp_path / "other.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"a": 1, 2: "b"}, tmp_path / "odd.pth")
    save_file({"a": torch.zeros(3)}, tmp_path / "other.safetensors")
    (tmp_path / "text.pth").write_text("root:x:0:0\n")
    (tmp_path / "text.safetensors").write_text("root:x:0:0\n")
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "folder.pth").mkdir()
    for file in [*sorted(tmp_path.iterdir()), tmp_path / "absent.pth", tmp_path / "absent.safetensors"]:
        with pytest.raises(ValueError) as caught:
            KeypointRCNN(file)
        assert str(caught.value).startswith(f"{file}: ")
        assert "\n" not in str(caught.value)


def test_wrong_numbers(checkpoint: Path) -> None:
    for score in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="min_score"):
            KeypointRCNN(checkpoint, min_score=score)
    with pytest.raises(ValueError, match="short_side"):
        KeypointRCNN(checkpoint, short_side=8)
