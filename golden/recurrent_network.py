"""The recurrent network of App. E and F in float64: draws, states, outputs, loss.

    h_t = sigma(x_t W_i + h_(t-1) W_h / sqrt(m) + b_h),    o_t = h_t W_o / sqrt(m) + b_o

Parameters are a dict from the names of TENSORS; h_0 is trained, one row for each row of a minibatch.
"""

from dataclasses import dataclass, field

import numpy as np
import torch

from network import ACTIVATIONS, single

TENSORS = ("input", "hidden", "readout", "hidden_bias", "readout_bias", "initial_state")


@dataclass
class Drawn:
    """Everything drawn before training: initial parameters and the fixed feedback of fa and dfa."""

    initial: dict
    feedback: dict = field(default_factory=dict)  # fa: {hidden, readout}; dfa: {direct}


def draw(case, rule):
    """W_i, W_h, then fa's F_h or dfa's B, then W_o, then fa's F_o; biases and initial state 0."""
    stream, m = np.random.RandomState(case.seed), case.width
    initial = {
        "hidden_bias": torch.zeros(m, dtype=torch.float64),
        "readout_bias": torch.zeros((), dtype=torch.float64),
        "initial_state": torch.zeros(case.batch, m, dtype=torch.float64),
    }
    feedback = {}
    initial["input"] = single(stream.normal(size=m))
    initial["hidden"] = single(stream.normal(size=(m, m)))
    if rule == "fa":
        feedback["hidden"] = single(stream.normal(size=(m, m)))
    if rule == "dfa":
        feedback["direct"] = single(stream.normal(0.0, 1 / np.sqrt(m), size=m))
    initial["readout"] = single(stream.normal(size=m))
    if rule == "fa":
        feedback["readout"] = single(stream.normal(size=m))
    return Drawn({name: initial[name] for name in TENSORS}, feedback)


def advance(case, parameters, state, x):
    """h_t from h_(t-1) [batch, m] and x_t [batch]."""
    pre = x[:, None] * parameters["input"] + state @ parameters["hidden"] * case.scale + parameters["hidden_bias"]
    return ACTIVATIONS[case.activation](pre)


def read(case, parameters, state):
    """o_t [batch] from h_t."""
    return state @ parameters["readout"] * case.scale + parameters["readout_bias"]


def states(case, parameters, x):
    """[h_0, h_1, ..., h_T]."""
    found = [parameters["initial_state"]]
    for t in range(x.shape[1]):
        found.append(advance(case, parameters, found[-1], x[:, t]))
    return found


def output(case, parameters, x):
    """o [batch, step]."""
    return torch.stack([read(case, parameters, h) for h in states(case, parameters, x)[1:]], 1)


def loss(o, y):
    """Mean over the batch, sum over steps."""
    return ((o - y) ** 2).mean(0).sum()


def error(o, y):
    """The gradient of the loss by o [batch, step]."""
    return 2 * (o - y).detach() / o.shape[0]


def evaluate(case, parameters, batches):
    """Loss over whole minibatches, each starting from the trained initial state."""
    with torch.no_grad():
        losses = [loss(output(case, parameters, case.inputs[b]), case.targets[b]).item() for b in batches]
    return sum(losses) / len(losses)
