"""The products of dense layers and recurrent cells: sansprop's kernels against PyTorch's matrix products, in one run.

A dense layer of `width` units on a batch of 50 has a product in its forward pass, in its feedback and in its weight
gradient; a recurrent cell has them at every step, and one product over all steps for its gradient. The peer is the bare
product, `torch.mm` into memory that is there; ours are whole kernels with bias and activation. Results are compared
before times are, by their root mean squares. Both sides take turns; a width's figures are each side's best.

    python -m venv .venv && .venv/bin/pip install -r benches/peers/requirements.txt
    .venv/bin/python benches/peers/pytorch_products.py [--widths 1024,2048,4096] [--steps 1,20] [--threads 2]
        [--turns 3]
"""

import argparse
import os
import subprocess
import sys
import time

import numpy as np
import torch

from common import build

BATCH = 50
KERNELS = ["forward", "feedback", "gradient"]


def values(*shape):
    """The values of benches/products.rs."""
    i = np.arange(np.prod(shape), dtype=np.int64)
    return torch.from_numpy(((i * 7919 % 1000).astype(np.float32) / np.float32(1000) - np.float32(0.5)).reshape(shape))


def peer(width, steps):
    """Each kernel's work, and its result."""
    weight = values(width, width) / np.sqrt(width).astype(np.float32)
    states = [torch.empty(BATCH, width) for _ in range(steps + 1)]
    deltas = [torch.empty(BATCH, width) for _ in range(steps + 1)]
    start = values(BATCH, width)
    states[0].copy_(start)
    deltas[0].copy_(start)
    rows, signals = values((steps + 1) * BATCH, width)[:steps * BATCH], values(steps * BATCH, width)
    gradient = torch.empty(width, width)

    def forward():
        for t in range(steps):
            torch.mm(states[t], weight, out=states[t + 1])

    def feedback():
        # A cell's last delta is the signal itself; a dense layer's is a product.
        for t in range(max(steps - 1, 1)):
            torch.mm(deltas[t], weight.t(), out=deltas[t + 1])

    def gradients():
        torch.mm(rows.t(), signals, out=gradient)

    results = [lambda: states[steps], lambda: deltas[max(steps - 1, 1)],
               lambda: gradient / np.sqrt(width).astype(np.float32)]
    return list(zip([forward, feedback, gradients], results))


def least(work, repeats=8):
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append((time.perf_counter() - start) * 1e3)
    return min(times)


def ours(binary, width, steps, threads):
    """Root mean square and least milliseconds of each kernel."""
    command = [binary, "--width", width, "--batch", BATCH, "--steps", steps, "--threads", threads, "--repeats", 8]
    output = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout
    lines = (line.split() for line in output.splitlines()[1:])
    return {name: (float(rms), float(ms)) for name, rms, ms, _ in lines}


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    numbers = lambda text: list(map(int, text.split(",")))
    options.add_argument("--widths", type=numbers, default="1024,2048,4096")
    options.add_argument("--steps", type=numbers, default="1,20", help="1: a dense layer; more: a recurrent cell")
    options.add_argument("--threads", type=int, default=os.cpu_count())
    options.add_argument("--turns", type=int, default=3)
    options.add_argument("--binary", help="the compiled benchmark; without it, cargo builds it")
    arguments = options.parse_args()
    binary = arguments.binary or build("products")
    torch.set_num_threads(arguments.threads)
    print(f"PyTorch {torch.__version__} against sansprop in f32, {arguments.threads} threads, batch {BATCH}, GFLOP/s")
    for steps in arguments.steps:
        for width in arguments.widths:
            theirs = peer(width, steps)
            best = {name: [np.inf, np.inf] for name in KERNELS}
            for _ in range(arguments.turns):
                mine = ours(binary, width, steps, arguments.threads)
                for name, (work, result) in zip(KERNELS, theirs):
                    best[name][0] = min(best[name][0], mine[name][1])
                    best[name][1] = min(best[name][1], least(work))
                    rms = float(result().double().square().mean().sqrt())
                    if not abs(rms - mine[name][0]) <= 1e-4 * rms:
                        sys.exit(f"{name}, width {width}: results differ, {mine[name][0]} against {rms}")
            work = 2e-6 * width * width * BATCH * steps
            # A cell's feedback has a product fewer than it has states; ours computes the initial state's, too.
            their_work = {name: work for name in KERNELS}
            their_work["feedback"] = work / steps * max(steps - 1, 1)
            rates = {name: (work / best[name][0], their_work[name] / best[name][1]) for name in KERNELS}
            line = ", ".join(f"{name} {a:.0f} / {b:.0f}" for name, (a, b) in rates.items())
            whole = sum(1 / b for _, b in rates.values()) / sum(1 / a for a, _ in rates.values())
            print(f"{steps:3} times {width:5} to {width:5}: sansprop / PyTorch: {line}; together {whole:.2f}", flush=True)


if __name__ == "__main__":
    main()
