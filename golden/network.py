"""Networks of docs/notation.md in float64, and their initialisation."""

from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F

from cases import CLASSES

NORM_EPSILON = 1e-6

ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh, "erf": torch.erf, "linear": lambda z: z}


@dataclass
class Parameters:
    """Weights [kh,kw,in,out] or [in,out] and biases [out] of every layer, the head last."""

    weights: list
    biases: list

    def clone(self):
        return Parameters([w.clone() for w in self.weights], [b.clone() for b in self.biases])

    def leaves(self):
        """A copy whose tensors autograd can differentiate by."""
        copy = self.clone()
        for tensor in copy.weights + copy.biases:
            tensor.requires_grad_()
        return copy

    def all(self):
        return self.weights + self.biases


@dataclass
class Drawn:
    """Everything drawn before training: initial parameters and the fixed feedback of fa and dfa."""

    initial: Parameters
    feedback: list = field(default_factory=list)  # fa: one weight per layer, the head last
    direct: list = field(default_factory=list)    # dfa: [rows, columns, channels, classes] per hidden layer


def single(values):
    """Rounded to float32, held as float64."""
    return torch.from_numpy(np.ascontiguousarray(values.astype(np.float32).astype(np.float64)))


def draw(case, rule):
    """Initialisation in the order of docs/notation.md (Draws)."""
    stream = np.random.RandomState(case.seed)

    def weight(layer):
        fan_in = case.fan_ins[layer]
        head = layer == case.hidden_layers
        matrix = stream.normal(size=(CLASSES if head else case.width, fan_in))
        if case.parameterization == "standard":
            matrix = matrix / np.sqrt(fan_in)
        if head or case.kind == "dense":
            return single(matrix.T)
        return single(matrix.reshape(case.width, 3, 3, -1).transpose(1, 2, 3, 0))

    def direct(layer):
        rows, columns = case.output_sizes[layer]
        units = rows * columns * case.width
        matrix = stream.normal(0.0, 1 / np.sqrt(units), size=(CLASSES, units))
        return single(matrix.reshape(CLASSES, rows, columns, case.width).transpose(1, 2, 3, 0))

    drawn = Drawn(Parameters([], []))
    for layer in range(case.hidden_layers + 1):
        drawn.initial.weights.append(weight(layer))
        drawn.initial.biases.append(torch.zeros(drawn.initial.weights[-1].shape[-1], dtype=torch.float64))
        if rule == "fa":
            drawn.feedback.append(weight(layer))
        if rule == "dfa" and layer < case.hidden_layers:
            drawn.direct.append(direct(layer))
    return drawn


def same_padding(length, stride):
    """TensorFlow's SAME padding (before, after) of a 3-tap window."""
    out = -(-length // stride)
    total = max((out - 1) * stride + 3 - length, 0)
    return total // 2, total - total // 2


def linear_map(case, layer, x, weight):
    """The layer's linear map with its scale, without bias: convolution, or matrix product."""
    if case.kind == "dense" or layer == case.hidden_layers:
        return x @ weight * case.scale(layer)
    stride = case.strides[layer]
    pads = same_padding(x.shape[2], stride) + same_padding(x.shape[1], stride)
    padded = F.pad(x.permute(0, 3, 1, 2), pads)
    return F.conv2d(padded, weight.permute(3, 2, 0, 1), stride=stride).permute(0, 2, 3, 1) * case.scale(layer)


def normalise(case, pre):
    """Batch statistics per location and channel, per channel, or no norm."""
    if case.norm == "none":
        return pre
    axes = 0 if case.norm == "location" else tuple(range(pre.dim() - 1))
    mean = pre.mean(axes, keepdim=True)
    variance = ((pre - mean) ** 2).mean(axes, keepdim=True)
    return (pre - mean) / torch.sqrt(variance + NORM_EPSILON)


def pool(case, a):
    """What the head sees: the mean over locations (a dense layer has one)."""
    return a.mean((1, 2)) if case.kind == "conv" else a


def activate(case, z):
    return ACTIVATIONS[case.activation](z)


def local_port(case, parameters, layer, below):
    """Normalised pre-activation of one hidden layer, given the activation below it."""
    pre = linear_map(case, layer, below, parameters.weights[layer]) + parameters.biases[layer]
    return normalise(case, pre)


def local_head(case, parameters, pooled):
    return linear_map(case, case.hidden_layers, pooled, parameters.weights[-1]) + parameters.biases[-1]


def activations(case, parameters, x):
    """[x, a_1, ..., a_L, pooled, f]."""
    values = [x]
    for layer in range(case.hidden_layers):
        values.append(activate(case, local_port(case, parameters, layer, values[-1])))
    values.append(pool(case, values[-1]))
    values.append(local_head(case, parameters, values[-1]))
    return values


def output(case, parameters, x):
    return activations(case, parameters, x)[-1]


def mean_loss(f, y):
    """Mean over batch and classes of the squared error."""
    return ((f - y) ** 2).mean()


def error(f, y):
    """The gradient of the mean loss by f."""
    f = f.detach().requires_grad_()
    return torch.autograd.grad(mean_loss(f, y), f)[0]
