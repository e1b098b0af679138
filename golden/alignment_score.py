"""The alignment score S (Eq. 9) of two weight changes, exact, from the dense matrix of the layer's linear map."""

import torch
import torch.nn.functional as F

from network import same_padding


def conv_operator(weight, rows, columns, stride):
    """The matrix [outputs, inputs] of a 3x3 convolution [3,3,in,out] on a zero-padded grid: its action on unit images."""
    inputs = rows * columns * weight.shape[2]
    images = torch.eye(inputs, dtype=torch.float64).reshape(inputs, rows, columns, -1).permute(0, 3, 1, 2)
    padded = F.pad(images, same_padding(columns, stride) + same_padding(rows, stride))
    out = F.conv2d(padded, weight.permute(3, 2, 0, 1), stride=stride)
    return out.permute(0, 2, 3, 1).reshape(inputs, -1).T


def conv_operator_by_taps(weight, rows, columns, stride):
    """The same matrix, entry by entry: which tap leads from an input location to an output location."""
    _, _, inputs, outputs = weight.shape
    out_rows, out_columns = -(-rows // stride), -(-columns // stride)
    matrix = torch.zeros(out_rows, out_columns, outputs, rows, columns, inputs, dtype=torch.float64)
    top, left = same_padding(rows, stride)[0], same_padding(columns, stride)[0]
    for row in range(out_rows):
        for column in range(out_columns):
            for i in range(3):
                for j in range(3):
                    r, c = row * stride + i - top, column * stride + j - left
                    if 0 <= r < rows and 0 <= c < columns:
                        matrix[row, column, :, r, c, :] = weight[i, j].T
    return matrix.reshape(out_rows * out_columns * outputs, -1)


def score(change, companion_change):
    """Squared norms and S of two linear maps [outputs, inputs].

    cross = |D D*'|^2, own = |D D'|^2, companion = |D* D*'|^2 (squared Frobenius norms): S = cross / sqrt(own companion).
    """
    def squared(a, b):
        return ((a @ b.T) ** 2).sum().item()

    cross, own = squared(change, companion_change), squared(change, change)
    companion = squared(companion_change, companion_change)
    found = {"cross": cross, "own": own, "companion": companion, "score": cross / (own * companion) ** 0.5}
    check_against_traces(change, companion_change, found["score"])
    return found


def check_against_traces(change, companion_change, found):
    """Eq. 9: tr(Delta Sigma) / sqrt(tr(Delta^2) tr(Sigma^2)) with Delta = D'D and Sigma = D*'D*, inputs by inputs."""
    delta, sigma = change.T @ change, companion_change.T @ companion_change
    traces = [torch.trace(a @ b).item() for a, b in ((delta, sigma), (delta, delta), (sigma, sigma))]
    expected = traces[0] / (traces[1] * traces[2]) ** 0.5
    assert abs(found - expected) <= 1e-12 and -1e-12 <= found <= 1 + 1e-12, (found, expected)
