"""Prints as JSON what the real TensorBoard finds in the run folder that is named on the command line."""

import json
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

everything = {"scalars": 0, "tensors": 0}
events = EventAccumulator(sys.argv[1], size_guidance=everything)
events.Reload()
tags = events.Tags()


def points(tag):
    """Step and value of each point; the value as text, for JSON has no NaN."""
    return [(e.step, repr(e.value)) for e in events.Scalars(tag)]


texts = {tag: events.Tensors(tag)[0].tensor_proto.string_val[0].decode() for tag in tags["tensors"]}
plugins = {tag: events.SummaryMetadata(tag).plugin_data.plugin_name for tag in tags["tensors"]}
found = {
    "version": events.file_version,
    "scalars": {tag: points(tag) for tag in tags["scalars"]},
    "texts": texts,
    "plugins": plugins,
}
json.dump(found, sys.stdout)
