"""What the peers share: the minibatch, the first weights, our side, and the turns of the two.

Weights and minibatch are NumPy arrays, channels last; each peer puts them in its own order. A peer has the losses of
its first three steps (`losses`), how far they may be from ours, relative (`tolerance`), and `step()`, which returns a
loss and milliseconds.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

STRIDES = [1, 1, 1, 2, 1, 2, 1]
BATCH = 100
ROOT = Path(__file__).resolve().parents[2]


def minibatch():
    """The minibatch of benches/training_step.rs: drawn [location, sample, channel], here NHWC; and its targets."""
    values = np.random.RandomState(1234).random_sample((32, 32, BATCH, 3)).astype(np.float32)
    targets = np.eye(10, dtype=np.float32)[np.arange(BATCH) % 10] - np.float32(0.1)
    return np.ascontiguousarray(values.transpose(2, 0, 1, 3)), targets


def initial_weights(width):
    """Weights, [out, kh, kw, in] and the head's [out, in], drawn as docs/notation.md (Draws) has them; biases."""
    random = np.random.RandomState(99)
    weights, channels = [], 3
    for _ in STRIDES:
        drawn = random.normal(size=(width, 9 * channels)).astype(np.float32)
        weights.append(drawn.reshape(width, 3, 3, channels))
        channels = width
    weights.append(random.normal(size=(10, width)).astype(np.float32))
    return weights, [np.zeros(len(w), np.float32) for w in weights]


class Ours:
    """The sansprop side: the benchmark binary, which takes as many steps as it is told."""

    def __init__(self, binary, width, arguments):
        command = [binary, "--width", str(width), "--threads", str(arguments.threads), "--rule", arguments.rule,
                   "--device", arguments.ours, "--precision", arguments.precision, "--serve"]
        self.gpu = arguments.ours != "cpu"
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.losses = [float(v) for v in self.process.stdout.readline().split()[1:]]

    def steps(self, count):
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        return [float(v) for v in self.process.stdout.readline().split()]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def build(benchmark="training_step"):
    """Compiles the benchmark and returns its path."""
    command = ["cargo", "bench", "-q", "-p", "sansprop", "--bench", benchmark, "--no-run",
               "--message-format", "json"]
    output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout

    messages = [json.loads(line) for line in output.splitlines()]
    return next(m["executable"] for m in messages
                if m.get("executable") and m["target"]["name"] == benchmark)


def spread(values):
    """Median, least and largest."""
    values = sorted(values)
    return values[len(values) // 2], values[0], values[-1]


def against(ours, peer, rule, steps):
    """Times of both, after their losses were compared; backprop is the only rule that the peer has."""
    for mine, theirs in zip(ours.losses if rule == "normal" else [], peer.losses):
        if not abs(mine - theirs) <= peer.tolerance * abs(theirs):
            sys.exit(f"losses differ: {ours.losses} against {peer.losses}")
    # A GPU of ours takes an epoch of 64 minibatches before the host looks, whatever it is told; the peer as many, or as
    # many as a fifth of a second holds. The first turn is not counted.
    if ours.gpu:
        together = max(4, min(64, round(200 / peer.step(4)[1])))
        return [(ours.steps(1)[0], peer.step(together)[1]) for _ in range(steps + 1)][1:]
    theirs = lambda count: [peer.step()[1] for _ in range(count)]
    return [(turn(ours.steps), turn(theirs)) for _ in range(steps)]


def turn(take):
    """One side's turn, as in training: the threads of the other, which may wait for work in a loop, come to rest, two
    steps that are not counted fill the caches; then the median of steps for a tenth of a second, or of three. `take`
    takes so many steps without a pause and returns their milliseconds."""
    time.sleep(0.3)
    take(1)
    count = max(3, round(100 / take(1)[0]))
    return spread(take(count))[0]


def parser(description, axes, threads=os.cpu_count()):
    """The options that every peer has. A peer's configurations are the product of its axes: option's name to default
    and help."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    words = lambda text: text.split(",")
    parser.add_argument("--widths", type=words, default="8,32,64")
    for axis, (default, text) in axes.items():
        parser.add_argument(f"--{axis}", type=words, default=default, help=text)
    parser.add_argument("--ours", default="cpu", help="our device, as sansprop devices lists them")
    parser.add_argument("--rule", default="normal", help="our rule; the peer always takes backprop's step")
    parser.add_argument("--precision", default="f32", help="ours: f32, f32-strict, tf32, bf16")
    parser.add_argument("--threads", type=int, default=threads)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--binary", help="the compiled benchmark; without it, cargo builds it")
    return parser


def compare(title, arguments, axes, make):
    """Prints a line for each width and configuration, then each width's best; `make` makes the peer of a width and a
    configuration's words, `title` begins with the peer's name."""
    binary = arguments.binary or build()
    peer = title.split()[0]
    print(f"{title} against sansprop on {arguments.ours} in {arguments.precision}, "
          f"rule {arguments.rule}, {arguments.threads} threads, batch {BATCH}")
    for width in map(int, arguments.widths):
        medians = []
        for configuration in itertools.product(*(getattr(arguments, axis) for axis in axes)):
            ours = Ours(binary, width, arguments)
            times = against(ours, make(width, *configuration), arguments.rule, arguments.steps)
            ours.close()
            mine, theirs = (spread(column) for column in zip(*times))
            ratio = spread(theirs / mine for mine, theirs in times)
            name = f"norm {', '.join(configuration)}"
            medians.append((theirs[0], ratio[0], name))
            print(f"width {width:4}, {name:45}: sansprop {mine[0]:8.2f} ms ({mine[1]:.2f} to {mine[2]:.2f}), "
                  f"{peer} {theirs[0]:8.2f} ms ({theirs[1]:.2f} to {theirs[2]:.2f}), "
                  f"ratio {ratio[0]:.2f} ({ratio[1]:.2f} to {ratio[2]:.2f})", flush=True)
        best = min(medians)
        print(f"width {width:4}, best of {peer}: {best[2]}, ratio {best[1]:.2f}", flush=True)
