"""SGD without momentum, and Adam in TensorFlow's form."""

import torch

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


class Sgd:
    def __init__(self, learning_rate):
        self.learning_rate = learning_rate

    def step(self, tensors, gradients):
        for tensor, gradient in zip(tensors, gradients):
            tensor -= self.learning_rate * gradient


class Adam:
    def __init__(self, learning_rate):
        self.learning_rate = learning_rate
        self.steps = 0
        self.moments = None

    def step(self, tensors, gradients):
        if self.moments is None:
            self.moments = [(torch.zeros_like(t), torch.zeros_like(t)) for t in tensors]
        self.steps += 1
        rate = self.learning_rate * (1 - BETA2 ** self.steps) ** 0.5 / (1 - BETA1 ** self.steps)
        for tensor, gradient, (m, v) in zip(tensors, gradients, self.moments):
            m += (1 - BETA1) * (gradient - m)
            v += (1 - BETA2) * (gradient ** 2 - v)
            tensor -= rate * m / (torch.sqrt(v) + EPSILON)


OPTIMISERS = {"sgd": Sgd, "adam": Adam}
