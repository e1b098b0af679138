"""The eight learning rules of docs/rules.md, each stated as a scalar that autograd differentiates.

A term `value - value.detach()` is zero and carries a gradient: it routes a signal without
changing the forward pass. No rule here is written as a backward sweep (independent_rules.py has those).
Every function returns (weight gradients, bias gradients), one entry per layer, the head last.
"""

import torch

import network as net

RULES = ("normal", "last-layer", "fa", "dfa", "sign-symmetry", "align-ada", "align-zero", "align-prop")


def differentiate(scalar, leaves):
    gradients = torch.autograd.grad(scalar, leaves.all(), allow_unused=True)
    gradients = [torch.zeros_like(p) if g is None else g for p, g in zip(leaves.all(), gradients)]
    layers = len(leaves.weights)
    return gradients[:layers], gradients[layers:]


def routed(value):
    """Zero, with value's gradient."""
    return value - value.detach()


def normal(case, now, x, y):
    """Plain gradient of the loss."""
    leaves = now.leaves()
    return differentiate(net.mean_loss(net.output(case, leaves, x), y), leaves)


def last_layer(case, now, x, e):
    """The head alone meets the error."""
    leaves = now.leaves()
    pooled = net.activations(case, now, x)[-2]
    return differentiate((net.local_head(case, leaves, pooled) * e).sum(), leaves)


def dfa(case, now, direct, x, e):
    """Each hidden activation meets B_l e, each layer seeing a constant input."""
    leaves = now.leaves()
    values = net.activations(case, now, x)
    scalar = (net.local_head(case, leaves, values[-2]) * e).sum()
    for layer, matrix in enumerate(direct):
        signal = torch.einsum("rcuk,bk->brcu", matrix, e)
        own = net.activate(case, net.local_port(case, leaves, layer, values[layer]))
        scalar = scalar + (own * signal.reshape(own.shape)).sum()
    return differentiate(scalar, leaves)


def replaced_feedback(case, now, feedback, x, e):
    """Current slopes and activations, other weights downwards: fa, sign-symmetry, align-prop."""
    leaves = now.leaves()

    def affine(layer, below):
        own = net.linear_map(case, layer, below.detach(), leaves.weights[layer]) + leaves.biases[layer]
        return own + routed(net.linear_map(case, layer, below, feedback[layer]))

    a = x
    for layer in range(case.hidden_layers):
        a = net.activate(case, net.normalise(case, affine(layer, a)))
    f = affine(case.hidden_layers, net.pool(case, a))
    return differentiate((f * e).sum(), leaves)


def signs(case, now):
    """Sign of the current weights, at the scale the parameterisation gives weights."""
    standard = case.parameterization == "standard"
    scales = [fan_in ** -0.5 if standard else 1.0 for fan_in in case.fan_ins]
    return [torch.sign(w) * scale for w, scale in zip(now.weights, scales)]


def align_zero(case, initial, x, e):
    """The initial-weight network's vector-Jacobian product with the current error."""
    leaves = initial.leaves()
    return differentiate((net.output(case, leaves, x) * e).sum(), leaves)


def align_ada(case, now, initial, x, e):
    """The initial-weight network runs; at each port the current network's layer is attached, adding zero.

    The signal that lands on the port goes down the initial network and, separately, into the attached layer.
    The last hidden layer attaches at the pooled activation, so that its own slope is the current one.
    """
    leaves = now.leaves()
    values = net.activations(case, now, x)
    last = case.hidden_layers - 1
    a = x
    for layer in range(case.hidden_layers):
        z = net.local_port(case, initial, layer, a)
        if layer < last:
            z = z + routed(net.local_port(case, leaves, layer, values[layer]))
        a = net.activate(case, z)
    own = net.activate(case, net.local_port(case, leaves, last, values[last]))
    pooled = net.pool(case, a) + routed(net.pool(case, own))
    f = net.local_head(case, initial, pooled) + routed(net.local_head(case, leaves, values[-2]))
    return differentiate((f * e).sum(), leaves)


def gradients(rule, case, now, drawn, x, y):
    """What `rule` hands the optimiser on one minibatch."""
    if rule == "normal":
        return normal(case, now, x, y)
    e = net.error(net.output(case, now, x), y)
    if rule == "last-layer":
        return last_layer(case, now, x, e)
    if rule == "dfa":
        return dfa(case, now, drawn.direct, x, e)
    if rule == "align-zero":
        return align_zero(case, drawn.initial, x, e)
    if rule == "align-ada":
        return align_ada(case, now, drawn.initial, x, e)
    feedback = {
        "fa": lambda: drawn.feedback,
        "sign-symmetry": lambda: signs(case, now),
        "align-prop": lambda: drawn.initial.weights,
    }[rule]()
    return replaced_feedback(case, now, feedback, x, e)
