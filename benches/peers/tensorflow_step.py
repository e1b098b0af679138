"""One training step of the paper's CIFAR-10 network: sansprop against TensorFlow on the CPU, in one run.

The peer is a tf.function (NHWC, gradient tape, a plain SGD update) as a graph or compiled by XLA (jit_compile=True);
the norm as mean and variance over axis 0 or as the framework's fused batch norm over [batch, 1, 1, location and
channel], whose statistics are then of each location and channel. float32. Weights, minibatch, the check of the losses
and the turns are pytorch_step.py's.

--threads sets TensorFlow's intra-op threads, on which the kernels compute (XLA's too), before TensorFlow starts; the
inter-op threads, which start the kernels, are one, so that no two kernels use them at once. That one takes a small
share of the work beside the others; `taskset -c 0,1` before the command holds all of it, and ours, to two cores.

    python -m venv .venv && .venv/bin/pip install -r benches/peers/requirements-tensorflow.txt
    .venv/bin/python benches/peers/tensorflow_step.py [--widths 8,32,64] [--norms axis,batch-norm]
        [--modes graph,xla] [--rule normal] [--ours vulkan] [--threads 2] [--steps 10] [--precision f32]
        [--binary PATH]
"""

import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf

from common import STRIDES, compare, initial_weights, minibatch, parser

AXES = {
    "norms": ("axis,batch-norm", "axis, batch-norm"),
    "modes": ("graph,xla", "graph, xla"),
}


def axis_norm(x):
    """Mean and variance over axis 0."""
    mean = tf.reduce_mean(x, 0, keepdims=True)
    variance = tf.reduce_mean(tf.square(x - mean), 0, keepdims=True)
    return (x - mean) / tf.sqrt(variance + 1e-6)


def batch_norm(x):
    """The same by the framework's own kernel; tf.compat.v1.nn.fused_batch_norm would raise epsilon to 1.001e-5."""
    features = x.shape[1] * x.shape[2] * x.shape[3]
    flat = tf.raw_ops.FusedBatchNormV3(
        x=tf.reshape(x, [x.shape[0], 1, 1, features]), scale=tf.ones(features), offset=tf.zeros(features),
        mean=tf.constant([]), variance=tf.constant([]), epsilon=1e-6, data_format="NHWC", is_training=True).y
    return tf.reshape(flat, x.shape)


NORMS = {"axis": axis_norm, "batch-norm": batch_norm}


def forward(x, weights, biases, norm):
    """The network; its SAME pads stride 2 by (0, 1)."""
    for weight, bias, stride in zip(weights, biases, STRIDES):
        scale = (9 * weight.shape[2]) ** -0.5
        x = tf.nn.relu(norm(tf.nn.conv2d(x, weight * scale, stride, "SAME") + bias))
    return tf.reduce_mean(x, (1, 2)) @ (weights[-1] * weights[-1].shape[0] ** -0.5) + biases[-1]


class Peer:
    """The TensorFlow side, in one of its configurations."""

    tolerance = 1e-4

    def __init__(self, width, norm, mode):
        self.norm = NORMS[norm]
        self.images, self.targets = (tf.constant(values) for values in minibatch())
        weights, biases = initial_weights(width)
        # [kh, kw, in, out], the head's [in, out].
        self.weights = [tf.Variable(w.transpose(1, 2, 3, 0) if w.ndim == 4 else w.T) for w in weights]
        self.biases = [tf.Variable(b) for b in biases]
        self.compiled = tf.function(self.update, jit_compile=mode == "xla", autograph=False)
        self.losses = [self.step()[0] for _ in range(3)]

    def update(self):
        with tf.GradientTape() as tape:
            output = forward(self.images, self.weights, self.biases, self.norm)
            loss = tf.reduce_mean(tf.square(output - self.targets))
        parameters = self.weights + self.biases
        for parameter, gradient in zip(parameters, tape.gradient(loss, parameters)):
            parameter.assign_sub(gradient)
        return loss

    def step(self):
        start = time.perf_counter()
        loss = float(self.compiled())
        return loss, (time.perf_counter() - start) * 1e3


def main():
    arguments = parser(__doc__, AXES).parse_args()
    tf.config.set_visible_devices([], "GPU")
    tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    compare(f"TensorFlow {tf.__version__} on cpu", arguments, AXES, Peer)


if __name__ == "__main__":
    main()
