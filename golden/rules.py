"""Writes rules/<case>.json: every rule trained for ten steps on every case of cases.py.

Nothing is written for a case until its checks (checks.py) have passed.
"""

import json
from pathlib import Path

import torch

import cases
import checks
import network as net
from learning_rules import RULES, gradients
from optimisers import OPTIMISERS

FULL_STEPS = (0, cases.STEPS - 1)
FOLDER = Path(__file__).parent / "rules"


def flat(tensors):
    """Each tensor as a row-major list."""
    return [tensor.reshape(-1).tolist() for tensor in tensors]


def norms(tensors):
    return [torch.linalg.vector_norm(tensor).item() for tensor in tensors]


def train(case, rule):
    """One run; returns its record, its draws and its final parameters."""
    drawn = net.draw(case, rule)
    now = drawn.initial.clone()
    optimiser = OPTIMISERS[case.optimizer](case.learning_rate)
    images, wanted = cases.inputs(case), cases.targets()
    record = {
        "initial_weight_sums": [w.sum().item() for w in drawn.initial.weights],
        "losses": [], "weight_gradient_norms": [], "bias_gradient_norms": [], "gradients": [],
    }
    worst = 0.0
    for step, batch in enumerate(cases.minibatches(case)):
        x, y = images[batch], wanted[batch]
        record["losses"].append(net.mean_loss(net.output(case, now, x), y).item())
        worst = max(worst, checks.second_derivation(rule, case, now, drawn, x, y))
        checks.away_from_kinks(rule, case, now, drawn, x)
        weights, biases = gradients(rule, case, now, drawn, x, y)
        record["weight_gradient_norms"].append(norms(weights))
        record["bias_gradient_norms"].append(norms(biases))
        if step in FULL_STEPS:
            record["gradients"].append({"step": step, "weights": flat(weights), "biases": flat(biases)})
        optimiser.step(now.all(), weights + biases)
    record["final"] = {"weights": flat(now.weights), "biases": flat(now.biases)}
    return record, drawn, now, worst


def check_identities(case, drawn, now):
    """The identities of docs/rules.md, with `now` some steps away from the start."""
    batch = cases.minibatches(case)[0]
    x, y = cases.inputs(case)[batch], cases.targets()[batch]
    e = net.error(net.output(case, now, x), y)
    return {
        "coincide at start": checks.coincide_at_start(case, drawn.initial, x, y),
        "differ later (at least)": checks.differ_later(case, now, drawn, x, y),
        "fa with W0 is align-prop": checks.fa_with_initial_weights(case, now, drawn.initial, x, y),
        "align-zero linear in e": checks.align_zero_is_linear(case, drawn.initial, x, e),
        "finite differences": checks.finite_differences(case, now, x, y),
    }


def run(case):
    records, worst = {}, 0.0
    for rule in RULES:
        records[rule], drawn, now, found = train(case, rule)
        worst = max(worst, found)
        if rule == "normal":
            deviations = check_identities(case, drawn, now)
    deviations["second derivation"] = worst
    images = cases.inputs(case)
    return {
        "name": case.name,
        "config": case.description(),
        "input_sum": images.sum().item(),
        "first_inputs": images.reshape(-1)[:8].tolist(),
        "labels": cases.labels().tolist(),
        "batches": [batch.tolist() for batch in cases.minibatches(case)],
        "weight_shapes": [list(w.shape) for w in drawn.initial.weights],
        "rules": records,
    }, deviations


def main():
    torch.set_num_threads(1)
    FOLDER.mkdir(exist_ok=True)
    for case in cases.CASES:
        document, deviations = run(case)
        text = json.dumps(document, separators=(",", ":"), allow_nan=False) + "\n"
        (FOLDER / f"{case.name}.json").write_text(text)
        print(f"{case.name:15}", len(text), " ".join(f"{what}: {value:.1e};" for what, value in deviations.items()))
        for rule, record in document["rules"].items():
            print(f"    {rule:14} loss {record['losses'][0]:.6f} -> {record['losses'][-1]:.6f}")


if __name__ == "__main__":
    main()
