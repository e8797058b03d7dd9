"""The same network behind a plain Flask route, written the obvious way, to be measured against.

    RESFORMER_MODEL=best_model.pth python -m benchmarks.plain_service

PyTorch as it is, a preview of the full size, and Flask's development server.
"""

from __future__ import annotations

import base64
import io
import os
import sys
from pathlib import Path

import numpy as np
import torch
from flask import Flask, jsonify, request
from flask.typing import ResponseReturnValue
from PIL import Image
from werkzeug.serving import make_server

from resformer.checkpoint import load_checkpoint
from resformer.transforms import to_input


def create_app(path: Path) -> Flask:
    """Return an application with one route that classifies a film."""
    checkpoint = load_checkpoint(path)
    model = checkpoint.build_model()
    app = Flask(__name__)

    @app.get("/readyz")
    def readyz() -> str:
        return "ready"

    @app.post("/predict")
    def predict() -> ResponseReturnValue:
        film = Image.open(request.files["file"].stream).convert("L")
        batch = to_input(np.array(film), checkpoint.input_spec)[None]
        with torch.no_grad():
            probabilities = torch.softmax(model(batch) / checkpoint.temperature, dim=1)[0]
        preview = io.BytesIO()
        film.save(preview, format="PNG")
        return jsonify(
            probabilities=dict(zip(checkpoint.class_names, probabilities.tolist(), strict=True)),
            image=base64.b64encode(preview.getvalue()).decode(),
        )

    return app


if __name__ == "__main__":
    server = make_server(
        "127.0.0.1", 0, create_app(Path(os.environ["RESFORMER_MODEL"])), threaded=True
    )
    sys.stderr.write(f"serving on http://127.0.0.1:{server.server_port}\n")
    sys.stderr.flush()
    server.serve_forever()
