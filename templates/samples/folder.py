"""Classify every film of a folder: python folder.py films results.csv."""

import csv
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

SERVER = "http://localhost:5000"

session = requests.Session()
session.headers["X-API-Key"] = os.environ.get("RESFORMER_API_KEY", "")  # where one is asked for
# A server that is busy, or that limits its clients, says after how many seconds to try again.
patience = Retry(
    6, status_forcelist=[429, 503], allowed_methods=None, backoff_factor=1, raise_on_status=False
)
session.mount(SERVER, HTTPAdapter(max_retries=patience))


def classify(film: Path) -> list[object]:
    """Ask for one film; a film that is refused spoils no other."""
    try:
        response = session.post(
            f"{SERVER}/v1/predict",
            params={"preview": 0},
            files={"file": film.read_bytes()},
            timeout=60,
        )
        answer = response.json()
    except (OSError, ValueError) as error:
        return [film.name, "", "", "", error]
    if response.status_code == 401:
        sys.exit(answer["error"])
    if not answer["success"]:
        return [film.name, "", "", "", answer["error"]]
    found = answer["prediction"]
    return [film.name, found["predicted_class"], found["confidence"], found["abstained"], ""]


folder, results = Path(sys.argv[1]), Path(sys.argv[2])
films = sorted(path for path in folder.iterdir() if path.is_file())
with results.open("w", newline="", encoding="utf-8") as file, ThreadPoolExecutor(4) as threads:
    table = csv.writer(file)
    table.writerow(["file", "class", "confidence", "uncertain", "error"])
    table.writerows(threads.map(classify, films))
