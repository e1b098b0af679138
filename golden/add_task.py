"""The paper's Add task (App. F and K): chance losses, and the losses of its first epochs.

Run by itself it trains whole columns of Table 8 and prints the best losses over the epochs:

    add_task.py WIDTH EPOCHS RULE...
"""

import sys

import torch

import recurrent_cases as cases
import recurrent_checks as checks
import recurrent_network as net
from recurrent_rules import PUBLISHED, gradients

WIDTHS = (8, 32)
EPOCHS = 3


def train(case, rule, check=lambda step, *arguments: None):
    """Losses before each update, and of both parts after each epoch, on the network as it then is."""
    drawn = net.draw(case, rule)
    now = {name: tensor.clone() for name, tensor in drawn.initial.items()}
    record = {
        "initial_weight_sums": {name: drawn.initial[name].sum().item() for name in ("input", "hidden", "readout")},
        "losses": [], "train_losses": [], "test_losses": [],
    }
    for training, test, train_evaluation in cases.epochs(case):
        for batch in training:
            x, y = case.inputs[batch], case.targets[batch]
            check(len(record["losses"]), rule, case, now, drawn, x, y)
            record["losses"].append(net.loss(net.output(case, now, x), y).item())
            found = gradients(rule, case, now, drawn, x, y)
            now = {name: now[name] - case.learning_rate * found[name] for name in net.TENSORS}
        record["test_losses"].append(net.evaluate(case, now, test))
        record["train_losses"].append(net.evaluate(case, now, train_evaluation))
    return record


def checked(step, rule, case, now, drawn, x, y):
    """No slope near its kink; in the narrow network the first and the last update against the explicit sums."""
    checks.away_from_kinks(case, now, drawn.initial, x)
    if case.width == WIDTHS[0] and step in (0, case.steps - 1):
        checks.second_derivation(rule, case, now, drawn, x, y)


def chance_losses(case):
    """Table 8's 9.359 (training part) and 9.312 (test part)."""
    found = {"train": cases.chance_loss(case.targets[:case.train]), "test": cases.chance_loss(case.targets[case.train:])}
    assert [round(found[part], 3) for part in ("train", "test")] == [9.359, 9.312], found
    return found


def document():
    case = cases.task(WIDTHS[0], EPOCHS)
    orders = list(cases.epochs(case))
    config = case.description()
    del config["width"]
    return {
        "name": case.name,
        "config": config,
        "input_sum": int(case.inputs.sum().item()),
        "first_inputs": case.inputs[0, :20].int().tolist(),
        "target_sums": {"train": case.targets[:case.train].sum().item(), "test": case.targets[case.train:].sum().item()},
        "chance_losses": chance_losses(case),
        "first_batch": orders[0][0][0].tolist(),
        "last_train_batch": orders[-1][2][-1].tolist(),
        "widths": [
            {"width": width, "rules": {rule: train(cases.task(width, EPOCHS), rule, checked) for rule in PUBLISHED}}
            for width in WIDTHS
        ],
    }


def main():
    torch.set_num_threads(1)
    width, epochs, *rules = sys.argv[1:]
    for rule in rules:
        record = train(cases.task(int(width), int(epochs)), rule)
        for part in ("train", "test"):
            best = min(record[f"{part}_losses"])
            epoch = record[f"{part}_losses"].index(best) + 1
            print(f"{rule}, width {width}: best {part} loss {best:.3f} after epoch {epoch}", flush=True)


if __name__ == "__main__":
    main()
