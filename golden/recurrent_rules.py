"""The learning rules of the recurrent network, each a scalar that autograd differentiates.

As in learning_rules.py: no rule is written as a backward sweep, and a term `value - value.detach()` is zero and
routes a signal. Every function returns a dict of gradients with the names of recurrent_network.TENSORS.
"""

import torch

import recurrent_network as net
from learning_rules import routed

PUBLISHED = ("normal", "last-layer", "align-ada", "align-zero")
RULES = PUBLISHED + ("align-prop", "fa", "dfa")


def leaves_of(parameters):
    return {name: tensor.clone().requires_grad_() for name, tensor in parameters.items()}


def differentiate(scalar, leaves):
    gradients = torch.autograd.grad(scalar, list(leaves.values()), allow_unused=True)
    return {name: torch.zeros_like(p) if g is None else g for (name, p), g in zip(leaves.items(), gradients)}


def normal(case, now, x, y):
    """Plain gradient of the loss: backpropagation through time."""
    leaves = leaves_of(now)
    return differentiate(net.loss(net.output(case, leaves, x), y), leaves)


def last_layer(case, now, x, e):
    """Readout-only: readout, its bias and the initial state meet their gradient, the rest stays."""
    leaves = leaves_of(now)
    trained = {name: leaves[name] for name in ("readout", "readout_bias", "initial_state")}
    return differentiate((net.output(case, now | trained, x) * e).sum(), leaves)


def align_zero(case, now, initial, x, e):
    """The gradient of the initial-weight network's outputs under e; it starts from the trained initial state."""
    leaves = leaves_of(initial | {"initial_state": now["initial_state"]})
    return differentiate((net.output(case, leaves, x) * e).sum(), leaves)


def align_ada(case, now, initial, x, e):
    """The initial-weight network runs from the trained state; at each h_t the current step is attached, adding zero.

    It is attached behind the readout of h_t, so that only later outputs (j > i in Eq. 58) reach it.
    """
    leaves = leaves_of(now)
    current = net.states(case, now, x)
    h, scalar = leaves["initial_state"], 0.0
    for t in range(case.length):
        h = net.advance(case, initial, h, x[:, t])
        scalar = scalar + (net.read(case, initial, h) * e[:, t]).sum()
        scalar = scalar + (net.read(case, leaves, current[t + 1]) * e[:, t]).sum()
        h = h + routed(net.advance(case, leaves, current[t], x[:, t]))
    return differentiate(scalar, leaves)


def replaced_feedback(case, now, feedback, x, e):
    """Backpropagation through time by other weights: fa, and align-prop with the initial weights."""
    leaves = leaves_of(now)
    h, scalar = leaves["initial_state"], 0.0
    for t in range(case.length):
        # Into h's slope by way of the hidden bias: a zero of shape [batch, m] that carries the replaced product.
        bias = leaves["hidden_bias"] + routed(h @ feedback["hidden"] * case.scale)
        h = net.advance(case, leaves | {"hidden_bias": bias}, h.detach(), x[:, t])
        o = net.read(case, leaves, h.detach()) + routed(h @ feedback["readout"] * case.scale)
        scalar = scalar + (o * e[:, t]).sum()
    return differentiate(scalar, leaves)


def dfa(case, now, direct, x, e):
    """Each h_t meets B e_t of its own step; nothing travels through time, the initial state stays."""
    leaves = leaves_of(now)
    current = net.states(case, now, x)
    scalar = 0.0
    for t in range(case.length):
        own = net.advance(case, leaves, current[t], x[:, t])
        scalar = scalar + (own * torch.outer(e[:, t], direct)).sum()
        scalar = scalar + (net.read(case, leaves, current[t + 1]) * e[:, t]).sum()
    return differentiate(scalar, leaves)


def gradients(rule, case, now, drawn, x, y):
    """What `rule` hands the optimiser on one minibatch."""
    if rule == "normal":
        return normal(case, now, x, y)
    e = net.error(net.output(case, now, x), y)
    if rule == "last-layer":
        return last_layer(case, now, x, e)
    if rule == "align-zero":
        return align_zero(case, now, drawn.initial, x, e)
    if rule == "align-ada":
        return align_ada(case, now, drawn.initial, x, e)
    if rule == "dfa":
        return dfa(case, now, drawn.feedback["direct"], x, e)
    return replaced_feedback(case, now, drawn.initial if rule == "align-prop" else drawn.feedback, x, e)
