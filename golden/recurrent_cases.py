"""The Add task (App. F, Eq. 59) and the recurrent networks that recurrent.py trains on it."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

DATA_SEED = 99
VARIANTS = ("published", "causal")


@dataclass(frozen=True)
class Case:
    """One recurrent network with scalar input and output, its data and its SGD."""

    name: str
    length: int
    width: int
    sequences: int
    train: int
    batch: int
    learning_rate: float
    activation: str
    variant: str
    steps: int
    seed: int = 99

    @property
    def scale(self):
        """1/sqrt(m), the factor of the hidden map and of the readout; the scalar input has none."""
        return self.width ** -0.5

    @property
    def test(self):
        return self.sequences - self.train

    @property
    def epochs(self):
        return self.steps * self.batch // self.train

    @cached_property
    def inputs(self):
        """[sequence, step], zeros and ones."""
        drawn = np.random.RandomState(DATA_SEED).binomial(1, 0.5, (self.sequences, self.length))
        return torch.from_numpy(drawn.astype(np.float64))

    @cached_property
    def targets(self):
        return add_targets(self.inputs, self.variant)

    def description(self):
        """What the JSON says of this case."""
        return {
            "kind": "recurrent", "length": self.length, "width": self.width, "sequences": self.sequences,
            "train": self.train, "test": self.test, "batch": self.batch, "learning_rate": self.learning_rate,
            "activation": self.activation, "variant": self.variant, "parameterization": "ntk", "optimizer": "sgd",
            "steps": self.steps, "epochs": self.epochs, "seed": self.seed, "data_seed": DATA_SEED,
        }


SMALL = (
    Case("add-small", 12, 6, 24, 16, 4, 0.005, "relu", "published", steps=8),
    Case("add-tanh", 12, 3, 24, 16, 8, 0.01, "tanh", "causal", steps=8),
)


def task(width, epochs):
    """The Add task of the paper: 300 sequences of 100 steps to train, 100 to test."""
    return Case("add-task", 100, width, 400, 300, 50, 0.001, "relu", "published", steps=6 * epochs)


def add_targets(x, variant):
    """y = 0.5 + 0.5 x(t-2) - 0.25 x(t-5), the lags by circular rolls.

    `published` zeroes a lag's term in the first `lag` sequences (the published generator's indexing slip, which
    means the first `lag` steps); `causal` zeroes it in the first `lag` steps.
    """
    assert variant in VARIANTS
    y = torch.full_like(x, 0.5)
    for lag, weight in ((2, 0.5), (5, -0.25)):
        term = torch.roll(x, lag, dims=1)
        if variant == "published":
            term[:lag] = 0
        else:
            term[:, :lag] = 0
        y += weight * term
    return y


def chance_loss(y):
    """The loss of the constant output 0.5."""
    return ((y - 0.5) ** 2).mean(0).sum().item()


def whole_batches(order, batch, first=0):
    """An order cut into minibatches, `first` added to each index."""
    return [first + order[start:start + batch] for start in range(0, len(order) - batch + 1, batch)]


def epochs(case):
    """Yields (training, test, train-evaluation) minibatches of each epoch: three permutations of one stream."""
    stream = np.random.RandomState(case.seed)
    for _ in range(case.epochs):
        training = whole_batches(stream.permutation(case.train), case.batch)
        test = whole_batches(stream.permutation(case.test), case.batch, case.train)
        yield training, test, whole_batches(stream.permutation(case.train), case.batch)
