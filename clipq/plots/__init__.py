"""Pictures of what was measured: times of `clipq bench`, answers and embeddings of `clipq eval`, as matplotlib figures.

    figure = clipq.plots.bench(report)                  # what clipq.benchmark.benchmark returned
    figure = clipq.plots.evaluation(result, baseline)   # two results of clipq.evaluate
    clipq.plots.save(figure, "what-changed.svg")        # or .png or .pdf; the same bytes every time

Nothing here measures or runs a model, and nothing uses pyplot, whose state belongs to the caller. Needs matplotlib
(`pip install 'clipq[plots]'`), which is imported when a figure is made.
"""

from __future__ import annotations

from .evaluations import evaluation
from .saving import check_plot, save
from .times import bench

__all__ = ["bench", "check_plot", "evaluation", "save"]
