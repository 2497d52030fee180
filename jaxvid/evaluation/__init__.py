"""From an apply function and batches to numbers: multi-view prediction, mergeable metrics, reports.

>>> from jaxvid.evaluation import evaluate, summarize, write_report  # doctest: +SKIP
>>> predictions = evaluate(apply, variables, batches, num_classes=10)  # doctest: +SKIP
>>> metrics = summarize(predictions, class_names)  # doctest: +SKIP
>>> write_report("runs/x/eval", predictions, metrics, class_names)  # doctest: +SKIP
"""

from jaxvid.evaluation.comparison import Comparison, Judged, compare_judged, compare_runs, read_judged, read_scored
from jaxvid.evaluation.comparison_report import comparison_json, draw_gains, format_comparison, write_comparison
from jaxvid.evaluation.confusion import draw_confusion
from jaxvid.evaluation.fusion import Fusion, fuse_judged, fuse_runs, fused_scores
from jaxvid.evaluation.fusion_report import draw_weights, format_fusion, fusion_json, write_fusion
from jaxvid.evaluation.metrics import ClassificationState, label_ranks, per_class, summarize
from jaxvid.evaluation.networks import format_networks, network_fusions, network_predictions
from jaxvid.evaluation.predict import Predictions, concatenate, evaluate, mean_scores, predict_batches
from jaxvid.evaluation.report import format_per_class, write_report
from jaxvid.evaluation.stage_guesses import StageGuesses, collect_guesses
from jaxvid.evaluation.stage_guesses_report import format_guesses
from jaxvid.evaluation.stats import McNemar, clips_needed, difference_interval, holm, mcnemar

__all__ = [
    "ClassificationState",
    "Comparison",
    "Fusion",
    "Judged",
    "McNemar",
    "Predictions",
    "StageGuesses",
    "clips_needed",
    "collect_guesses",
    "compare_judged",
    "compare_runs",
    "comparison_json",
    "concatenate",
    "difference_interval",
    "draw_confusion",
    "draw_gains",
    "draw_weights",
    "evaluate",
    "format_comparison",
    "format_fusion",
    "format_guesses",
    "format_networks",
    "format_per_class",
    "fuse_judged",
    "fuse_runs",
    "fused_scores",
    "fusion_json",
    "holm",
    "label_ranks",
    "mcnemar",
    "mean_scores",
    "network_fusions",
    "network_predictions",
    "per_class",
    "predict_batches",
    "read_judged",
    "read_scored",
    "summarize",
    "write_comparison",
    "write_fusion",
    "write_report",
]
