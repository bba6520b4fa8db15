"""Prints what TensorBoard makes of a folder of event files, as JSON: {"scalars": {tag: [[step, value], ...]}, "images":
{tag: [[step, width, height], ...]}}.

    pip install tensorboard
    python read_events.py DIR
"""
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

events = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0, "images": 0})
events.Reload()
tags = events.Tags()
print(json.dumps({
    "scalars": {tag: [[e.step, e.value] for e in events.Scalars(tag)] for tag in tags["scalars"]},
    "images": {tag: [[e.step, e.width, e.height] for e in events.Images(tag)] for tag in tags["images"]},
}))
