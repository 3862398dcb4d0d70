"""Reads the network's input from a clip: frames, or stacks of optical flow, at temporal segments, all cropped alike."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from attnpool.data.crops import input_size
from attnpool.data.decoding.optical_flow import FLOW_LENGTH, flow_stacks, flow_views
from attnpool.data.decoding.video import read_clip
from attnpool.data.preprocessing import Preprocessing
from attnpool.data.temporal_sampling import segment_frames
from attnpool.data.views import View, eval_views, train_views


@dataclass(frozen=True, eq=False)
class Clip:
    """T frames, or stacks of optical flow, of a clip.

    Attributes:
        count: number of frames of the whole clip.
        numbers: numbers of the T frames, counted from 0; for a stack of flow the number of its first frame.
        frames: those frames.
        views: the views of every frame or stack, one after the other: T, or T times the number of crops.
        problem: what of the file was not read, "" for nothing.
    """

    count: int
    numbers: list[int]
    frames: list[Image.Image]
    views: list[View]
    problem: str = ""


def read_views(
    path: Path,
    options: Preprocessing,
    *,
    places: np.random.Generator | None = None,
    rng: np.random.Generator | None = None,
    crops: int = 1,
    flip: bool = False,
) -> Clip:
    """Reads frames or optical flow of a clip, and crops the network's inputs from them.

    Args:
        path: a video file, or a folder of frames.
        options: preprocessing, with the number of `segments` in training and of `frames` in testing.
        places: random generator of the places in the segments, for training; `None` for the middle of each segment, as
            in testing.
        rng: random generator of the crop, flip and colours, which all frames share, for training; `None` for testing.
        crops, flip: test-time views, see `eval_views`.

    Raises:
        UnreadableVideo: (a ValueError) the clip cannot be read.
        ValueError: optical flow is needed and OpenCV is not installed.
    """
    flow, whole = options.modality == "flow", options.view == "whole"
    length = FLOW_LENGTH + 1 if flow else 1
    segments = options.frames if places is None else options.segments
    # `read_clip` may call `choose` twice and must get the same answer
    state = None if places is None else places.bit_generator.state

    def choose(count: int) -> list[int]:
        if places is not None and state is not None:
            places.bit_generator.state = state
        return segment_frames(count, segments, rng=places, length=length)

    # All frames of a whole view have the shape of the clip's first, which is known before the others are read.
    count, frames, problem = read_clip(path, lambda count: [0, *choose(count)] if whole else choose(count))
    size = input_size(frames.pop(0).size, options) if whole else None
    if flow:
        views = flow_views(flow_stacks(frames), options, rng, crops, flip)
    elif rng is not None:
        views = train_views(frames, options, rng, size)
    else:
        views = eval_views(frames, options, crops, flip, size)
    return Clip(count, choose(count)[::length], frames[::length], views, problem)
