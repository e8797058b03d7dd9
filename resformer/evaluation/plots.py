"""Pictures: the network, its training, its evaluation, and films with evidence and lungs.

Every function returns a ``matplotlib.figure.Figure`` that no global state holds, so it works in
threads, servers and notebooks. Colours are those of Okabe and Ito (2008), which people with any
common colour vision can tell apart; line styles repeat the distinction for print in grey.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from resformer.evaluation import metrics
from resformer.evaluation.lineage import MACRO_F1
from resformer.explanation import inferno
from resformer.model import NUM_STAGES, ResFormerConfig, list_parts
from resformer.predict import Prediction
from resformer.transforms import resize_pixels

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GUIDE_COLOUR = "#767676"
_GRID_COLOUR = "#E3E3E3"
_ARROW_COLOUR = "#444444"
_LINE_STYLES = ("-", "--", "-.", ":")
_LOSSES = {"train_loss": "Training", "validation_loss": "Validation"}
_SCORES = {"validation_accuracy": "Accuracy", "validation_macro_f1": "Macro F1"}
_CELL_INCHES, _TITLE_INCHES = 2.4, 0.3
_BOX = (1.3, 0.62)


def new_figure(
    width: float,
    height: float,
    *,
    rows: int = 1,
    columns: int = 1,
    height_ratios: Sequence[float] | None = None,
    sharex: bool = False,
) -> tuple[Figure, list[Axes]]:
    """Return a figure of ``width`` by ``height`` inches and its panels, row by row."""
    figure = Figure(figsize=(width, height), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=sharex, height_ratios=height_ratios)
    panels = list(grid.ravel())
    for axes in panels:
        axes.grid(color=_GRID_COLOUR, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels


def draw_line(
    axes: Axes,
    index: int,
    x: Sequence[float] | npt.NDArray[np.float64],
    y: Sequence[float] | npt.NDArray[np.float64],
    label: str | None = None,
) -> None:
    """Draw a series in the colour and line style of its index; one point alone as a dot."""
    axes.plot(
        x,
        y,
        color=COLOURS[index % len(COLOURS)],
        linestyle=_LINE_STYLES[index % len(_LINE_STYLES)],
        marker="o" if len(x) == 1 else None,
        linewidth=2,
        label=label,
    )


def plot_history(history: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw the losses and the validation scores of each epoch, the best epoch marked.

    Args:
        history: entries with ``epoch``, ``train_loss``, ``validation_loss``,
            ``validation_accuracy`` and ``validation_macro_f1``; best is the first epoch of the
            highest ``validation_score``, which ``score`` names, where there is one, or else
            macro-F1, among those on an input of the last one's ``input_size``.

    Raises:
        ValueError: if there is no entry, or a key is missing.
    """
    if not history:
        raise ValueError("history is empty; train for at least one epoch")
    keys = ("epoch", *_LOSSES, *_SCORES)
    missing = sorted({key for key in keys for entry in history if key not in entry})
    if missing:
        raise ValueError(f"every history entry must hold {', '.join(keys)}; missing: {missing}")
    series = {key: np.array([entry[key] for entry in history], dtype=float) for key in keys}
    scores = dict(_SCORES)
    chosen_by = "validation_macro_f1"
    if all("validation_score" in entry for entry in history):
        chosen_by = "validation_score"
        series[chosen_by] = np.array([entry[chosen_by] for entry in history], dtype=float)
        if history[-1]["score"] != MACRO_F1:
            scores[chosen_by] = history[-1]["score"]
    sizes = np.array([entry.get("input_size", 0) for entry in history])
    best = series["epoch"][np.where(sizes == sizes[-1], series[chosen_by], -1.0).argmax()]
    figure, panels = new_figure(11, 4.2, columns=2)
    titles = ("Loss", "Validation scores")
    for axes, title, labels in zip(panels, titles, (_LOSSES, scores), strict=True):
        for index, (key, label) in enumerate(labels.items()):
            draw_line(axes, index, series["epoch"], series[key], label)
        axes.axvline(best, color=GUIDE_COLOUR, linestyle=":", label=f"Best epoch ({best:.0f})")
        axes.set(title=title, xlabel="Epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.legend()
    return figure


def plot_confusion_matrix(report: Mapping[str, Any]) -> Figure:
    """Draw the confusion matrix of a report: counts, and their share of the true class."""
    counts = np.array(report["confusion_matrix"])
    names = [textwrap.fill(name, width=14) for name in report["class_names"]]
    support = counts.sum(axis=1)
    share = counts / np.maximum(support, 1)[:, None]
    cells = [f"{n}\n{part:.1%}" for n, part in zip(counts.flat, share.flat, strict=True)]
    figure, (axes,) = new_figure(1.8 + 1.25 * len(names), 1.1 + 1.25 * len(names))
    sns.heatmap(
        share,
        ax=axes,
        annot=np.reshape(cells, share.shape),
        fmt="",
        cmap="Blues",
        vmin=0.0,
        vmax=1.0,
        linewidths=1.5,
        cbar=False,
        annot_kws={"fontsize": 11},
        xticklabels=names,
        yticklabels=[f"{name}\n(n = {n})" for name, n in zip(names, support, strict=True)],
    )
    axes.set(xlabel="Predicted class", ylabel="True class", title="Confusion matrix")
    axes.tick_params(axis="both", rotation=0, length=0)
    return figure


def plot_roc(
    labels: npt.NDArray[Any], probabilities: npt.NDArray[Any], class_names: Sequence[str]
) -> Figure:
    """Draw one ROC curve for each class against the rest, its AUC in the legend.

    Raises:
        ValueError: if labels ``(N,)``, probabilities ``(N, K)`` and K class names do not fit.
    """
    labels, probabilities = metrics.check_predictions(labels, probabilities, class_names)
    figure, panels = new_figure(11, 5.6, columns=2)
    whole, corner = panels
    whole.plot([0, 1], [0, 1], color=GUIDE_COLOUR, linewidth=1, linestyle=":", label="Chance")
    for index, name in enumerate(class_names):
        positive, scores = labels == index, probabilities[:, index]
        if positive.all() or not positive.any():
            draw_line(whole, index, (), (), f"{name} (AUC undefined)")
            continue
        area = metrics.roc_auc(positive, scores, np.ones((1, labels.size)))[0]
        false_alarms, hits, _ = roc_curve(positive, scores)
        draw_line(whole, index, false_alarms, hits, f"{name} (AUC {area:.3f})")
        draw_line(corner, index, false_alarms, hits)
    for axes in panels:
        axes.set(
            xlabel="False positive rate (1 - specificity)", ylabel="True positive rate (recall)"
        )
    whole.set(title="ROC curves, each class against the rest", xlim=(-0.01, 1), ylim=(0, 1.01))
    corner.set(title="Upper left corner, enlarged", xlim=(-0.002, 0.2), ylim=(0.8, 1.002))
    whole.legend(loc="lower right")
    return figure


def plot_reliability(labels: npt.NDArray[Any], probabilities: npt.NDArray[Any]) -> Figure:
    """Draw the accuracy of the predicted class against its confidence, and how many images.

    Vertical lines are the 95 % Wilson interval of each bin's accuracy.

    Raises:
        ValueError: if labels ``(N,)`` and probabilities ``(N, K)`` do not fit together.
    """
    columns = [str(k) for k in range(np.shape(probabilities)[-1])]
    labels, probabilities = metrics.check_predictions(labels, probabilities, columns)
    confidence = probabilities.max(axis=1)
    index = metrics.confidence_bins(confidence)
    counts = np.bincount(index, minlength=metrics.CALIBRATION_BINS)
    right = np.bincount(index, probabilities.argmax(axis=1) == labels, metrics.CALIBRATION_BINS)
    confidences = np.bincount(index, confidence, metrics.CALIBRATION_BINS)
    error = metrics.calibration_error(labels, probabilities, np.ones((1, labels.size)))
    figure, (curve, histogram) = new_figure(6, 7, rows=2, height_ratios=(3, 1), sharex=True)
    curve.plot([0, 1], [0, 1], color=GUIDE_COLOUR, linewidth=1, linestyle=":", label="Perfect")
    for k in np.flatnonzero(counts):
        share = metrics.estimate_share(int(right[k]), int(counts[k]))
        interval = np.array([share["low"], share["high"]], dtype=float)
        curve.plot([confidences[k] / counts[k]] * 2, interval, color=COLOURS[0], linewidth=1.2)
    filled = counts > 0
    means = confidences[filled] / counts[filled], right[filled] / counts[filled]
    curve.plot(*means, color=COLOURS[0], marker="o", linestyle="none", label="Model")
    curve.set(ylabel="Accuracy", ylim=(0.0, 1.02), title="Reliability of the confidence")
    curve.legend(loc="upper left", title=f"Expected calibration error {error[0]:.3f}")
    centres = (np.arange(metrics.CALIBRATION_BINS) + 0.5) / metrics.CALIBRATION_BINS
    histogram.bar(centres, counts, width=0.9 / metrics.CALIBRATION_BINS, color=COLOURS[0])
    histogram.set(xlabel="Confidence in the predicted class", ylabel="Images", xlim=(0.0, 1.01))
    return figure


def plot_risk_coverage(
    labels: npt.NDArray[Any], probabilities: npt.NDArray[Any], abstention: Mapping[str, Any]
) -> Figure:
    """Draw the risk against the coverage, and where the model as it is shipped stands.

    Of labels ``(N,)``, probabilities ``(N, K)``, and ``evaluate_abstention`` of the same films.

    Raises:
        ValueError: if labels and probabilities do not fit together.
    """
    risks = metrics.risk_curve(labels, probabilities)
    figure, (axes,) = new_figure(6, 4.4)
    coverage = np.arange(1, risks.size + 1) / risks.size
    draw_line(axes, 0, coverage, risks, f"Surest first (area {abstention['area']:.3f})")
    if abstention["accuracy_shown"]["value"] is not None:
        point = [abstention["shown"]["value"]], [1 - abstention["accuracy_shown"]["value"]]
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


def plot_films(
    films: Sequence[NDArray[np.uint8]], titles: Sequence[str], *, columns: int = 4
) -> Figure:
    """Draw films ``(H, W)`` in rows, each under its title, black at 0 and white at 255.

    Raises:
        ValueError: if there is no film, or not one title for each.
    """
    if not films or len(films) != len(titles):
        raise ValueError(
            f"give one title for each film, and a film at least: {len(films)} films, "
            f"{len(titles)} titles"
        )
    columns = min(columns, len(films))
    rows = -(-len(films) // columns)
    lines = 1 + max(title.count("\n") for title in titles)
    height = rows * (_CELL_INCHES + lines * _TITLE_INCHES)
    figure, panels = new_figure(columns * _CELL_INCHES, height, rows=rows, columns=columns)
    for axes in panels:
        axes.set_axis_off()
    for axes, film, title in zip(panels, films, titles, strict=False):
        axes.imshow(film, cmap="gray", vmin=0, vmax=255)
        axes.set_title(title, fontsize=9)
    return figure


def plot_tiles(films: Sequence[NDArray[np.uint8]], title: str, *, columns: int = 6) -> Figure:
    """Draw films ``(H, W)`` of one size side by side, in rows, without a title for each.

    Raises:
        ValueError: if there is no film, or they are of several sizes.
    """
    from torchvision.utils import make_grid  # slow to import, and needed for this alone

    if len({film.shape for film in films}) != 1:
        raise ValueError("give one film or more, all of one size: resize them first")
    tiles = torch.from_numpy(np.stack(films)).unsqueeze(1)
    grid = make_grid(tiles, nrow=columns, padding=4, pad_value=255)[0].numpy()
    height, width = grid.shape
    figure, (axes,) = new_figure(10, 10 * height / width + _TITLE_INCHES)
    axes.set_axis_off()
    axes.imshow(grid, cmap="gray", vmin=0, vmax=255)
    axes.set_title(title, fontsize=9)
    return figure


def plot_evidence(
    film: NDArray[np.uint8], prediction: Prediction, class_name: str | None = None
) -> Figure:
    """Draw a film with the outline of the lungs, and with the evidence for the predicted class.

    Another class may be named; the film ``(H, W)`` is what the prediction was made of.

    Raises:
        ValueError: if the class is unknown.
    """
    name = class_name or prediction.predicted_class
    evidence = prediction.explain(name)
    figure, panels = new_figure(7.6, 4.2, columns=2)
    panels[0].set_title(f"Film{'' if prediction.lungs is None else ' and outline of the lungs'}")
    panels[1].set_title(f"Evidence for {name}, P = {prediction.probabilities[name]:.2f}")
    for axes in panels:
        axes.imshow(film, cmap="gray", vmin=0, vmax=255)
        axes.set_axis_off()
    levels = np.rint(255 * evidence).astype(np.uint8)
    panels[1].imshow(np.dstack([inferno(levels), levels]))
    if prediction.lungs is not None:
        height, width = film.shape
        lungs = resize_pixels(np.rint(255 * prediction.lungs).astype(np.uint8), max(film.shape))
        for axes in panels:
            extent = (0, width, 0, height)
            axes.contour(lungs, [127.5], extent=extent, colors=COLOURS[5], linewidths=1.2)
    return figure


def plot_network(config: ResFormerConfig, size: int) -> Figure:
    """Draw the network: its parts, what flows between them, and the shapes of it."""
    shape = {part.name.partition(":")[0]: part.output for part in list_parts(config, size)}
    figure, (axes,) = new_figure(11, 5)
    axes.set_axis_off()
    axes.set(xlim=(-0.8, 7.2), ylim=(-0.9, 3.4))

    def box(x: float, y: float, text: str, colour: int, width: float = _BOX[0]) -> None:
        corner = (x - width / 2, y - _BOX[1] / 2)
        style, face = "round,pad=0,rounding_size=0.08", COLOURS[colour] + "26"
        axes.add_patch(
            FancyBboxPatch(corner, width, _BOX[1], boxstyle=style, fc=face, ec=COLOURS[colour])
        )
        axes.text(x, y, text, ha="center", va="center", fontsize=9)

    def arrow(start: tuple[float, float], end: tuple[float, float], bend: float = 0.0) -> None:
        style = {"arrowstyle": "-|>", "color": _ARROW_COLOUR, "connectionstyle": f"arc3,rad={bend}"}
        axes.annotate("", end, start, arrowprops=style)

    def dimensions(name: str) -> str:
        return " x ".join(map(str, shape[name]))

    half, top, bus = _BOX[0] / 2, _BOX[1] / 2, -0.6
    box(0, 3, f"image\n{config.in_chans} x {size} x {size}", 6)
    arrow((half, 3), (1.6 - half, 3))
    for stage in range(NUM_STAGES):
        x = 1.6 * (stage + 1)
        box(x, 3, f"stage {stage + 1}: MCCRM", 0)
        box(x, 2, f"EMPT {stage + 1}: x{stage + 1}\n{dimensions(f'EMPT {stage + 1}')}", 1)
        box(x, 0, f"f{stage + 1} = x{stage + 1} + IMTM", 2)
        axes.plot([x, x], [-top, bus], color=_ARROW_COLOUR, linewidth=1)
        if stage:
            arrow((x - 1.6 + half, 2), (x - half, 3))
        arrow((x, 3 - top), (x, 2 + top))
        arrow((x, 2 - top), (x, 1 + top))
        arrow((x, 1 - top), (x, top))
        arrow((x + half - 0.1, 2 - top), (x + half - 0.1, top), bend=-0.12)
    box(4, 1, "IMTM: attention over all four scales", 3, width=4.8 + _BOX[0])
    box(0, 0, f"classifier\n{config.num_classes} logits", 6)
    axes.plot([0, 1.6 * NUM_STAGES], [bus, bus], color=_ARROW_COLOUR, linewidth=1)
    arrow((0, bus), (0, -top))
    if config.lung_head:
        head = "Lung head, with infected lung" if config.infection_head else "Lung head"
        box(0, 1, f"lung head\n{dimensions(head)}", 4)
        arrow((1.6 - half, 0.15), (half, 0.9))
        arrow((0, 1 - top), (0, top))
    pooled = "all four are pooled" + (" inside the lungs" if config.lung_head else "")
    axes.text(4, bus - 0.05, pooled, ha="center", va="top", fontsize=9)
    return figure
