"""What must hold before a recurrent golden file is written. Checks assert and return their worst deviation."""

import numpy as np
import torch

import recurrent_network as net
import recurrent_rules as rules
from recurrent_sums import Run, by_sums

TOLERANCE = 1e-11


def deviation(first, second):
    """Largest difference between two gradients, relative to the larger tensor of each pair (at least 1e-3)."""
    worst = 0.0
    for name in net.TENSORS:
        a, b = np.asarray(first[name]), np.asarray(second[name])
        assert a.shape == b.shape
        worst = max(worst, abs(a - b).max() / max(abs(a).max(), abs(b).max(), 1e-3))
    return worst


def agree(first, second, what, tolerance=TOLERANCE):
    worst = deviation(first, second)
    assert worst <= tolerance, f"{what}: {worst:.3e}"
    return worst


def second_derivation(rule, case, now, drawn, x, y):
    e = net.error(net.output(case, now, x), y)
    found = rules.gradients(rule, case, now, drawn, x, y)
    return agree(found, by_sums(rule, case, now, drawn, x, e), f"{case.name} {rule} against the sums")


def away_from_kinks(case, now, initial, x):
    """No relu slope hangs on rounding: an input of relu is zero only where all its terms are, and else no near miss.

    A near miss is an input below 1e-9 of the sum of its terms' absolute values.
    """
    if case.activation != "relu":
        return
    state, x = now["initial_state"].numpy(), x.numpy()
    for parameters in (now, initial):
        parameters = {name: tensor.numpy() for name, tensor in parameters.items()}
        run = Run(case, parameters, state, x)
        absolute = {name: abs(tensor) for name, tensor in parameters.items()}
        for t in range(1, case.length + 1):
            terms = np.outer(x[:, t - 1], absolute["input"]) + absolute["hidden_bias"]
            terms = terms + abs(run.h[t - 1]) @ absolute["hidden"] * case.scale
            assert (run.pre[t][terms == 0] == 0).all()
            least = (abs(run.pre[t][terms > 0]) / terms[terms > 0]).min(initial=np.inf)
            assert least > 1e-9, f"{case.name}: a kink within {least:.3e}"


def coincide_at_start(case, drawn, x, y):
    """normal, align-prop and align-zero agree while the weights are the initial ones.

    align-ada is then backpropagation without each step's own error.
    """
    initial = drawn.initial
    reference = rules.gradients("normal", case, initial, drawn, x, y)
    worst = max(
        agree(rules.gradients(rule, case, initial, drawn, x, y), reference, f"{case.name} step 0 {rule}")
        for rule in ("align-prop", "align-zero")
    )
    later = by_sums("normal", case, initial, drawn, x, net.error(net.output(case, initial, x), y), strict=True)
    found = rules.gradients("align-ada", case, initial, drawn, x, y)
    assert deviation(found, reference) > 1e-3, f"{case.name}: align-ada sees a step's own error"
    return max(worst, agree(found, later, f"{case.name} step 0 align-ada"))


def differ_later(case, now, drawn, x, y):
    """Away from the start the rules part: the smallest of their deviations from each other."""
    found = [rules.gradients(rule, case, now, drawn, x, y) for rule in ("normal", "align-prop", "align-ada", "align-zero")]
    least = min(deviation(a, b) for i, a in enumerate(found) for b in found[:i])
    assert least > 1e-4, f"{case.name} rules indistinguishable: {least:.3e}"
    return least


def fa_with_initial_weights(case, now, drawn, x, y):
    """fa whose feedback is the initial weights is align-prop."""
    same = net.Drawn(drawn.initial, {name: drawn.initial[name] for name in ("hidden", "readout")})
    found = rules.gradients("fa", case, now, same, x, y)
    return agree(found, rules.gradients("align-prop", case, now, drawn, x, y), f"{case.name} fa with initial weights")


def align_zero_is_linear(case, now, initial, x, e):
    other = torch.roll(e, (1, 3), (0, 1)) * torch.linspace(-2, 1, case.length, dtype=torch.float64)
    first, second, mixed = (rules.align_zero(case, now, initial, x, v) for v in (e, other, 2 * e - 3 * other))
    combined = {name: 2 * first[name] - 3 * second[name] for name in net.TENSORS}
    return agree(mixed, combined, f"{case.name} linearity")


def finite_differences(case, now, x, y, step=1e-6):
    """normal against central differences of the loss, up to three coordinates of each tensor."""
    gradients, worst = rules.normal(case, now, x, y), 0.0
    for name in net.TENSORS:
        size = now[name].numel()
        for index in {0, size // 2, size - 1}:
            losses = []
            for sign in (1, -1):
                moved = now[name].clone()
                moved.view(-1)[index] += sign * step
                losses.append(net.loss(net.output(case, now | {name: moved}, x), y).item())
            found = (losses[0] - losses[1]) / (2 * step)
            worst = max(worst, abs(found - gradients[name].reshape(-1)[index].item()))
    assert worst <= 1e-7, f"{case.name} finite differences: {worst:.3e}"
    return worst
