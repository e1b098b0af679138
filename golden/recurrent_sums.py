"""Second derivation of the recurrent rules, only to check recurrent_rules.py against.

Eq. 58 as printed: explicit sums over pairs of a step i, where a signal lands, and a step j, whose error it carries,
with the Jacobians of h_j by h_i multiplied up forwards in time. NumPy alone, no reverse pass.
"""

import numpy as np

from recurrent_network import TENSORS

FUNCTIONS = {
    "relu": (lambda z: np.where(z > 0, z, 0.0), lambda z: (z > 0).astype(float)),
    "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
}


class Run:
    """States h_0 ... h_T, pre-activations and slopes (None at 0)."""

    def __init__(self, case, parameters, state, x):
        value, slope = FUNCTIONS[case.activation]
        self.h, self.pre, self.slope = [state], [None], [None]
        for t in range(x.shape[1]):
            recurrent = np.einsum("bi,ij->bj", self.h[-1], parameters["hidden"]) / np.sqrt(case.width)
            self.pre.append(np.outer(x[:, t], parameters["input"]) + recurrent + parameters["hidden_bias"])
            self.h.append(value(self.pre[-1]))
            self.slope.append(slope(self.pre[-1]))


def landing(case, path, weights, e, strict):
    """The signal [batch, m] on each of h_0 ... h_T: from steps j > i, or (not strict) j >= i."""
    root, signals = np.sqrt(case.width), []
    for i in range(case.length + 1):
        signal = np.zeros_like(path.h[0])
        jacobian = np.broadcast_to(np.eye(case.width), (len(signal), case.width, case.width))  # dh_j/dh_i
        for j in range(i, case.length + 1):
            if j > i:
                jacobian = np.einsum("bo,ko,bki->boi", path.slope[j], weights["hidden"], jacobian) / root
            if j > 0 and (j > i or not strict):
                signal = signal + np.einsum("b,o,boi->bi", e[:, j - 1], weights["readout"], jacobian) / root
        signals.append(signal)
    return signals


def gradients_from(case, signals, local, x, e):
    """Signals meet the local run: its slopes, its h_(i-1), and x_i."""
    root, steps = np.sqrt(case.width), range(1, case.length + 1)
    deltas = [None] + [local.slope[i] * signals[i] for i in steps]
    return {
        "input": sum(x[:, i - 1] @ deltas[i] for i in steps),
        "hidden": sum(local.h[i - 1].T @ deltas[i] for i in steps) / root,
        "readout": sum(e[:, i - 1] @ local.h[i] for i in steps) / root,
        "hidden_bias": sum(deltas[i].sum(0) for i in steps),
        "readout_bias": e.sum(),
        "initial_state": signals[0],
    }


def by_sums(rule, case, now, drawn, x, e, strict=None):
    """The rule's row: feedback weights, slopes of the path, local run, and whether a step's own error is left out."""
    now, initial, feedback = ({n: p.numpy() for n, p in d.items()} for d in (now, drawn.initial, drawn.feedback))
    x, e = x.numpy(), e.numpy()
    current = Run(case, now, now["initial_state"], x)
    remembered = Run(case, initial, now["initial_state"], x)
    path = remembered if rule in ("align-ada", "align-zero") else current
    local = remembered if rule == "align-zero" else current
    weights = {"normal": now, "last-layer": now, "fa": feedback}.get(rule, initial)
    if rule == "dfa":
        signals = [np.zeros_like(now["initial_state"])] + [np.outer(column, feedback["direct"]) for column in e.T]
    else:
        signals = landing(case, path, weights, e, rule == "align-ada" if strict is None else strict)
    found = gradients_from(case, signals, local, x, e)
    if rule == "last-layer":
        found |= {name: np.zeros_like(now[name]) for name in ("input", "hidden", "hidden_bias")}
    return {name: found[name] for name in TENSORS}
