"""How good a model is, and what it goes by: metrics, controls, sources, report and card."""
