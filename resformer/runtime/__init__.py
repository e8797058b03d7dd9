"""Runs a trained network: by PyTorch, or by ONNX Runtime where that is faster."""
