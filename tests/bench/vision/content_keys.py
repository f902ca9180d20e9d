"""Keys of what the benchmark computes: digests of everything the result depends on."""

import hashlib
import json

from tests.bench.vision.task import Task


def key_of(**facts: object) -> str:
    """Return 16 hex digits for plain facts (numbers, texts, lists of them), by name."""
    text = json.dumps(facts, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def task_key(task: Task) -> str:
    """Return 16 hex digits for a task's classes, images and labels, parts included."""
    digest = hashlib.sha256(json.dumps([task.name, list(task.classes)]).encode())
    for part, examples in sorted(task.parts.items()):
        shape = json.dumps([part, list(examples.images.shape)])
        digest.update(shape.encode() + examples.images.tobytes() + examples.labels.tobytes())
    return digest.hexdigest()[:16]
