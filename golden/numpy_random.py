"""Writes numpy_random.json: what NumPy's legacy generator (numpy.random.RandomState) draws.

Doubles are stored as the 16 hexadecimal digits of their IEEE bit pattern, so that no decimal
conversion stands between NumPy and the reader; sums that overflow JSON numbers are decimal strings.
"""

import json
from pathlib import Path

import numpy as np

SEEDS = (0, 99, 100, 4294967295)


def bits(values):
    """The IEEE bit patterns of doubles, as hexadecimal strings."""
    return [f"{pattern:016x}" for pattern in np.asarray(values, np.float64).ravel().view(np.uint64).tolist()]


def bit_sum(values):
    """Sum of the bit patterns modulo 2^64, as a decimal string."""
    return str(sum(np.asarray(values, np.float64).view(np.uint64).tolist()) % 2**64)


def integers(values):
    return [int(value) for value in np.asarray(values).ravel()]


def fresh_draws(seed):
    """Draws that each start on a newly seeded generator."""
    stream = np.random.RandomState
    normal = stream(seed).normal(size=1001)
    np.random.seed(seed)
    assert np.array_equal(normal, np.random.normal(size=1001)), "seed() and RandomState() must agree"
    return {
        "raw_u32": integers(stream(seed)._bit_generator.random_raw(8)),
        "random_sample": bits(stream(seed).random_sample(9)),
        "normal_1001": {"first_20": bits(normal[:20]), "last_5": bits(normal[-5:]), "bit_sum": bit_sum(normal)},
    }


def one_stream(seed):
    """Draws of several kinds, in this order, from one generator."""
    stream = np.random.RandomState(seed)
    drawn = {
        "normal_3": bits(stream.normal(size=3)),
        "permutation_10": integers(stream.permutation(10)),
        "normal_2": bits(stream.normal(size=2)),
        "permutation_1000": integers(stream.permutation(1000)),
    }
    large = integers(stream.permutation(45000))
    drawn["permutation_45000"] = {
        "first_20": large[:20],
        "last_20": large[-20:],
        "index_weighted_sum": str(sum(index * value for index, value in enumerate(large))),
    }
    drawn["permutation_1"] = integers(stream.permutation(1))
    drawn["permutation_0"] = integers(stream.permutation(0))
    twin = np.random.RandomState()
    twin.set_state(stream.get_state())
    drawn["binomial_4x7"] = integers(stream.binomial(1, 0.5, (4, 7)))
    assert drawn["binomial_4x7"] == integers(twin.random_sample(28) > 0.5), "one uniform double per binomial value"
    drawn["random_sample_2"] = bits(stream.random_sample(2))
    drawn["normal_1"] = bits(stream.normal(size=1))
    return drawn


def main():
    seeds = [{"seed": seed, "fresh": fresh_draws(seed), "one_stream": one_stream(seed)} for seed in SEEDS]
    path = Path(__file__).with_suffix(".json")
    path.write_text(json.dumps({"numpy": np.__version__, "seeds": seeds}, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
