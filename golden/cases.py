"""The cases that rules.py runs: one small network and optimiser each, and the data they share."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

SAMPLES, ROWS, COLUMNS, CHANNELS, CLASSES = 24, 7, 5, 2, 3
HELDOUT = 6
STEPS = 10
TARGET_SHIFT = 0.1
INPUT_SEED, LABEL_SEED = 1234, 4321


@dataclass(frozen=True)
class Case:
    """One network with its optimiser; `strides` makes it convolutional, `depth` fully connected."""

    name: str
    width: int
    activation: str
    norm: str
    parameterization: str
    optimizer: str
    learning_rate: float
    batch: int
    seed: int
    strides: tuple = ()
    depth: int = 0

    @property
    def kind(self):
        return "conv" if self.strides else "dense"

    @property
    def taps(self):
        return 9 if self.kind == "conv" else 1

    @property
    def hidden_layers(self):
        return len(self.strides) or self.depth

    @cached_property
    def fan_ins(self):
        """Fan-in of every layer, the head last."""
        first = CHANNELS if self.kind == "conv" else ROWS * COLUMNS * CHANNELS
        hidden = [first] + [self.width] * (self.hidden_layers - 1)
        return [self.taps * channels for channels in hidden] + [self.width]

    @cached_property
    def output_sizes(self):
        """(rows, columns) of every hidden layer's output."""
        if self.kind == "dense":
            return [(1, 1)] * self.depth
        sizes, size = [], (ROWS, COLUMNS)
        for stride in self.strides:
            size = tuple(-(-length // stride) for length in size)
            sizes.append(size)
        return sizes

    def scale(self, layer):
        """Factor of the layer's linear map: 1/sqrt(fan_in) under NTK, none under standard."""
        return self.fan_ins[layer] ** -0.5 if self.parameterization == "ntk" else 1.0

    def description(self):
        """What the JSON says of this case."""
        return {
            "kind": self.kind, "rows": ROWS, "columns": COLUMNS, "channels": CHANNELS, "classes": CLASSES,
            "width": self.width, "strides": list(self.strides), "hidden_layers": self.hidden_layers,
            "activation": self.activation, "norm": self.norm, "parameterization": self.parameterization,
            "optimizer": self.optimizer, "learning_rate": self.learning_rate, "batch": self.batch,
            "seed": self.seed, "samples": SAMPLES, "heldout": HELDOUT, "steps": STEPS,
            "target_shift": TARGET_SHIFT, "input_seed": INPUT_SEED, "label_seed": LABEL_SEED,
        }


CASES = (
    Case("conv-small", 4, "relu", "location", "ntk", "sgd", 0.5, 6, 99, strides=(1, 2, 1)),
    Case("dense-small", 5, "tanh", "none", "standard", "adam", 0.01, 6, 3, depth=2),
    Case("conv-channel", 3, "erf", "channel", "ntk", "adam", 0.05, 8, 5, strides=(2, 1)),
    Case("dense-location", 6, "relu", "location", "ntk", "sgd", 0.2, 12, 7, depth=3),
    Case("conv-none", 4, "tanh", "none", "standard", "sgd", 0.1, 5, 11, strides=(1, 1)),
    Case("conv-linear", 5, "linear", "location", "ntk", "sgd", 0.3, 6, 13, strides=(1, 4)),
    # Its second layer meets an even length (4 rows) at stride 2: nothing padded before, one after.
    Case("conv-even", 3, "relu", "location", "standard", "sgd", 0.2, 8, 17, strides=(2, 2)),
)


def inputs(case):
    """Images [sample, row, column, channel] of 24-bit precision, flattened for dense networks."""
    images = np.random.RandomState(INPUT_SEED).random_sample((SAMPLES, ROWS, COLUMNS, CHANNELS))
    images = torch.from_numpy(images.astype(np.float32).astype(np.float64))
    return images if case.kind == "conv" else images.reshape(SAMPLES, -1)


def labels():
    return np.random.RandomState(LABEL_SEED).permutation(SAMPLES) % CLASSES


def targets():
    """One-hot labels minus the shift."""
    return torch.eye(CLASSES, dtype=torch.float64)[torch.from_numpy(labels())] - TARGET_SHIFT


def minibatches(case):
    """The sample indices of each of the STEPS updates."""
    stream = np.random.RandomState(case.seed)
    batches = []
    while len(batches) < STEPS:
        order = stream.permutation(SAMPLES)
        whole = SAMPLES // case.batch
        batches += [order[i * case.batch:(i + 1) * case.batch] for i in range(whole)]
        stream.permutation(HELDOUT)
    return batches[:STEPS]
