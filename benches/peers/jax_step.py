"""One training step of the paper's CIFAR-10 network: sansprop against JAX on the CPU, in one run.

The peer is one jax.jit of the whole step (value_and_grad, a plain SGD update), whose parameters are donated; NHWC or
NCHW; the norm as mean and variance over axis 0. float32. Weights, minibatch, the check of the losses and the turns are
pytorch_step.py's.

--threads: XLA's CPU client has no option for its threads, but takes their number from the environment's NPROC when it
starts; NPROC is set before that.

    python -m venv .venv && .venv/bin/pip install -r benches/peers/requirements-jax.txt
    .venv/bin/python benches/peers/jax_step.py [--widths 8,32,64] [--layouts nhwc,nchw] [--rule normal]
        [--ours vulkan] [--threads 2] [--steps 10] [--precision f32] [--binary PATH]
"""

import functools
import os
import time

import jax
import jax.numpy as jnp

from common import STRIDES, compare, initial_weights, minibatch, parser

AXES = {
    "norms": ("axis", "axis"),
    "layouts": ("nhwc,nchw", "nhwc, nchw"),
}

# The order of images, and of weights, of each layout.
LAYOUTS = {"nhwc": ("NHWC", "HWIO"), "nchw": ("NCHW", "OIHW")}


def axis_norm(x):
    """Mean and variance over axis 0."""
    mean = x.mean(0, keepdims=True)
    variance = ((x - mean) ** 2).mean(0, keepdims=True)
    return (x - mean) / jnp.sqrt(variance + 1e-6)


NORMS = {"axis": axis_norm}


def forward(x, weights, biases, norm, layout):
    """The network; its SAME pads stride 2 by (0, 1)."""
    images, kernel = LAYOUTS[layout]
    across = [-1 if axis == "C" else 1 for axis in images]
    for weight, bias, stride in zip(weights, biases, STRIDES):
        scale = (9 * weight.shape[kernel.index("I")]) ** -0.5
        x = jax.lax.conv_general_dilated(x, weight * scale, (stride, stride), "SAME",
                                         dimension_numbers=(images, kernel, images))
        x = jax.nn.relu(norm(x + bias.reshape(across)))
    x = x.mean((images.index("H"), images.index("W")))
    return x @ (weights[-1] * weights[-1].shape[0] ** -0.5) + biases[-1]


@functools.partial(jax.jit, static_argnames=("norm", "layout"), donate_argnums=0)
def update(parameters, images, targets, norm, layout):
    """One step: its loss, and the parameters after it."""
    loss_of = lambda p: jnp.square(forward(images, *p, NORMS[norm], layout) - targets).mean()
    loss, gradients = jax.value_and_grad(loss_of)(parameters)
    return loss, jax.tree.map(jnp.subtract, parameters, gradients)


class Peer:
    """The JAX side, in one of its configurations."""

    tolerance = 1e-4

    def __init__(self, width, norm, layout):
        images, targets = minibatch()
        order = lambda names, form: [names.index(axis) for axis in form]
        self.images = jnp.array(images.transpose(order("NHWC", LAYOUTS[layout][0])))
        self.targets = jnp.array(targets)
        weights, biases = initial_weights(width)
        # The head's is [in, out].
        place = lambda w: jnp.array(w.transpose(order("OHWI", LAYOUTS[layout][1])) if w.ndim == 4 else w.T)
        self.parameters = [place(w) for w in weights], [jnp.array(b) for b in biases]
        self.compiled = functools.partial(update, norm=norm, layout=layout)
        self.losses = [self.step()[0] for _ in range(3)]

    def step(self):
        start = time.perf_counter()
        loss, self.parameters = self.compiled(self.parameters, self.images, self.targets)
        jax.block_until_ready(self.parameters)
        return float(loss), (time.perf_counter() - start) * 1e3


def main():
    arguments = parser(__doc__, AXES).parse_args()
    os.environ["NPROC"] = str(arguments.threads)
    jax.config.update("jax_platforms", "cpu")
    compare(f"JAX {jax.__version__} on cpu", arguments, AXES, Peer)


if __name__ == "__main__":
    main()
