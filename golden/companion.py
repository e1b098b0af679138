"""The companion W* (Eq. 13), and its integrated-error form (Eqs. 5-7 and 12) for networks without norm."""

from dataclasses import dataclass

import torch

import cases
import checks
import network as net
from alignment_score import conv_operator, score
from learning_rules import align_zero, normal
from optimisers import Sgd


@dataclass
class Trained:
    """What training leaves: both networks, the errors by sample, losses, and scores after chosen steps."""

    initial: net.Parameters
    now: net.Parameters
    companion: net.Parameters
    integrated_error: torch.Tensor  # delta(x) [sample, class]: learning rate times the sum of the errors on x
    losses: list
    scores: list


def layer_scores(case, first, second, initial):
    """S of every hidden layer, from the operators on that layer's input grid."""
    grids = [(cases.ROWS, cases.COLUMNS)] + case.output_sizes
    found = []
    for layer in range(case.hidden_layers):
        changes = [p.weights[layer] - initial.weights[layer] for p in (first, second)]
        if case.kind == "dense":
            maps = [change.T for change in changes]
        else:
            maps = [conv_operator(change, *grids[layer], case.strides[layer]) for change in changes]
        found.append(score(*maps)["score"])
    return found


def train(case, scored_after):
    """`normal` by SGD, and beside it the companion, which takes align-zero's update under the same errors."""
    assert case.optimizer == "sgd"
    drawn = net.draw(case, "normal")
    now, companion = drawn.initial.clone(), drawn.initial.clone()
    optimiser = Sgd(case.learning_rate)
    images, wanted = cases.inputs(case), cases.targets()
    found = Trained(drawn.initial, now, companion, torch.zeros_like(wanted), [], [])
    for step, batch in enumerate(cases.minibatches(case), start=1):
        x, y = images[batch], wanted[batch]
        f = net.output(case, now, x)
        e = net.error(f, y)
        checks.away_from_kinks("normal", case, now, drawn, x)
        found.losses.append(net.mean_loss(f, y).item())
        companion_update = align_zero(case, drawn.initial, x, e)
        update = normal(case, now, x, y)
        optimiser.step(companion.all(), companion_update[0] + companion_update[1])
        optimiser.step(now.all(), update[0] + update[1])
        found.integrated_error[batch] += case.learning_rate * e
        if step in scored_after:
            found.scores.append(layer_scores(case, now, companion, drawn.initial))
    return found


def from_integrated_error(case, initial, integrated_error):
    """W* in a single pass over all samples: W0 minus align-zero's update under delta(x). Norm none only, SGD only.

    Without norm a sample's Jacobian does not depend on its minibatch, so the sum over steps can be taken first.
    """
    assert case.norm == "none"
    weights, biases = align_zero(case, initial, cases.inputs(case), integrated_error)
    return net.Parameters(
        [w - change for w, change in zip(initial.weights, weights)],
        [b - change for b, change in zip(initial.biases, biases)],
    )


def check_correlation(case, trained):
    """Eqs. 3, 6, 7, 12 written out for a dense net: sum a(x1) q(x1,x2) a(x2)' = D*'D* / scale^2, inputs by inputs."""
    x, delta, worst = cases.inputs(case), trained.integrated_error, 0.0
    values = net.activations(case, trained.initial, x)
    for layer in range(case.hidden_layers):
        def above(z):
            """Outputs as a function of the layer's pre-activation."""
            a = net.activate(case, z)
            for higher in range(layer + 1, case.hidden_layers):
                a = net.activate(case, net.local_port(case, trained.initial, higher, a))
            return net.local_head(case, trained.initial, a)

        z = net.local_port(case, trained.initial, layer, values[layer])
        jacobians = torch.func.vmap(torch.func.jacrev(above))(z)                       # [sample, class, unit]
        kernel = torch.einsum("aku,blu->akbl", jacobians, jacobians)                   # Gamma, Eq. 6
        q = torch.einsum("ak,akbl,bl->ab", delta, kernel, delta)                       # Eq. 7
        correlation = values[layer].T @ q @ values[layer]                              # Eq. 3, a sum for the mean
        change = trained.companion.weights[layer] - trained.initial.weights[layer]     # [in, out]
        expected = change @ change.T / case.scale(layer) ** 2                          # Eq. 12
        worst = max(worst, (correlation - expected).abs().max().item() / expected.abs().max().item())
    assert worst <= 1e-11, f"{case.name} Eq. 12: {worst:.3e}"
    return worst
