"""Second derivations of the rules, only to check learning_rules.py against.

`sweep` is the table of docs/rules.md read line by line: feedback weights, slopes of the path, local factors. It uses
closed-form norm Jacobians and slopes, and windows cut out by index instead of torch's convolution.
`port_perturbation` gets align-ada's signals as derivatives by perturbations of the initial network's ports.
"""

import math

import torch

import network as net

SLOPES = {
    "relu": lambda z: (z > 0).double(),
    "tanh": lambda z: 1 - torch.tanh(z) ** 2,
    "erf": lambda z: 2 / math.sqrt(math.pi) * torch.exp(-(z ** 2)),
    "linear": torch.ones_like,
}


def windows(case, layer, shape):
    """Yields (output index, input index, tap row, tap column) pairs of each place a tap reaches."""
    stride = case.strides[layer]
    (top, _), (left, _) = net.same_padding(shape[1], stride), net.same_padding(shape[2], stride)
    rows, columns = case.output_sizes[layer]
    for row in range(rows):
        for column in range(columns):
            for i in range(3):
                for j in range(3):
                    r, c = row * stride + i - top, column * stride + j - left
                    if 0 <= r < shape[1] and 0 <= c < shape[2]:
                        yield row, column, r, c, i, j


def is_matrix(case, layer):
    return case.kind == "dense" or layer == case.hidden_layers


def forward_map(case, layer, x, weight):
    if is_matrix(case, layer):
        return x @ weight * case.scale(layer)
    out = torch.zeros(x.shape[0], *case.output_sizes[layer], weight.shape[-1], dtype=torch.float64)
    for row, column, r, c, i, j in windows(case, layer, x.shape):
        out[:, row, column] += x[:, r, c] @ weight[i, j]
    return out * case.scale(layer)


def transposed_map(case, layer, signal, weight, shape):
    """From the layer's output down to its input."""
    if is_matrix(case, layer):
        return signal @ weight.T * case.scale(layer)
    below = torch.zeros(shape, dtype=torch.float64)
    for row, column, r, c, i, j in windows(case, layer, shape):
        below[:, r, c] += signal[:, row, column] @ weight[i, j].T
    return below * case.scale(layer)


def weight_product(case, layer, x, signal):
    """Sum over the batch (and locations, per tap) of input times signal."""
    if is_matrix(case, layer):
        return x.T @ signal * case.scale(layer)
    product = torch.zeros(3, 3, x.shape[-1], signal.shape[-1], dtype=torch.float64)
    for row, column, r, c, i, j in windows(case, layer, x.shape):
        product[i, j] += x[:, r, c].T @ signal[:, row, column]
    return product * case.scale(layer)


def transposed_norm(case, pre, z, signal):
    """The norm's transposed Jacobian, mean and variance terms included."""
    if case.norm == "none":
        return signal
    axes = 0 if case.norm == "location" else tuple(range(pre.dim() - 1))
    deviation = torch.sqrt(pre.var(axes, unbiased=False, keepdim=True) + net.NORM_EPSILON)
    return (signal - signal.mean(axes, keepdim=True) - z * (signal * z).mean(axes, keepdim=True)) / deviation


def transposed_pool(case, signal):
    if case.kind == "dense":
        return signal
    rows, columns = case.output_sizes[-1]
    return (signal / (rows * columns))[:, None, None, :].expand(-1, rows, columns, -1)


class Run:
    """One forward pass, every quantity kept."""

    def __init__(self, case, parameters, x):
        self.a, self.pre, self.z = [x], [], []
        for layer in range(case.hidden_layers):
            pre = forward_map(case, layer, self.a[-1], parameters.weights[layer]) + parameters.biases[layer]
            z = net.normalise(case, pre)
            self.pre.append(pre)
            self.z.append(z)
            self.a.append(net.activate(case, z))
        self.pooled = self.a[-1].mean((1, 2)) if case.kind == "conv" else self.a[-1]


def sweep(case, path, local, feedback, e, direct=None):
    """Gradients from the path's slopes, the local run's factors and the feedback weights."""
    slope = SLOPES[case.activation]
    last = case.hidden_layers - 1
    weights = [None] * last + [None, weight_product(case, last + 1, local.pooled, e)]
    biases = [None] * last + [None, e.sum(0)]
    arriving = transposed_pool(case, transposed_map(case, last + 1, e, feedback[-1], None))
    for layer in range(last, -1, -1):
        if direct:
            arriving = (direct[layer].reshape(-1, e.shape[1]) @ e.T).T.reshape(local.z[layer].shape)
        down = slope(path.z[layer]) * arriving
        psi = slope(local.z[layer]) * arriving if layer == last else down
        signal = transposed_norm(case, local.pre[layer], local.z[layer], psi)
        weights[layer] = weight_product(case, layer, local.a[layer], signal)
        biases[layer] = signal.reshape(-1, signal.shape[-1]).sum(0)
        down = transposed_norm(case, path.pre[layer], path.z[layer], down)
        arriving = transposed_map(case, layer, down, feedback[layer], path.a[layer].shape)
    return weights, biases


def by_sweep(rule, case, now, drawn, feedback, x, e):
    """The sweep with the table's row for `rule`."""
    current, initial = Run(case, now, x), Run(case, drawn.initial, x)
    path = initial if rule in ("align-ada", "align-zero") else current
    local = initial if rule == "align-zero" else current
    weights, biases = sweep(case, path, local, feedback, e, drawn.direct if rule == "dfa" else None)
    if rule == "last-layer":
        weights[:-1] = [torch.zeros_like(w) for w in weights[:-1]]
        biases[:-1] = [torch.zeros_like(b) for b in biases[:-1]]
    return weights, biases


def port_perturbation(case, now, initial, x, e):
    """align-ada: signals by zero perturbations at the initial network's ports, then local vjps."""
    a, ports = x, []
    for layer in range(case.hidden_layers):
        z = net.local_port(case, initial, layer, a)
        ports.append(torch.zeros_like(z, requires_grad=True))
        a = net.activate(case, z + ports[-1])
    pooled = net.pool(case, a)
    ports.append(torch.zeros_like(pooled, requires_grad=True))
    f = net.local_head(case, initial, pooled + ports[-1])
    signals = torch.autograd.grad((f * e).sum(), ports)

    values = net.activations(case, now, x)
    last = case.hidden_layers - 1
    weights, biases = [], []
    for layer in range(last + 2):
        def local(weight, bias):
            swapped = now.clone()
            swapped.weights[layer], swapped.biases[layer] = weight, bias
            if layer == last + 1:
                return net.local_head(case, swapped, values[-2])
            z = net.local_port(case, swapped, layer, values[layer])
            return z if layer < last else net.pool(case, net.activate(case, z))

        cotangent = e if layer == last + 1 else signals[layer + (layer == last)]
        _, pull = torch.func.vjp(local, now.weights[layer], now.biases[layer])
        weight, bias = pull(cotangent)
        weights.append(weight)
        biases.append(bias)
    return weights, biases
