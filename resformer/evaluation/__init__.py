"""Evaluation: metrics with intervals, calibration, and their pictures.

Importing this package is free of scikit-learn, seaborn and matplotlib; `plots` and `report`
bring them in.
"""
