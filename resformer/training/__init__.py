"""Training: configuration, one epoch, resumable state and the whole run."""
