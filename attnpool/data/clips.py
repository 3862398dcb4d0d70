"""What a network sees of a clip: frames or stacks of flow at the places of temporal segments, in one geometry."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from attnpool.data.decoding.optical_flow import FLOW_LENGTH, flow_stacks, flow_views
from attnpool.data.decoding.video import VIDEO_SUFFIXES, read_clip
from attnpool.data.preprocessing import Preprocessing
from attnpool.data.temporal_sampling import segment_frames
from attnpool.data.views import View, eval_views, train_views


@dataclass(frozen=True, eq=False)
class Clip:
    """What was taken of a clip at T places.

    Attributes:
        count: how many frames the clip has in all.
        numbers: T frames, counted from 0; of every stack of flow the first one.
        frames: those frames.
        views: of every frame or stack its views, one after the other: T of them, or T times the crops.
    """

    count: int
    numbers: list[int]
    frames: list[Image.Image]
    views: list[View]


def read_views(
    path: Path,
    options: Preprocessing,
    *,
    places: np.random.Generator | None = None,
    rng: np.random.Generator | None = None,
    crops: int = 1,
    flip: bool = False,
) -> Clip:
    """Reads a clip's frames, or optical flow, and cuts the network's inputs out of them.

    Args:
        path: a video, or a folder of frames.
        options: `segments` places in training, `frames` in testing, and all the rest.
        places: for training, random places in the segments; `None` for the middle of each, as in testing.
        rng: for training, a random crop, flip and colours, shared by all frames; `None` as in testing.
        crops, flip: in testing, see `eval_views`.

    Raises:
        UnreadableVideo: (a ValueError) the clip cannot be read.
        ValueError: flow is wanted and OpenCV is not installed.
    """
    flow = options.modality == "flow"
    length = FLOW_LENGTH + 1 if flow else 1
    segments = options.frames if places is None else options.segments
    # `read_clip` may ask twice and must get the same answer
    state = None if places is None else places.bit_generator.state

    def choose(count: int) -> list[int]:
        if places is not None and state is not None:
            places.bit_generator.state = state
        return segment_frames(count, segments, rng=places, length=length)

    count, frames = read_clip(path, choose)
    if flow:
        views = flow_views(flow_stacks(frames), options, rng, crops, flip)
    elif rng is not None:
        views = train_views(frames, options, rng)
    else:
        views = eval_views(frames, options, crops, flip)
    return Clip(count, choose(count)[::length], frames[::length], views)


def is_clip(path: Path) -> bool:
    """Whether a path is taken for a clip: a folder, or a file with the name of a video."""
    return path.is_dir() or path.suffix.lower() in VIDEO_SUFFIXES
