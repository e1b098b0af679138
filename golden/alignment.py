"""Writes alignment.json: exact alignment scores of random weight changes, and companions W* with their scores."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import cases
import companion
from alignment_score import conv_operator, conv_operator_by_taps, score
from checks import agree
from network import single
from rules import flat

SEED = 2024
GRIDS = ((5, 7, 1), (5, 7, 2), (8, 8, 2), (9, 4, 4), (1, 1, 1), (3, 1, 1))  # rows, columns, stride
CHANNELS = ((2, 3), (3, 3))
MATRICES = ((4, 7), (7, 4), (5, 5), (1, 3), (3, 1))  # inputs, outputs
SIMILARITY = (0.0, 0.8)  # how much of D is in D*
SCORED_AFTER = (1, 5, 10)
CASES = ("conv-small", "dense-small", "conv-none")


def pair(stream, shape, similarity):
    """D and D* = similarity D + a part of its own."""
    change = stream.normal(size=shape)
    other = similarity * change + (1 - similarity ** 2) ** 0.5 * stream.normal(size=shape)
    return single(change), single(other)


def recorded(change, other):
    return {"change": change.reshape(-1).tolist(), "companion_change": other.reshape(-1).tolist()}


def conv_scores(stream):
    entries = []
    for rows, columns, stride in GRIDS:
        for inputs, outputs in CHANNELS:
            for similarity in SIMILARITY:
                changes = pair(stream, (3, 3, inputs, outputs), similarity)
                maps = [conv_operator(change, rows, columns, stride) for change in changes]
                for change, matrix in zip(changes, maps):
                    assert torch.equal(matrix, conv_operator_by_taps(change, rows, columns, stride))
                check_invariance(changes[0], lambda w: conv_operator(w, rows, columns, stride))
                entries.append({
                    "rows": rows, "columns": columns, "stride": stride, "inputs": inputs, "outputs": outputs,
                } | recorded(*changes) | score(*maps))
    return entries


def dense_scores(stream):
    entries = []
    for inputs, outputs in MATRICES:
        for similarity in SIMILARITY:
            changes = pair(stream, (inputs, outputs), similarity)
            check_invariance(changes[0], lambda w: w.T)
            entries.append(
                {"inputs": inputs, "outputs": outputs} | recorded(*changes) | score(*(c.T for c in changes))
            )
    return entries


def check_invariance(change, operator):
    """S is 1 for a multiple of either sign, and for a change rotated in its output channels: inputs alone matter."""
    outputs = change.shape[-1]
    rotation, _ = torch.linalg.qr(torch.arange(1.0, 1 + outputs ** 2, dtype=torch.float64).sin().reshape(outputs, -1))
    for other in (3 * change, -change, change @ rotation):
        assert abs(score(operator(change), operator(other))["score"] - 1) <= 1e-12


def sgd_case(name):
    """The case of cases.py; one that trains with Adam there takes SGD at 0.1 here."""
    case = next(case for case in cases.CASES if case.name == name)
    return case if case.optimizer == "sgd" else replace(case, optimizer="sgd", learning_rate=0.1)


def companion_record(case):
    trained = companion.train(case, SCORED_AFTER)
    deviations = {"S - 1 after step 1": max(abs(s - 1) for s in trained.scores[0])}
    record = {
        "name": case.name,
        "config": case.description(),
        "initial_weight_sums": [w.sum().item() for w in trained.initial.weights],
        "losses": trained.losses,
        "scored_after": list(SCORED_AFTER),
        "scores": trained.scores,
        "final": {"weights": flat(trained.now.weights), "biases": flat(trained.now.biases)},
        "companion": {"weights": flat(trained.companion.weights), "biases": flat(trained.companion.biases)},
    }
    assert deviations["S - 1 after step 1"] <= 1e-12
    if case.norm == "none":
        at_once = companion.from_integrated_error(case, trained.initial, trained.integrated_error)
        changes = [
            ([w - w0 for w, w0 in zip(p.weights, trained.initial.weights)], p.biases)
            for p in (at_once, trained.companion)
        ]
        deviations["integrated error"] = agree(*changes, f"{case.name} integrated error")
        record["integrated_error"] = trained.integrated_error.tolist()
        if case.kind == "dense":
            deviations["Eq. 12"] = companion.check_correlation(case, trained)
    return record, deviations


def main():
    torch.set_num_threads(1)
    stream = np.random.RandomState(SEED)
    document = {"conv": conv_scores(stream), "dense": dense_scores(stream), "companions": []}
    for kind in ("conv", "dense"):
        print(kind, " ".join(f"{entry['score']:.3f}" for entry in document[kind]))
    for name in CASES:
        record, deviations = companion_record(sgd_case(name))
        document["companions"].append(record)
        print(name, " ".join(f"{what}: {value:.1e};" for what, value in deviations.items()))
        for step, scores in zip(record["scored_after"], record["scores"]):
            print(f"    after {step:2}", " ".join(f"{s:.6f}" for s in scores))
    text = json.dumps(document, separators=(",", ":"), allow_nan=False) + "\n"
    Path(__file__).with_suffix(".json").write_text(text)
    print(len(text))


if __name__ == "__main__":
    main()
