"""What must hold before a golden file is written. Every check asserts and returns its worst deviation."""

import torch

import learning_rules as rules
import independent_rules as independent
import network as net

TOLERANCE = 1e-11


def deviation(first, second):
    """Largest difference between two gradient lists, relative to the larger tensor of each pair (at least 1e-3)."""
    worst = 0.0
    for a, b in zip(first[0] + first[1], second[0] + second[1], strict=True):
        assert a.shape == b.shape
        scale = max(a.abs().max().item(), b.abs().max().item(), 1e-3)
        worst = max(worst, (a - b).abs().max().item() / scale)
    return worst


def agree(first, second, what, tolerance=TOLERANCE):
    worst = deviation(first, second)
    assert worst <= tolerance, f"{what}: {worst:.3e}"
    return worst


def coincide_at_start(case, initial, x, y):
    """normal, align-prop, align-ada and align-zero agree while the weights are the initial ones."""
    drawn = net.Drawn(initial)
    reference = rules.gradients("normal", case, initial, drawn, x, y)
    return max(
        agree(rules.gradients(rule, case, initial, drawn, x, y), reference, f"{case.name} step 0 {rule}")
        for rule in ("align-prop", "align-ada", "align-zero")
    )


def differ_later(case, now, drawn, x, y):
    """Away from the start the four rules part: the smallest of their deviations from each other."""
    found = [rules.gradients(rule, case, now, drawn, x, y) for rule in ("normal", "align-prop", "align-ada", "align-zero")]
    least = min(deviation(a, b) for i, a in enumerate(found) for b in found[:i])
    assert least > 1e-4, f"{case.name} rules indistinguishable: {least:.3e}"
    return least


def away_from_kinks(rule, case, now, drawn, x):
    """No slope or sign hangs on rounding: distance of relu inputs, and of signed weights, from zero."""
    distances = []
    if case.activation == "relu":
        for parameters in (now, drawn.initial):
            distances += independent.Run(case, parameters, x).z
    if rule == "sign-symmetry":
        distances += now.weights
    least = min((tensor.abs().min().item() for tensor in distances), default=float("inf"))
    assert least > 1e-9, f"{case.name} {rule}: a kink within {least:.3e}"


def second_derivation(rule, case, now, drawn, x, y):
    """The rule against the explicit sweep, and align-ada against port perturbations as well."""
    e = net.error(net.output(case, now, x), y)
    feedback = {"normal": now.weights, "fa": drawn.feedback, "sign-symmetry": rules.signs(case, now)}
    found = rules.gradients(rule, case, now, drawn, x, y)
    explicit = independent.by_sweep(rule, case, now, drawn, feedback.get(rule, drawn.initial.weights), x, e)
    worst = agree(found, explicit, f"{case.name} {rule} against the sweep")
    if rule == "align-ada":
        ports = independent.port_perturbation(case, now, drawn.initial, x, e)
        worst = max(worst, agree(found, ports, f"{case.name} align-ada against port perturbations"))
    return worst


def fa_with_initial_weights(case, now, initial, x, y):
    """fa whose feedback is the initial weights is align-prop."""
    drawn = net.Drawn(initial, feedback=[w.clone() for w in initial.weights])
    return agree(
        rules.gradients("fa", case, now, drawn, x, y),
        rules.gradients("align-prop", case, now, drawn, x, y),
        f"{case.name} fa with initial weights",
    )


def align_zero_is_linear(case, initial, x, e):
    other = torch.roll(e, 1, 0) * torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    first, second = (rules.align_zero(case, initial, x, v) for v in (e, other))
    combined = tuple([2 * a - 3 * b for a, b in zip(p, q)] for p, q in zip(first, second))
    return agree(rules.align_zero(case, initial, x, 2 * e - 3 * other), combined, f"{case.name} linearity")


def finite_differences(case, now, x, y, step=1e-6):
    """normal against central differences of the loss, three weight coordinates and a bias of every layer."""
    gradients = rules.normal(case, now, x, y)
    worst = 0.0
    for kind, tensors in enumerate((now.weights, now.biases)):
        for layer, tensor in enumerate(tensors):
            for index in {0, tensor.numel() // 2, tensor.numel() - 1} if kind == 0 else {0}:
                losses = []
                for sign in (1, -1):
                    moved = now.clone()
                    (moved.weights, moved.biases)[kind][layer].view(-1)[index] += sign * step
                    losses.append(net.mean_loss(net.output(case, moved, x), y).item())
                found = (losses[0] - losses[1]) / (2 * step)
                worst = max(worst, abs(found - gradients[kind][layer].reshape(-1)[index].item()))
    assert worst <= 1e-8, f"{case.name} finite differences: {worst:.3e}"
    return worst
