"""The model card (Mitchell et al., FAT* 2019) and the README's figures, from the report alone.

Nothing here measures or remembers a figure: each function maps the JSON of
``python -m resformer report`` to Markdown. Importing this package brings in neither PyTorch nor a
plotting library.
"""

from resformer.evaluation.card.sections import render_card
from resformer.evaluation.card.summary import render_figures

__all__ = ["render_card", "render_figures"]
