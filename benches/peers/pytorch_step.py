"""One training step of the paper's CIFAR-10 network: sansprop against PyTorch, in one run.

The peer is what a scientist would write (NCHW, autograd, a plain SGD update) and what an expert would make of it:
the norm as mean and variance over axis 0 or as the framework's batch_norm over [batch, location and channel]; eager,
torch.compile or, on CUDA, the whole step as a CUDA graph; contiguous or channels_last; float32, bf16
autocast, on CUDA also tf32. Both sides start from the same weights (NumPy's generator, seed 99) on the same minibatch; the
losses of the first three steps must agree before anything is timed. Then turns of a few steps alternate, so that a
change of the machine's speed meets both. The last line of each width is the best configuration of the peer.

    python -m venv .venv && .venv/bin/pip install -r benches/peers/requirements.txt
    .venv/bin/python benches/peers/pytorch_step.py [--widths 8,32,64] [--norms axis,batch-norm]
        [--modes eager,compile] [--layouts contiguous,channels-last] [--precisions float32] [--rule normal]
        [--device cpu] [--ours vulkan] [--threads 2] [--steps 10] [--precision f32]
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
    """The PyTorch side, in one of its configurations."""

    def __init__(self, width, norm, mode, layout, precision, device):
        self.norm = NORMS[norm]
        self.bf16 = precision == "bf16"
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
        torch.backends.cudnn.benchmark = True
        form = torch.channels_last if layout == "channels-last" else torch.contiguous_format
        self.images, self.targets = (values.to(device) for values in minibatch())
        self.images = self.images.contiguous(memory_format=form)
        self.weights, self.biases = initial_weights(width)
        place = lambda p: p.detach().to(device).contiguous(
            memory_format=form if p.dim() == 4 else torch.contiguous_format).requires_grad_()
        self.weights, self.biases = [place(p) for p in self.weights], [place(p) for p in self.biases]
        self.device = device
        # Every width is compiled by itself, with its sizes as constants.
        torch._dynamo.reset()
        self.loss_of = torch.compile(self.loss, dynamic=False) if mode == "compile" else self.loss
        self.graph = None
        self.losses = [self.step()[0] for _ in range(3)]
        if mode == "graphs":
            self.capture()

    def loss(self):
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.bf16):
            output = forward(self.images, self.weights, self.biases, self.norm)
        return ((output.float() - self.targets) ** 2).mean()

    def update(self):
        """One step; its loss stays on the device."""
        loss = self.loss_of()
        parameters = self.weights + self.biases
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients):
                parameter -= gradient
        return loss.detach()

    def capture(self):
        """Records a step, to be replayed without the host."""
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            self.update()
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.captured = self.update()

    def step(self):
        start = time.perf_counter()
        if self.graph is None:
            loss = self.update()
        else:
            self.graph.replay()
            loss = self.captured
        return loss.item(), (time.perf_counter() - start) * 1e3


class Ours:
    """The sansprop side: the benchmark binary, one step for each line it is sent."""

    def __init__(self, binary, width, arguments):
        command = [binary, "--width", str(width), "--threads", str(arguments.threads), "--rule", arguments.rule,
                   "--device", arguments.ours, "--precision", arguments.precision, "--serve"]
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


# How far losses may be apart: relative, by the peer's precision.
TOLERANCE = {"float32": 1e-4, "tf32": 1e-2, "bf16": 5e-2}


def spread(values):
    """Median, least and largest."""
    values = sorted(values)
    return values[len(values) // 2], values[0], values[-1]


def against(ours, peer, precision, rule, steps):
    """Times of both, after their losses were compared; backprop is the only rule that the peer has."""
    for mine, theirs in zip(ours.losses if rule == "normal" else [], peer.losses):
        if abs(mine - theirs) > TOLERANCE[precision] * abs(theirs):
            sys.exit(f"losses differ: {ours.losses} against {peer.losses}")
    return [(turn(ours.step), turn(lambda: peer.step()[1])) for _ in range(steps)]


def turn(step):
    """One side's turn: the threads of the other, which may wait for work in a loop, come to rest, and one step that is
    not counted fills the caches, as in training; then the median of three."""
    time.sleep(0.3)
    step()
    return spread([step() for _ in range(3)])[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words = lambda text: text.split(",")
    parser.add_argument("--widths", type=words, default="8,32,64")
    parser.add_argument("--norms", type=words, default="axis,batch-norm")
    parser.add_argument("--modes", type=words, default="eager", help="eager, compile, graphs")
    parser.add_argument("--layouts", type=words, default="contiguous", help="contiguous, channels-last")
    parser.add_argument("--precisions", type=words, default="float32", help="of the peer: float32, tf32, bf16")
    parser.add_argument("--device", default="cpu", help="of the peer: cpu, cuda")
    parser.add_argument("--ours", default="cpu", help="our device, as sansprop devices lists them")
    parser.add_argument("--rule", default="normal", help="our rule; the peer always takes backprop's step")
    parser.add_argument("--precision", default="f32", help="ours: f32, f32-strict, bf16")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--steps", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    binary = build()
    print(f"PyTorch {torch.__version__} on {arguments.device} against sansprop on {arguments.ours} in {arguments.precision}, "
          f"rule {arguments.rule}, {arguments.threads} threads, batch {BATCH}")
    for width in map(int, arguments.widths):
        medians = []
        configurations = itertools.product(
            arguments.norms, arguments.modes, arguments.layouts, arguments.precisions)
        for norm, mode, layout, precision in configurations:
            ours = Ours(binary, width, arguments)
            peer = Peer(width, norm, mode, layout, precision, arguments.device)
            times = against(ours, peer, precision, arguments.rule, arguments.steps)
            ours.close()
            mine, theirs = (spread(column) for column in zip(*times))
            ratio = spread(theirs / mine for mine, theirs in times)
            name = f"norm {norm}, {mode}, {layout}, {precision}"
            medians.append((theirs[0], ratio[0], name))
            print(f"width {width:4}, {name:45}: sansprop {mine[0]:8.2f} ms ({mine[1]:.2f} to {mine[2]:.2f}), "
                  f"PyTorch {theirs[0]:8.2f} ms ({theirs[1]:.2f} to {theirs[2]:.2f}), "
                  f"ratio {ratio[0]:.2f} ({ratio[1]:.2f} to {ratio[2]:.2f})", flush=True)
        best = min(medians)
        print(f"width {width:4}, best of PyTorch: {best[2]}, ratio {best[1]:.2f}", flush=True)


if __name__ == "__main__":
    main()
