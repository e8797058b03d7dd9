"""Classify several films in one request."""

import os
from pathlib import Path

import requests

films = [Path("first.png"), Path("second.dcm")]
response = requests.post(
    "http://localhost:5000/v1/predict/batch",
    params={"preview": 0},
    files=[("files", (film.name, film.read_bytes())) for film in films],
    headers={"X-API-Key": os.environ.get("RESFORMER_API_KEY", "")},  # where one is asked for
    timeout=60,
)
answer = response.json()
if not answer["success"]:  # the whole request: too many files, no key, a busy server
    raise SystemExit(f"{answer['code']}: {answer['error']}")
for result in answer["results"]:
    if result["success"]:
        print(result["index"], result["name"], result["prediction"]["predicted_class"])
    else:
        print(result["index"], result["name"], result["code"], result["error"])
