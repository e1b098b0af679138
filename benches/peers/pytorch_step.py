"""One training step of the paper's CIFAR-10 network: sansprop against PyTorch eager, in one run.

The peer is what a scientist would write: contiguous NCHW, autograd, a plain SGD update, float32, the same number of
threads; the norm as mean and variance over axis 0, or, for those who know, as batch_norm over [batch, location and
channel], which is faster. Both start from the same weights (NumPy's generator,
seed 99) on the same minibatch; the losses of the first three steps must agree before anything is timed. Then
single steps of the two alternate, so that a change of the machine's speed meets both.

    python -m venv .venv && .venv/bin/pip install -r benches/peers/requirements.txt
    .venv/bin/python benches/peers/pytorch_step.py [--widths 8,32,64] [--norms axis,batch-norm] [--threads 2] [--steps 10]
"""

import argparse
import itertools
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

STRIDES = [1, 1, 1, 2, 1, 2, 1]
BATCH = 100
ROOT = Path(__file__).resolve().parents[2]


def minibatch():
    """The minibatch of benches/training_step.rs: drawn [location, sample, channel], here NCHW."""
    values = np.random.RandomState(1234).random_sample((32, 32, BATCH, 3)).astype(np.float32)
    images = torch.from_numpy(np.ascontiguousarray(values.transpose(2, 3, 0, 1)))
    targets = torch.nn.functional.one_hot(torch.arange(BATCH) % 10, 10).float() - 0.1
    return images, targets


def initial_weights(width):
    """Weights in PyTorch's [out, in, kh, kw] order, drawn as docs/notation.md (Draws) has them."""
    random = np.random.RandomState(99)
    weights, channels = [], 3
    for _ in STRIDES:
        drawn = random.normal(size=(width, 9 * channels)).astype(np.float32)
        weights.append(torch.from_numpy(drawn.reshape(width, 3, 3, channels).transpose(0, 3, 1, 2).copy()))
        channels = width
    weights.append(torch.from_numpy(random.normal(size=(10, width)).astype(np.float32)))
    biases = [torch.zeros(w.shape[0]) for w in weights]
    return [p.requires_grad_() for p in weights], [p.requires_grad_() for p in biases]


def axis_norm(x):
    """Mean and variance over axis 0."""
    mean = x.mean(0, keepdim=True)
    variance = ((x - mean) ** 2).mean(0, keepdim=True)
    return (x - mean) / torch.sqrt(variance + 1e-6)


def batch_norm(x):
    """The same by the framework's own kernel."""
    flat = torch.nn.functional.batch_norm(x.reshape(x.shape[0], -1), None, None, training=True, eps=1e-6)
    return flat.reshape(x.shape)


NORMS = {"axis": axis_norm, "batch-norm": batch_norm}


def forward(x, weights, biases, norm):
    """The network."""
    for weight, bias, stride in zip(weights, biases, STRIDES):
        x = torch.nn.functional.pad(x, (0, 1, 0, 1) if stride == 2 else (1, 1, 1, 1))
        fan_in = 9 * weight.shape[1]
        x = torch.nn.functional.conv2d(x, weight, stride=stride) / fan_in**0.5 + bias[:, None, None]
        x = torch.relu(norm(x))
    return x.mean((2, 3)) @ weights[-1].T / weights[-1].shape[1] ** 0.5 + biases[-1]


class Peer:
    """The PyTorch side."""

    def __init__(self, width, norm):
        self.norm = norm
        self.images, self.targets = minibatch()
        self.weights, self.biases = initial_weights(width)

    def step(self):
        start = time.perf_counter()
        loss = ((forward(self.images, self.weights, self.biases, self.norm) - self.targets) ** 2).mean()
        parameters = self.weights + self.biases
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients):
                parameter -= gradient
        return loss.item(), (time.perf_counter() - start) * 1e3


class Ours:
    """The sansprop side: the benchmark binary, one step for each line it is sent."""

    def __init__(self, binary, width, threads):
        command = [binary, "--width", str(width), "--threads", str(threads), "--serve"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.losses = [float(v) for v in self.process.stdout.readline().split()[1:]]

    def step(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def build():
    """Compiles the benchmark and returns its path."""
    command = ["cargo", "bench", "-q", "-p", "sansprop", "--bench", "training_step", "--no-run",
               "--message-format", "json"]
    output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout

    messages = [json.loads(line) for line in output.splitlines()]
    return next(m["executable"] for m in messages
                if m.get("executable") and m["target"]["name"] == "training_step")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", default="8,32,64")
    parser.add_argument("--norms", default="axis,batch-norm")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--steps", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    binary = build()
    print(f"PyTorch {torch.__version__} eager against sansprop, {arguments.threads} threads, batch {BATCH}, float32")
    for width, norm in itertools.product(map(int, arguments.widths.split(",")), arguments.norms.split(",")):
        ours, peer = Ours(binary, width, arguments.threads), Peer(width, NORMS[norm])
        losses = [peer.step()[0] for _ in range(3)]
        for mine, theirs in zip(ours.losses, losses):
            if abs(mine - theirs) > 1e-4 * abs(theirs):
                sys.exit(f"width {width}: losses differ: {ours.losses} against {losses}")
        times = [(ours.step(), peer.step()[1]) for _ in range(arguments.steps)]
        ours.close()
        ratios = sorted(theirs / mine for mine, theirs in times)
        columns = [sorted(column) for column in zip(*times)]
        middle = len(times) // 2
        print(f"width {width:4}, norm {norm:10}: sansprop {columns[0][middle]:8.2f} ms ({columns[0][0]:.2f} to {columns[0][-1]:.2f}), "
              f"PyTorch {columns[1][middle]:8.2f} ms ({columns[1][0]:.2f} to {columns[1][-1]:.2f}), "
              f"ratio {ratios[middle]:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})", flush=True)


if __name__ == "__main__":
    main()
