"""Training: configuration, one epoch, resumable state and the whole run."""

# What a training leaves in its folder beside its state.
MODEL_NAME, MANIFEST_NAME = "model.pth", "manifest.csv"
