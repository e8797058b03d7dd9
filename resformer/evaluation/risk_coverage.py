"""Selective classification: how many answers stay wrong when the least sure ones are withheld.

Films are ordered by the probability of the predicted class. At a coverage c the surest share c of
them is answered, and the risk is the share of these answers that is wrong (El-Yaniv and Wiener,
JMLR 2010; Geifman and El-Yaniv, NeurIPS 2017). What the shipped model withholds is counted beside
it: films that the gate refuses or that the network abstains from.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from resformer.evaluation.answers import Answers
from resformer.evaluation.checks import check_predictions
from resformer.evaluation.scores import FloatArray
from resformer.evaluation.shares import estimate_share
from resformer.evaluation.style import COLOURS, draw_line, new_figure

COVERAGES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.5)


def risk_curve(labels: npt.NDArray[Any], probabilities: npt.NDArray[Any]) -> FloatArray:
    """Return the risk at the coverages 1/N, 2/N, ..., 1.

    Args:
        labels: ``(N,)`` class indices.
        probabilities: ``(N, K)``, each row sums to 1.

    Returns:
        ``(N,)``; films of equal confidence are answered in the order in which they stand.

    Raises:
        ValueError: the arguments do not fit together.
    """
    columns = [str(k) for k in range(np.shape(probabilities)[-1])]
    labels, probabilities = check_predictions(labels, probabilities, columns)
    order = np.argsort(-probabilities.max(axis=1), kind="stable")
    wrong = (probabilities.argmax(axis=1) != labels)[order]
    risks: FloatArray = np.cumsum(wrong) / np.arange(1, labels.size + 1)
    return risks


def evaluate_abstention(labels: npt.NDArray[Any], answers: Answers) -> dict[str, Any]:
    """Return what withholding answers brings, as plain data.

    Args:
        labels: ``(N,)`` class indices.
        answers: to the same films.

    Returns:
        ``count``, ``refused`` and ``abstained``, numbers of films; with Wilson intervals ``shown``,
        the share of films that are shown a class without a warning, ``accuracy_shown`` and
        ``accuracy_withheld`` among these and among the others, and ``wrong_without_warning``, the
        share of all films that are shown a wrong class; ``area``, the mean of the risk over all
        coverages; ``risks``: ``coverage`` and ``risk`` at ``COVERAGES``.

    Raises:
        ValueError: as :func:`risk_curve`.
    """
    risks = risk_curve(labels, answers.probabilities)
    right, shown = answers.predicted == np.asarray(labels), answers.shown
    points = [(share, math.ceil(share * risks.size)) for share in COVERAGES]
    return {
        "count": int(risks.size),
        "refused": int(answers.refused.sum()),
        "abstained": int(answers.abstained.sum()),
        "shown": estimate_share(int(shown.sum()), int(risks.size)),
        "accuracy_shown": estimate_share(int((right & shown).sum()), int(shown.sum())),
        "accuracy_withheld": estimate_share(int((right & ~shown).sum()), int((~shown).sum())),
        "wrong_without_warning": estimate_share(int((~right & shown).sum()), int(risks.size)),
        "area": float(risks.mean()),
        "risks": [{"coverage": c, "risk": float(risks[films - 1])} for c, films in points],
    }


def plot_risk_coverage(labels: npt.NDArray[Any], answers: Answers) -> Figure:
    """Draw the risk against the coverage, and where the model as it is shipped stands.

    Raises:
        ValueError: as :func:`risk_curve`.
    """
    risks = risk_curve(labels, answers.probabilities)
    found = evaluate_abstention(labels, answers)
    figure, (axes,) = new_figure(6, 4.4)
    coverage = np.arange(1, risks.size + 1) / risks.size
    draw_line(axes, 0, coverage, risks, f"Surest first (area {found['area']:.3f})")
    if found["accuracy_shown"]["value"] is not None:
        point = [found["shown"]["value"]], [1 - found["accuracy_shown"]["value"]]
        axes.plot(*point, color=COLOURS[1], marker="D", linestyle="none", label="As shipped")
    axes.set(
        xlabel="Coverage (share of films answered)",
        ylabel="Risk (share of answers that are wrong)",
        title="Risk and coverage",
        xlim=(0.0, 1.01),
        ylim=(0.0, None),
    )
    axes.legend(loc="upper left")
    return figure
