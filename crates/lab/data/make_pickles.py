"""Writes the fixtures in pickles/: batches of two images laid out like cifar-10-batches-py.

The official files were written by Python 2 with pickle protocol 2. Runs under either Python:

    python2.7 make_pickles.py pickles    # NumPy 1.16: writes python2-protocol2
    python3   make_pickles.py pickles    # NumPy 2.4:  writes python3-protocol2 to python3-protocol5

Pixel of image i, channel c, row y, column x: (7 i + 50 c + 3 y + x) mod 256. Labels: 3 and 9.
"""
from __future__ import print_function

import os
import pickle
import sys

import numpy

if sys.version_info[0] == 2:
    import cPickle as pickle

i, c, y, x = numpy.indices((2, 3, 32, 32))
data = ((7 * i + 50 * c + 3 * y + x) % 256).astype(numpy.uint8).reshape(2, 3072)


def key(name):
    return name if sys.version_info[0] == 2 else name.encode()


batch = {
    key("batch_label"): key("training batch 1 of 5"),
    key("labels"): [3, 9],
    key("data"): data,
    key("filenames"): [key("truck_s_000001.png"), key("frog_s_000002.png")],
}
for protocol in [2] if sys.version_info[0] == 2 else [2, 3, 4, 5]:
    name = "python%d-protocol%d" % (sys.version_info[0], protocol)
    with open(os.path.join(sys.argv[1], name), "wb") as out:
        pickle.dump(batch, out, protocol)
    print(name)
