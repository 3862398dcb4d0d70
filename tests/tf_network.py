"""The released code's network in TensorFlow, written from the facts about it, with seeded weights.

A program of its own: `python tf_network.py FOLDER CLASSES HxW ...`, with an interpreter that has TensorFlow. It writes
a checkpoint for every variant, `FOLDER/VARIANT/model.ckpt-12000`, under the published names, and `FOLDER/HxW.npz` with
an image and what the network makes of it. The checkpoint of the pose variant has all that a training leaves, the
momentum of every weight among it; the others only the model's variables and the step. `FOLDER/foreign/` has a few
variables, one under a wrong name and one of a wrong shape. Nothing here is shared with attnpool.
"""

from __future__ import annotations

import os
import sys
import zlib
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow

tf = tensorflow.compat.v1
# block: channels of its output, of its bottleneck, units, stride of its last unit
BLOCKS = ((256, 64, 3, 2), (512, 128, 4, 2), (1024, 256, 23, 2), (2048, 512, 3, 1))
STEP = 12000


def variable(name: str, shape: tuple[int, ...], mean: float, std: float, *, spread: float = 0.0, train: bool = True):
    """A variable from N(mean, std), times a factor from [1 - spread, 1 + spread]; the same name has the same values."""
    seed = zlib.crc32(f"{tf.get_variable_scope().name}/{name}".encode()) % 2**31
    factor = tensorflow.random.stateless_uniform(shape, (seed, 1), 1 - spread, 1 + spread)
    values = factor * tensorflow.random.stateless_normal(shape, (seed, 2), mean, std)
    return tf.get_variable(name, initializer=values, trainable=train)


def convolution(x, channels: int, size: int, stride: int, gain: float = 1.0):
    """Weights that keep the size of activations behind a relu, HWIO; explicit padding where there is a stride."""
    inputs = x.shape[3]
    weights = variable("weights", (size, size, inputs, channels), 0.0, gain * (2 / (size * size * inputs)) ** 0.5)
    if stride > 1 and size > 1:
        before = (size - 1) // 2
        x = tensorflow.pad(x, ((0, 0), (before, size - 1 - before), (before, size - 1 - before), (0, 0)))
        return tensorflow.nn.conv2d(x, weights, stride, "VALID")
    return tensorflow.nn.conv2d(x, weights, stride, "SAME")


def normalised(x, gain: float, variance: float):
    channels = (x.shape[3],)
    with tf.variable_scope("BatchNorm"):
        gamma = variable("gamma", channels, gain, 0.0, spread=0.5)
        beta = variable("beta", channels, 0.0, 0.1)
        mean = variable("moving_mean", channels, 0.0, 0.1 * variance**0.5, train=False)
        moving = variable("moving_variance", channels, variance, 0.0, spread=0.5, train=False)
    return tensorflow.nn.batch_normalization(x, mean, moving, beta, gamma, 1e-5)


def layer(scope: str, x, channels: int, size: int, stride: int, *, gain: float = 1.0, variance: float = 2.0):
    with tf.variable_scope(scope):
        return normalised(convolution(x, channels, size, stride), gain, variance)


def unit(x, channels: int, bottleneck: int, stride: int):
    """A residual unit; its stride stands on the 3x3 convolution and on the shortcut."""
    relu = tensorflow.nn.relu
    with tf.variable_scope("bottleneck_v1"):
        if x.shape[3] == channels:
            shortcut = x if stride == 1 else tensorflow.nn.max_pool2d(x, 1, stride, "SAME")
        else:
            shortcut = layer("shortcut", x, channels, 1, stride)
        inner = relu(layer("conv1", x, bottleneck, 1, 1))
        inner = relu(layer("conv2", inner, bottleneck, 3, stride))
        return relu(shortcut + layer("conv3", inner, channels, 1, 1, gain=0.3))


def resnet(x):
    """`resnet_v1_101` without its classifier, on RGB 0..255."""
    with tf.variable_scope("resnet_v1_101"):
        x = tensorflow.nn.relu(layer("conv1", x - 128.0, 64, 7, 2, variance=10000.0))
        x = tensorflow.nn.max_pool2d(x, 3, 2, "SAME")
        for block, (channels, bottleneck, units, stride) in enumerate(BLOCKS, 1):
            for number in range(1, units + 1):
                with tf.variable_scope(f"block{block}/unit_{number}"):
                    x = unit(x, channels, bottleneck, stride if number == units else 1)
    return x


def linear(scope: str, x, channels: int):
    """A 1x1 convolution with biases."""
    with tf.variable_scope(scope):
        y = convolution(x, channels, 1, 1)
        return y + variable("biases", (channels,), 0.0, 0.5)


def attention(variant: str, features, hidden, classes: int):
    """Both attention maps and their score, in a scope of the variant's own (`published` takes it off)."""
    with tf.variable_scope(f"{variant}/PosePrelogitsBasedAttention"):
        looked_at = hidden if variant == "pose" else features
        bottom_up = linear("Conv2d_PrePose_Attn", looked_at, classes if variant == "per-class" else 1)
        top_down = linear("Conv", features, classes)
    return {"logits": tensorflow.reduce_mean(bottom_up * top_down, (1, 2)), "bottom_up": bottom_up}


def network(images, classes: int):
    """What every variant returns: `(variant, what) -> tensor`."""
    features = resnet(images)
    with tf.variable_scope("resnet_v1_101"):
        pooled = tensorflow.reduce_mean(features, (1, 2), keepdims=True)
        made = {("baseline", "logits"): linear("logits", pooled, classes)[:, 0, 0]}
    with tf.variable_scope("PoseLogits"):
        hidden = tensorflow.nn.relu(linear("ExtraConv2d_1x1", features, 768))
        made["pose", "pose"] = linear("Conv2d_1c_1x1", hidden, 16)
    for variant in ("linear", "pose", "per-class"):
        made |= {(variant, what): y for what, y in attention(variant, features, hidden, classes).items()}
    return made


def published(variables, variant: str) -> dict[str, object]:
    """A variant's variables by the names that they have in a checkpoint."""
    names = {v.op.name: v for v in variables}
    private = ("linear/", "pose/", "per-class/")
    kept = {name: v for name, v in names.items() if not name.startswith(private) or name.startswith(f"{variant}/")}
    return {name.removeprefix(f"{variant}/"): v for name, v in kept.items()}


def image(height: int, width: int) -> np.ndarray:
    """Patches of colour, with noise."""
    random = np.random.default_rng((height, width))
    patches = random.integers(0, 256, (-(-height // 24), -(-width // 24), 3))
    patches = np.kron(patches, np.ones((24, 24, 1)))[:height, :width]
    return np.clip(patches + random.normal(0, 30, patches.shape), 0, 255).round().astype(np.uint8)


def main(folder: Path, classes: int, sizes: list[str]) -> None:
    tf.disable_eager_execution()
    images = tf.placeholder(tensorflow.float32, (1, None, None, 3))
    made = network(images, classes)
    step = tf.train.get_or_create_global_step()
    optimizer = tf.train.MomentumOptimizer(0.001, 0.9)  # one update makes the slots, and fills them
    update = optimizer.apply_gradients([(0.1 * v, v) for v in tf.trainable_variables()], global_step=step)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        session.run(update)
        session.run(step.assign(STEP))
        for variant in ("baseline", "linear", "pose", "per-class"):
            variables = tf.global_variables()
            if variant != "pose":
                variables = [v for v in variables if not v.op.name.endswith("/Momentum")]
            saver = tf.train.Saver(published(variables, variant))
            saver.save(session, str(folder / variant / "model.ckpt"), STEP, write_meta_graph=False)
        names = published(tf.global_variables(), "linear")
        head, net = "PosePrelogitsBasedAttention/Conv2d_PrePose_Attn", "resnet_v1_101/conv1"
        foreign = {
            f"{net}/weights": names[f"{net}/weights"],
            f"{net}/BatchNorm/gamma": names["resnet_v1_101/block1/unit_1/bottleneck_v1/shortcut/BatchNorm/gamma"],
            f"{head}1/biases": names[f"{head}/biases"],
        }
        tf.train.Saver(foreign).save(session, str(folder / "foreign" / "model.ckpt"), STEP, write_meta_graph=False)
        for size in sizes:
            pixels = image(*map(int, size.split("x")))
            results = session.run(made, {images: pixels[None].astype(np.float32)})
            arrays = {f"{variant}/{what}": array for (variant, what), array in results.items()}
            np.savez(folder / f"{size}.npz", pixels=pixels, **arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
