"""Pictures of what was measured: times of `clipq bench`, answers and embeddings of `clipq eval`, as matplotlib figures.

    figure = clipq.plots.bench(report)                  # what clipq.benchmark.benchmark returned
    figure = clipq.plots.evaluation(result, baseline)   # two results of clipq.evaluate
    figure = clipq.plots.sensitivities(found)           # what clipq.sensitivity returned
    figure = clipq.plots.front(mixture)                 # what clipq.mix returned
    clipq.plots.save(figure, "what-changed.svg")        # or .png or .pdf; the same bytes every time

Nothing here measures or runs a model, and nothing uses pyplot, whose state belongs to the caller. Needs matplotlib
(`pip install 'clipq[plots]'`), which is imported when a figure is made.
"""

from __future__ import annotations

from .evaluations import evaluation
from .fronts import front
from .saving import check_plot, save
from .sensitivities import sensitivities
from .times import bench

__all__ = ["bench", "check_plot", "evaluation", "front", "save", "sensitivities"]
