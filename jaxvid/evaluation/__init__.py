"""From an apply function and batches to numbers: multi-view prediction, mergeable metrics, reports.

>>> from jaxvid.evaluation import evaluate, summarize, write_report  # doctest: +SKIP
>>> predictions = evaluate(apply, variables, batches, num_classes=10)  # doctest: +SKIP
>>> metrics = summarize(predictions, class_names)  # doctest: +SKIP
>>> write_report("runs/x/eval", predictions, metrics, class_names)  # doctest: +SKIP
"""

from jaxvid.evaluation.confusion import draw_confusion
from jaxvid.evaluation.metrics import ClassificationState, label_ranks, per_class, summarize
from jaxvid.evaluation.predict import Predictions, evaluate, mean_scores, predict_batches
from jaxvid.evaluation.report import format_per_class, write_report

__all__ = [
    "ClassificationState",
    "Predictions",
    "draw_confusion",
    "evaluate",
    "format_per_class",
    "label_ranks",
    "mean_scores",
    "per_class",
    "predict_batches",
    "summarize",
    "write_report",
]
