"""What every entry of POOLINGS must obey, whatever its options: layouts, sums, gradients, compile, export, errors."""

from __future__ import annotations

import copy
import io
import itertools
import pickle
from typing import Any

import pytest
import torch
from pairs import all_pairs
from torch import Tensor

from attnpool.pooling import POOLINGS, Pooled, PoolingHead

# Every pooling and the values of its options that its tests try: a line for each. Tests go through combinations in
# which any two values of different options meet (tests/pairs.py), but for those that the constructor refuses. A pooling
# that has no line here is tried as it is built by default.
ACTIVATIONS = (None, "relu", "sigmoid", "softmax")
BIAS, STARTS, FLAG = (True, False), ("average", "official"), (False, True)
OPTIONS: dict[str, dict[str, tuple[Any, ...]]] = {
    "average": {"bias": BIAS},
    "max": {"bias": BIAS},
    "attentional": {
        "rank": (1, 2, 5),
        "per_class": FLAG,
        "activation": ACTIVATIONS,
        "init": STARTS,
        "bias": BIAS,
        "hidden": (0, 5),
    },
    "pose": {"hidden": (8,), "init": STARTS},
    "bilinear": {"bias": BIAS},
    "compact_bilinear": {"dim": (16, 7), "signed_sqrt": FLAG, "l2": FLAG},
    "covariance": {"channels": (256, 4, 3), "iterations": (5, 1)},
    "multi_query": {"queries": (3, 2, 32), "dim": (None, 4), "positions": FLAG},
    "netvlad": {"clusters": (3, 2), "norms": (True, False)},
    "saliency": {"bias": BIAS, "saliency": ("norm", "centre")},
}


def variants(key: str) -> list[dict[str, Any]]:
    return all_pairs(OPTIONS.get(key, {}), lambda options: is_accepted(key, options))


def is_accepted(key: str, options: dict[str, Any]) -> bool:
    try:
        POOLINGS[key](6, 4, **options)
    except ValueError:
        return False
    return True


VARIANTS = [(key, options) for key in POOLINGS for options in variants(key)]

# One of each structure, for what is slow to check.
FEW: list[tuple[str, dict[str, Any]]] = [
    ("average", {}),
    ("max", {}),
    ("attentional", {}),
    ("attentional", {"rank": 2, "activation": "softmax", "bias": False}),
    ("attentional", {"rank": 2, "per_class": True, "activation": "sigmoid"}),
    ("attentional", {"rank": 5, "activation": "relu", "dropout": 0.5, "dropout_on": "positions"}),
    ("attentional", {"rank": 2, "hidden": 5}),
    ("pose", {"hidden": 8}),
    ("bilinear", {}),
    ("compact_bilinear", {"dim": 16}),
    ("compact_bilinear", {"dim": 16, "signed_sqrt": True, "l2": True}),
    ("covariance", {"channels": 4}),
    ("multi_query", {"queries": 3}),
    ("multi_query", {"queries": 3, "positions": True}),
    ("netvlad", {"clusters": 3}),
    ("netvlad", {"clusters": 3, "norms": False}),
    ("saliency", {}),
    ("saliency", {"saliency": "centre"}),
]
FEW += [(key, {}) for key in POOLINGS if key not in OPTIONS]


def name(variant: Any) -> str:
    return (
        "-".join(str(value) for value in variant.values()) or "default" if isinstance(variant, dict) else str(variant)
    )


every_variant = pytest.mark.parametrize(("key", "options"), VARIANTS, ids=name)
few_variants = pytest.mark.parametrize(("key", "options"), FEW, ids=name)
every_head = pytest.mark.parametrize("key", POOLINGS)


def test_any_two_options_meet() -> None:
    """What the choice of combinations promises, counted anew; and no pooling is left out."""
    assert {key for key, _ in VARIANTS} == {key for key, _ in FEW} == set(POOLINGS)
    assert set(OPTIONS) <= set(POOLINGS)
    for key, axes in OPTIONS.items():
        tried = variants(key)
        everything = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
        possible = [options for options in everything if is_accepted(key, options)]
        for first, second in itertools.combinations(axes, 2):
            expected = {(options[first], options[second]) for options in possible}
            assert {(options[first], options[second]) for options in tried} == expected, (key, first, second)
        assert all({options[option] for options in tried} == set(values) for option, values in axes.items())


def make(key: str, options: dict[str, Any], channels: int = 6, classes: int = 4, *, scale: float = 0.5) -> PoolingHead:
    """A head in eval mode and float64, moved away from its start, where many maps are constant."""
    head = POOLINGS[key](channels, classes, **options).double().eval()
    generator = torch.Generator().manual_seed(1)
    head.reset_parameters(generator)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return head


def features(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def layouts(x: Tensor, options: dict[str, Any] | None = None) -> dict[str, Tensor]:
    """The same features `(B, C, H, W)` as they come from CNNs in both memory formats and from ViTs.

    Without plain tokens if the options make a head look at places, which they do not have.
    """
    tokens = x.flatten(2).transpose(1, 2).contiguous()
    with_prefix = torch.cat([tokens[:, :1], tokens], 1)[:, 1:]
    return {
        "NCHW": x.contiguous(),
        "channels_last": x.contiguous(memory_format=torch.channels_last),
        **({} if options and looks_at_places(options) else {"tokens": tokens}),
        "tokens on a grid": with_prefix.unflatten(1, tuple(x.shape[2:])).permute(0, 3, 1, 2),
        "a crop": torch.nn.functional.pad(x, (1, 1, 1, 1))[:, :, 1:-1, 1:-1],
    }


def looks_at_places(options: dict[str, Any]) -> bool:
    return bool(options.get("positions") or options.get("saliency") == "centre")


def positions(maps: Tensor, axes: int) -> Tensor:
    return maps.flatten(-axes)


@every_variant
def test_layouts_shapes_and_sums(key: str, options: dict[str, Any]) -> None:
    for shape in ((2, 6, 5, 3), (1, 6, 1, 1), (3, 6, 1, 4)):
        check_layouts_shapes_and_sums(key, options, shape)


def check_layouts_shapes_and_sums(key: str, options: dict[str, Any], shape: tuple[int, ...]) -> None:
    head = make(key, options)
    x = features(*shape)
    batch, _, height, width = shape
    reference = head(x, maps=True)
    for layout, view in layouts(x, options).items():
        axes = 1 if layout == "tokens" else 2
        grid = (height * width,) if layout == "tokens" else (height, width)
        out = head(view, maps=True)
        assert isinstance(out, Pooled)
        assert out.logits.shape == (batch, 4)
        torch.testing.assert_close(out.logits, reference.logits, rtol=0, atol=1e-10)
        assert torch.equal(head(view).logits, out.logits)
        rank = out.top_down.shape[1]
        assert rank == next(
            (getattr(head, terms) for terms in ("rank", "queries", "clusters") if hasattr(head, terms)), 1
        )
        assert out.top_down.shape == (batch, rank, 4, *grid)
        assert out.bottom_up.shape == (batch, rank, 4 if options.get("per_class") else 1, *grid)
        assert out.combined.shape == (batch, 4, *grid)

        count = height * width
        torch.testing.assert_close(out.combined.flatten(2).sum(-1), out.logits, rtol=0, atol=1e-9)
        product = (out.top_down * out.bottom_up).sum(1) / count
        torch.testing.assert_close(out.combined, product, rtol=0, atol=1e-12)
        for field in Pooled._fields:
            ours, theirs = getattr(out, field), getattr(reference, field)
            assert (ours is None) == (theirs is None)
            if ours is not None and field != "logits":
                ours, theirs = positions(ours, axes), positions(theirs, 2)
            if ours is not None:
                torch.testing.assert_close(
                    ours, theirs, rtol=0, atol=1e-10, msg=lambda text, at=(layout, field): f"{at}: {text}"
                )

        short = head(view)
        assert torch.equal(short.logits, out.logits)
        assert short.top_down is short.bottom_up is short.combined is None
        assert (short.pose is None) == (out.pose is None)


REALISTIC = [
    ("average", {}),
    ("max", {}),
    ("attentional", {"rank": 5}),
    ("attentional", {"rank": 2, "activation": "softmax"}),
    ("attentional", {"per_class": True, "activation": "sigmoid"}),
    ("attentional", {"hidden": 64}),
    ("pose", {}),
    ("compact_bilinear", {}),
    ("compact_bilinear", {"signed_sqrt": True, "l2": True}),
    ("covariance", {"channels": 64}),
    ("multi_query", {}),
    ("multi_query", {"positions": True}),
    ("netvlad", {"clusters": 4}),
    ("netvlad", {"clusters": 4, "norms": False}),
    ("saliency", {}),
    ("saliency", {"saliency": "centre"}),
]


def small(options: dict[str, Any], key: str) -> float:
    """The size of weights with which logits are of a usual size: where features are divided by their norm, larger."""
    return 0.05 if options.get("l2") or options.get("norms", key == "netvlad") else 0.005


@pytest.fixture(scope="module")
def deep_features() -> Tensor:
    """Features as ResNet-101's last layer gives them for MPII: not negative, 2048 channels, 14 x 14 positions."""
    return features(2, 2048, 14, 14).relu().float()


@pytest.mark.parametrize(("key", "options"), REALISTIC, ids=name)
def test_combined_sums_to_logits_in_single_precision(key: str, options: dict[str, Any], deep_features: Tensor) -> None:
    head = make(key, options, 2048, 393, scale=small(options, key)).float()
    with torch.no_grad():
        for layout in (deep_features, deep_features.to(memory_format=torch.channels_last)):
            out = head(layout, maps=True)
            assert out.logits.abs().max() > 0.05
            torch.testing.assert_close(out.combined.sum((-2, -1)), out.logits, rtol=0, atol=1e-4)


# bfloat16 keeps 8 bits: an entry of a map is off by 2^-9 of itself each time it is rounded, and it is rounded a few
# times (features, weights, maps, products) before it is summed.
AUTOCAST_BOUND = 2.0**-6


@pytest.mark.parametrize(("key", "options"), REALISTIC, ids=name)
def test_combined_sums_to_logits_under_autocast(key: str, options: dict[str, Any], deep_features: Tensor) -> None:
    head = make(
        key, options, 2048, 40, scale=small(options, key)
    ).float()  # of few classes: products in bfloat16 are slow on CPUs
    with torch.no_grad():
        exact = head(deep_features).logits
        for layout in (deep_features, deep_features.to(memory_format=torch.channels_last)):
            with torch.autocast("cpu", torch.bfloat16):
                out = head(layout, maps=True)
            combined = out.combined.double()
            bound = AUTOCAST_BOUND * combined.abs().sum((-2, -1))
            assert ((combined.sum((-2, -1)) - out.logits).abs() <= bound).all()
            assert ((exact - out.logits).abs() <= bound).all()


@every_variant
def test_gradients(key: str, options: dict[str, Any]) -> None:
    """Against finite differences, with respect to the features and every parameter, through logits, maps and pose."""
    head = make(key, options | ({"hidden": 4, "joints": 2} if key == "pose" else {}), 3, 2)
    names, values = zip(*head.named_parameters(), strict=True)

    def run(x: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        out = torch.func.functional_call(head, dict(zip(names, parameters, strict=True)), (x,), {"maps": True})
        return tuple(value for value in (out.logits, out.combined, out.pose) if value is not None)

    x = features(1, 3, 1, 4, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(run, (x, *values), fast_mode=True)


@every_variant
def test_backward_is_the_same_in_every_layout(key: str, options: dict[str, Any]) -> None:
    head = make(key, options).train()
    x = features(2, 6, 3, 4)

    def gradients(view: Tensor) -> list[Tensor]:
        view = view.detach().requires_grad_()
        out = head(view)
        found = torch.autograd.grad(total(out), [view, *head.parameters()])
        return [found[0].flatten(2) if view.ndim == 4 else found[0].transpose(1, 2), *found[1:]]

    reference = gradients(x)
    for view in layouts(x, options).values():
        for ours, theirs in zip(gradients(view), reference, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def total(out: Pooled) -> Tensor:
    """A loss that every parameter has a part in."""
    return out.logits.square().sum() + (0 if out.pose is None else out.pose.square().sum())


@every_variant
def test_maps_of_some_classes_are_those_among_the_maps_of_all(key: str, options: dict[str, Any]) -> None:
    head, x = make(key, options), features(2, 6, 3, 4)
    every, some = head(x, maps=True), head(x, maps=[3, 0, 3])
    torch.testing.assert_close(some.logits, every.logits)
    torch.testing.assert_close(some.combined, every.combined[:, [3, 0, 3]])
    torch.testing.assert_close(some.top_down, every.top_down[:, :, [3, 0, 3]])
    of_class = every.bottom_up[:, :, [3, 0, 3]] if every.bottom_up.shape[2] == 4 else every.bottom_up
    torch.testing.assert_close(some.bottom_up, of_class)
    for wrong in ([4], [0, -1]):
        with pytest.raises(ValueError, match="numbered from 0 to 3"):
            head(x, maps=wrong)


@few_variants
def test_compile(key: str, options: dict[str, Any]) -> None:
    torch._dynamo.reset()
    head = make(key, options)
    compiled = torch.compile(head, fullgraph=True, backend="aot_eager")
    x = features(2, 6, 3, 4)
    views = (x, layouts(x)["channels_last"]) if key == "attentional" and not options else (x,)  # slow: one for both
    for view in views:
        view = view.requires_grad_()
        out, expected = compiled(view, maps=True), head(view, maps=True)
        torch.testing.assert_close(out, expected)
        sources = [view, *head.parameters()]
        ours, theirs = (torch.autograd.grad(total(pooled), sources) for pooled in (out, expected))
        torch.testing.assert_close(ours, theirs)


@few_variants
def test_export_to_a_file_and_back(key: str, options: dict[str, Any]) -> None:
    """With sizes left open: the exported head takes other batches and maps than the one it was traced with."""
    head = make(key, options)
    dim = torch.export.Dim
    free = {"features": {0: dim("batch"), 2: dim("height"), 3: dim("width")}, "maps": None}
    program = torch.export.export(head, (features(2, 6, 3, 4),), {"maps": True}, dynamic_shapes=free)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    x = features(3, 6, 5, 2, seed=3)
    out = loaded(x, maps=True)
    assert isinstance(out, Pooled)
    torch.testing.assert_close(out, head(x, maps=True))


@every_variant
def test_state_survives(key: str, options: dict[str, Any]) -> None:
    head = make(key, options)
    x = features(2, 6, 3, 4)
    expected = head(x).logits
    fresh = POOLINGS[key](6, 4, **options).double().eval()
    fresh.load_state_dict(head.state_dict())
    for twin in (fresh, copy.deepcopy(head), pickle.loads(pickle.dumps(head))):
        assert torch.equal(twin(x).logits, expected)


@few_variants
def test_dropout_is_for_training(key: str, options: dict[str, Any]) -> None:
    everywhere = [{"dropout_on": place} for place in ("pooled", "positions")]
    for where in everywhere if key in ("attentional", "pose") else [{}]:
        head = make(key, options | where | {"dropout": 0.5})
        x = features(2, 6, 3, 4)
        assert torch.equal(head(x).logits, head(x).logits), where
        assert torch.equal(head(x).logits, make(key, options)(x).logits), where
        torch.manual_seed(0)
        head.train()
        assert not torch.equal(head(x).logits, head(x).logits), where


@every_head
def test_initial_weights_follow_from_a_generator(key: str) -> None:
    def drawn(seed: int) -> dict[str, Tensor]:
        head = POOLINGS[key](6, 4)
        head.reset_parameters(torch.Generator().manual_seed(seed))
        return head.state_dict()

    first, again, other = drawn(0), drawn(0), drawn(1)
    assert all(torch.equal(first[at], again[at]) for at in first)
    assert any(not torch.equal(first[at], other[at]) for at in first)


@every_head
def test_options_are_part_of_repr(key: str) -> None:
    assert "in_channels=6, num_classes=4, dropout=0.25" in repr(POOLINGS[key](6, 4, dropout=0.25))


# The others have no term that is linear in the features.
LINEAR = ("average", "attentional", "pose")
AS_AVERAGE = [
    (key, options) for key, options in VARIANTS if key in LINEAR and options.get("init", "average") == "average"
]


@pytest.mark.parametrize(("key", "options"), AS_AVERAGE, ids=name)
def test_starts_as_average_pooling(key: str, options: dict[str, Any]) -> None:
    head = POOLINGS[key](6, 4, **options).double().eval()
    average = POOLINGS["average"](6, 4).double().eval()
    with torch.no_grad():
        average.a.copy_(torch.randn(4, 6))
        average.alpha.copy_(torch.randn(4) if head.alpha is not None else torch.zeros(4))
        head.a[:4] = average.a
        if head.alpha is not None:
            head.alpha[:4] = average.alpha
    x = features(2, 6, 3, 5)
    out, expected = head(x, maps=True), average(x, maps=True)
    torch.testing.assert_close(out.bottom_up[:, 0], torch.ones_like(out.bottom_up[:, 0]), rtol=0, atol=1e-12)
    torch.testing.assert_close(out.logits, expected.logits, rtol=0, atol=1e-12)
    torch.testing.assert_close(out.combined, expected.combined, rtol=0, atol=1e-12)


@every_head
def test_wrong_features(key: str) -> None:
    head = POOLINGS[key](6, 4)
    for shape, message in (
        ((2, 5, 3, 3), "in_channels=5"),
        ((2, 9, 5), "in_channels=5"),
        ((2, 6), r"\(B, C, H, W\) or \(B, N, C\)"),
        ((2, 6, 3, 3, 3), r"\(B, C, H, W\) or \(B, N, C\)"),
        ((2, 6, 0, 3), "no positions"),
        ((2, 0, 6), "no positions"),
    ):
        with pytest.raises(ValueError, match=message):
            head(torch.zeros(shape))


@pytest.mark.parametrize(
    ("key", "options", "message"),
    [
        ("attentional", {"activation": "tanh"}, "use None, relu, sigmoid, softmax"),
        ("attentional", {"init": "zeros"}, "use one of average, official"),
        ("attentional", {"dropout_on": "maps"}, "use one of pooled, positions"),
        ("attentional", {"rank": 0}, "rank must be from 1 to"),
        ("attentional", {"bias": False}, "use bias=True or init='official'"),
        ("attentional", {"bias": False, "activation": "relu"}, "use bias=True or init='official'"),
        ("pose", {"init": "zeros"}, "use one of average, official"),
        ("pose", {"dropout_on": "maps"}, "use one of pooled, positions"),
        ("pose", {"hidden": 0}, "hidden and joints must be at least 1"),
    ],
    ids=name,
)
def test_wrong_options(key: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        POOLINGS[key](6, 4, **options)


@every_head
def test_wrong_sizes_and_dropout(key: str) -> None:
    for sizes in ((0, 4), (6, 0)):
        with pytest.raises(ValueError, match="must be at least 1"):
            POOLINGS[key](*sizes)
    for dropout in (1.0, -0.1):
        with pytest.raises(ValueError, match=r"dropout must be in \[0, 1\)"):
            POOLINGS[key](6, 4, dropout=dropout)
