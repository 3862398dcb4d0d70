"""What attention allocates, in which layout its gradients come, and that they are right at every order."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from attnpool.pooling import AttentionalPooling, PoolingHead
from attnpool.pooling.fused_attention import activate, attend

ACTIVATIONS = (None, "relu", "sigmoid", "softmax")
B, C, SIDE, K = 4, 16, 6, 20
LAYOUTS = ("NCHW", "NHWC", "tokens")
AGNOSTIC: list[dict[str, Any]] = [{}, {"rank": 5}, {"rank": 2, "activation": "softmax"}, {"activation": "sigmoid"}]
every_layout = pytest.mark.parametrize("layout", LAYOUTS)


def features(layout: str, *, dtype: torch.dtype = torch.float32) -> Tensor:
    x = torch.randn(B, C, SIDE, SIDE, generator=torch.Generator().manual_seed(0), dtype=dtype)
    if layout == "NHWC":
        return x.contiguous(memory_format=torch.channels_last)
    return x.flatten(2).transpose(1, 2).contiguous() if layout == "tokens" else x


def trained(options: dict[str, Any]) -> AttentionalPooling:
    """A head away from its start, where maps are constant and half the gradients are 0."""
    head = AttentionalPooling(C, K, **options)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return head


class Allocations(TorchDispatchMode):
    """Number of elements of every piece of memory that operations make, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[int, int] = {}
        self.kept: list[Tensor] = []  # so that no address is used twice

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() not in given:
                self.kept.append(tensor)
                self.sizes[tensor.untyped_storage().data_ptr()] = (
                    tensor.untyped_storage().nbytes() // tensor.element_size()
                )
        return out


def allocated(head: PoolingHead, x: Tensor, *, backward: bool) -> list[int]:
    with Allocations() as seen, torch.set_grad_enabled(backward):
        logits = head(x).logits
        if backward:
            wanted = [x, *head.parameters()] if x.requires_grad else list(head.parameters())
            torch.autograd.grad(logits.square().sum(), wanted)
    assert seen.sizes
    return sorted(seen.sizes.values(), reverse=True)


@every_layout
@pytest.mark.parametrize("options", AGNOSTIC, ids=str)
def test_nothing_as_large_as_the_features_but_their_gradient(options: dict[str, Any], layout: str) -> None:
    head, x = AttentionalPooling(C, K, **options), features(layout)
    assert (
        B * K * SIDE**2 > x.numel() > K * C * head.rank
    )  # maps of all classes would be seen, gradients of weights not
    assert allocated(head, x, backward=False)[0] < x.numel()
    assert allocated(head, x, backward=True)[0] < x.numel()  # as of a frozen backbone
    largest, second, *_ = allocated(head, x.requires_grad_(), backward=True)
    assert largest == x.numel()
    assert second < x.numel()


class Products(TorchDispatchMode):
    """Strides of the operands of every batched product."""

    def __init__(self) -> None:
        super().__init__()
        self.operands: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.bmm.default:
            self.operands += args
        return func(*args, **(kwargs or {}))


@every_layout
@pytest.mark.parametrize("options", AGNOSTIC, ids=str)
def test_products_are_of_the_whole_batch(options: dict[str, Any], layout: str) -> None:
    """An operand whose rows and columns are both apart in memory makes PyTorch multiply image by image on a CPU."""
    head, x = trained(options), features(layout).requires_grad_()
    with Products() as seen:
        torch.autograd.grad(head(x).logits.square().sum(), [x, *head.parameters()])
    assert len(seen.operands) >= 10
    for operand in seen.operands:
        (_, rows, columns), (_, across, along) = operand.shape, operand.stride()
        assert (along == 1 and across >= columns) or (across == 1 and along >= rows), (operand.shape, operand.stride())


@every_layout
def test_per_class_copies_no_features(layout: str) -> None:
    head, x = AttentionalPooling(C, K, per_class=True), features(layout)
    assert x.numel() not in allocated(head, x, backward=True)
    assert allocated(head, x.requires_grad_(), backward=True).count(x.numel()) == 1
    # both maps of all classes at once, and no gradient of the weights for every image
    assert allocated(head, x, backward=True)[0] == 2 * B * K * SIDE**2


@every_layout
@pytest.mark.parametrize("options", [*AGNOSTIC, {"per_class": True}], ids=str)
def test_gradients_lie_as_the_features_do(options: dict[str, Any], layout: str) -> None:
    x = features(layout).requires_grad_()
    trained(options)(x).logits.sum().backward()
    assert x.grad is not None
    assert x.grad.stride() == x.stride()


def formula(x: Tensor, b: Tensor, beta: Tensor | None, activation: Any) -> tuple[Tensor, Tensor]:
    """Eq. 6 in plain operations, which PyTorch differentiates."""
    s = torch.einsum("bcn,pc->bpn", x, b)
    h = activate(s if beta is None else s + beta[None, :, None], activation)
    return h, torch.einsum("bpn,bcn->bpc", h, x) / x.shape[2]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("contiguous", [False, True], ids=["channels apart", "channels contiguous"])
def test_first_and_second_derivatives(activation: Any, contiguous: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(2, 3, 5, generator=generator, dtype=torch.float64)
    if contiguous:
        x = x.transpose(1, 2).contiguous().transpose(1, 2)
    b = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    beta = torch.randn(2, generator=generator, dtype=torch.float64)
    inputs = [t.requires_grad_() for t in (x, b, beta)]

    def run(*values: Tensor) -> tuple[Tensor, Tensor]:
        return attend(*values, activation)

    torch.testing.assert_close(run(*inputs), formula(*inputs, activation))
    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_hessian_of_the_weights(activation: Any) -> None:
    x = features("NHWC", dtype=torch.float64).flatten(2)
    b = torch.randn(1, C, generator=torch.Generator().manual_seed(4), dtype=torch.float64)

    def loss(weights: Tensor, way: Any) -> Tensor:
        h, z = way(x, weights, None, activation)
        return z.square().sum() + h.pow(3).mean()

    ours, theirs = (torch.autograd.functional.hessian(lambda w, way=way: loss(w, way), b) for way in (attend, formula))
    torch.testing.assert_close(ours, theirs)
    assert theirs.abs().max() > 0.1


@every_layout
@pytest.mark.parametrize("options", [*AGNOSTIC, {"per_class": True}], ids=str)
def test_gradients_under_autocast(options: dict[str, Any], layout: str) -> None:
    """Within the rounding of bfloat16, 2^-8, a few times over; in the type and layout of the features."""
    head, x = trained(options), features(layout).requires_grad_()
    sources = [x, *head.parameters()]
    exact = torch.autograd.grad(head(x).logits.square().sum(), sources)
    with torch.autocast("cpu", torch.bfloat16):
        logits = head(x).logits
    found = torch.autograd.grad(logits.float().square().sum(), sources)
    assert found[0].stride() == x.stride()
    for ours, theirs in zip(found, exact, strict=True):
        assert ours.dtype == torch.float32
        assert (ours - theirs).norm() <= 2**-5 * theirs.norm()


def test_gradients_of_single_images() -> None:
    """`torch.func.vmap`, which turns a batch of gradients into one computation."""
    head, x = trained({"rank": 2, "activation": "softmax"}).double(), features("NCHW", dtype=torch.float64)
    weights = {name: value.detach() for name, value in head.named_parameters()}

    def loss(values: dict[str, Tensor], image: Tensor) -> Tensor:
        return torch.func.functional_call(head, values, (image[None],)).logits.square().sum()

    together = torch.func.vmap(torch.func.grad(loss), (None, 0))(weights, x)
    for i, image in enumerate(x):
        alone = torch.func.grad(loss)(weights, image)
        for name, value in alone.items():
            torch.testing.assert_close(together[name][i], value)
