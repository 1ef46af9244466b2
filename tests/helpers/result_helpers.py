"""Answers and results made by hand."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch.nn.functional import normalize

from clipq.evaluation.answers import Answers
from clipq.evaluation.metrics import metrics, top_answers
from clipq.evaluation.results import Result

CLASSES = torch.eye(3)


def answers(images: list[list[float]], labels: list[int], classes: torch.Tensor = CLASSES, **changes) -> Answers:
    rows = normalize(torch.tensor(images).float(), dim=-1)
    top1, top5 = top_answers(rows, classes, torch.tensor(labels))
    keys = tuple(f"{i}.png" for i in range(len(labels)))
    made = Answers("t", 1, "digest", keys, torch.tensor(labels), top1, top5, rows, classes)
    return replace(made, **changes)


BASE = answers([[3, 1, 0], [3, 1, 0], [0, 2, 1], [0, 2, 1], [1, 0, 3]], [0, 0, 1, 2, 2])


def a_result(**changes) -> Result:
    model = {"name": "m", "precision": {"image": "fp32", "text": "fp32"}, "source": {}, "fingerprint": "f"}
    fields = {"task": "t", "task_version": 1, "n": 5, "n_classes": 3, "limit": None, "model": model, "seconds": 1.5}
    fields |= {"data": {}, "metrics": metrics(BASE), "broken": {}, "environment": {}, "images_per_second": None}
    return Result(**{**fields, "date": "2026-01-01T00:00:00+00:00", "answers": BASE, **changes})
