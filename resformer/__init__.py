"""Identity-Mapping ResFormer: a small chest X-ray classifier to run, trust and retrain."""

__version__ = "0.1.0"
