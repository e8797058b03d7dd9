"""Training: ``train`` tells how one goes, from ``config`` to what ``finish`` adds at the end."""

# What a training leaves in its folder beside its state.
MODEL_NAME, MANIFEST_NAME = "model.pth", "manifest.csv"
