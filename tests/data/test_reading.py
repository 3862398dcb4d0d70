from __future__ import annotations

from pathlib import Path

import pytest

from attnpool.data import READERS, has_own_split, read, read_all, read_splits
from attnpool.playground.write_hico import write_hico


def test_a_format_that_does_not_exist_is_answered_with_those_that_do() -> None:
    for source in ("", "photos", "nothing:photos", "folder:"):
        with pytest.raises(ValueError, match="does not say which format") as caught:
            read(source)
        assert all(name in str(caught.value) for name in READERS)
        assert "\n" not in str(caught.value)


def test_a_dataset_knows_its_name_and_format(photos: Path) -> None:
    source = f"folder:{photos}"
    for dataset in (*read(source), read_all(source)):
        assert (dataset.name, dataset.format, dataset.root) == (source, "folder", photos)


def test_parts_that_are_joined_have_every_image_once(photos: Path) -> None:
    train, val = read(f"folder:{photos}")
    whole = train.joined(val, "all")
    assert len(whole) == len(train) + len(val)
    assert whole.joined(val, "trainval").samples == whole.samples


def test_options_of_a_split_are_refused_where_they_would_change_nothing(photos: Path, tmp_path: Path) -> None:
    source = f"folder:{photos}"
    assert not has_own_split(source)
    assert read(source, split_seed=0, val_fraction=0.25) == read(source)
    divided = tmp_path / "divided"
    for dataset in read(source):
        for sample in dataset:
            path = divided / dataset.split / sample.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes((photos / sample.path).read_bytes())
    write_hico(tmp_path / "hico", 28, 0, size=64)
    for own in (f"folder:{divided}", f"hico:{tmp_path / 'hico'}"):
        assert has_own_split(own)
        read_splits(own)
        for option in ({"split_seed": 0}, {"val_fraction": 0.5}):
            with pytest.raises(ValueError, match=f"comes with its own split; leave out {next(iter(option))}"):
                read_splits(own, **option)  # type: ignore[arg-type]


def test_only_a_missing_folder_has_no_split_of_its_own(tmp_path: Path) -> None:
    """The reader then says what is missing, not that the seed is wrong."""
    with pytest.raises(ValueError, match="does not exist"):
        read(f"folder:{tmp_path / 'gone'}", split_seed=3)


def test_every_format_has_an_entry() -> None:
    assert list(READERS) == ["folder", "mpii", "hico", "hmdb51", "hmdb51-2", "hmdb51-3", "wds"]
    assert [name for name, entry in READERS.items() if entry.image_numbers] == ["mpii"]
    assert [name for name, entry in READERS.items() if entry.keypoint_place is None] == ["wds"]
    assert [name for name, entry in READERS.items() if entry.sealed] == ["wds"]
    assert [name for name, entry in READERS.items() if entry.every_file] == ["folder"]
