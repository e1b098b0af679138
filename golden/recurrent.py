"""Writes recurrent/<case>.json: every rule trained on the small recurrent cases, and the Add task's first epochs.

Nothing is written for a case until its checks (recurrent_checks.py) have passed.
"""

import json
from pathlib import Path

import torch

import add_task
import recurrent_cases as cases
import recurrent_checks as checks
import recurrent_network as net
from recurrent_rules import RULES, gradients

FOLDER = Path(__file__).parent / "recurrent"


def flat(tensors):
    """Each tensor as a row-major list; the scalar readout bias as a number."""
    return {name: tensor.reshape(-1).tolist() if tensor.dim() else tensor.item() for name, tensor in tensors.items()}


def train(case, rule):
    """One run; returns its record, its draws, its final parameters and the checks' worst deviation."""
    drawn = net.draw(case, rule)
    now = {name: tensor.clone() for name, tensor in drawn.initial.items()}
    record = {
        "initial": flat({name: drawn.initial[name] for name in ("input", "hidden", "readout")}),
        "feedback": flat(drawn.feedback),
        "losses": [], "gradient_norms": {name: [] for name in net.TENSORS}, "gradients": [],
        "train_losses": [], "test_losses": [],
    }
    step, worst = 0, 0.0
    for training, test, train_evaluation in cases.epochs(case):
        for batch in training:
            x, y = case.inputs[batch], case.targets[batch]
            record["losses"].append(net.loss(net.output(case, now, x), y).item())
            worst = max(worst, checks.second_derivation(rule, case, now, drawn, x, y))
            checks.away_from_kinks(case, now, drawn.initial, x)
            found = gradients(rule, case, now, drawn, x, y)
            for name, norms in record["gradient_norms"].items():
                norms.append(torch.linalg.vector_norm(found[name]).item())
            if step in (0, case.steps - 1):
                record["gradients"].append({"step": step} | flat(found))
            now = {name: now[name] - case.learning_rate * found[name] for name in net.TENSORS}
            step += 1
        record["test_losses"].append(net.evaluate(case, now, test))
        record["train_losses"].append(net.evaluate(case, now, train_evaluation))
    assert step == case.steps
    record["final"] = flat(now)
    return record, drawn, now, worst


def check_identities(case, drawn, now):
    """Identities that hold exactly, with `now` some steps away from the start."""
    batch = next(cases.epochs(case))[0][0]
    x, y = case.inputs[batch], case.targets[batch]
    e = net.error(net.output(case, now, x), y)
    return {
        "coincide at start": checks.coincide_at_start(case, drawn, x, y),
        "differ later (at least)": checks.differ_later(case, now, drawn, x, y),
        "fa with W0 is align-prop": checks.fa_with_initial_weights(case, now, drawn, x, y),
        "align-zero linear in e": checks.align_zero_is_linear(case, now, drawn.initial, x, e),
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
    orders = list(cases.epochs(case))
    return {
        "name": case.name,
        "config": case.description(),
        "inputs": case.inputs.int().tolist(),
        "targets": case.targets.tolist(),
        "batches": [batch.tolist() for training, _, _ in orders for batch in training],
        "test_batches": [[batch.tolist() for batch in test] for _, test, _ in orders],
        "train_batches": [[batch.tolist() for batch in again] for _, _, again in orders],
        "rules": records,
    }, deviations


def write(document):
    text = json.dumps(document, separators=(",", ":"), allow_nan=False) + "\n"
    (FOLDER / f"{document['name']}.json").write_text(text)
    return len(text)


def main():
    torch.set_num_threads(1)
    FOLDER.mkdir(exist_ok=True)
    for case in cases.SMALL:
        document, deviations = run(case)
        size = write(document)
        print(f"{case.name:12}", size, " ".join(f"{what}: {value:.1e};" for what, value in deviations.items()))
        for rule, record in document["rules"].items():
            print(f"    {rule:12}", " ".join(f"{loss:.4f}" for loss in record["losses"]))
    document = add_task.document()
    print("add-task", write(document), document["chance_losses"])


if __name__ == "__main__":
    main()
