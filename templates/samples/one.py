"""Classify one film."""

import os
from pathlib import Path

import requests

response = requests.post(
    "http://localhost:5000/v1/predict",
    params={"preview": 0},  # without the picture of the film, which the page shows
    files={"file": Path("film.png").read_bytes()},
    headers={"X-API-Key": os.environ.get("RESFORMER_API_KEY", "")},  # where one is asked for
    timeout=60,
)
answer = response.json()
if not answer["success"]:
    raise SystemExit(f"{answer['code']}: {answer['error']}")
print(answer["prediction"]["predicted_class"], answer["prediction"]["confidence"])
for warning in answer["warnings"]:
    print("Careful:", warning["message"])
