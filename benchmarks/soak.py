"""Let several clients send good and bad requests for a long time, and watch the server.

    python -m benchmarks.soak --minutes 10 --requests 20000

Half of the requests are bad, and small files that are much work are among them. Exits with 1 if an
answer has another status than it should, which every 5xx has but a deliberate 503; if a film gets
other shares than it got alone; if ``/healthz`` takes a second although a process that does nothing
else answers at once; if the log holds anything but the app's own lines; or if the server's memory
still grows once it has warmed up, which takes a minute at least. For Linux, where memory is read
from /proc.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import itertools
import json
import multiprocessing
import os
import random
import socket
import struct
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless, RLELossless

from benchmarks.common import build_parser, describe_machine, publish
from benchmarks.crowd import NGINX, OURS, Served, run_server
from resformer.evaluation.tables import render_table
from resformer.phantom import draw_chest_phantom
from tests.data_sets import encode
from tests.dicom_files import radiograph, write, write_frame
from tests.image_files import tiff
from tests.test_dicom_hostile import jpeg2000
from tests.test_images_hostile import CHEAP_TO_MAKE, GIGAPIXELS
from tests.web.posting import CONTENT_TYPE, form

Sample = TypeVar("Sample")

_VARIANTS = 6
_COSTLY = 1  # of them is asked for with what takes ten times as long
_PATIENCE = 120
_HUNG_UP = "no answer waited for"
_BUSY = ["503 busy", "503 timeout"]
_BOMB = "bad: bomb"
_GROWTH = 0.05
_FEWEST_SAMPLES = 60  # a server has not warmed up before
_PARTS = 15
_MEBIBYTE = 2**20
# Of each film of an answer, in the order of the classes.
Shares = list[list[float]]
_SLOW = 1.0  # seconds, for /healthz
_ROUNDING = 1e-3  # of a share, which depends on the company in a batch


@dataclass(frozen=True)
class Message:
    """One request.

    Attributes:
        kind: its name in the table.
        body: what is sent.
        statuses: what is right to answer; nothing where the client hangs up before.
        path: where it goes to.
        content_type: of the body.
        length: the length that the client announces, if that is not the body's.
    """

    kind: str
    body: bytes = field(repr=False)
    statuses: tuple[int, ...]
    path: str = "/predict"
    content_type: str = CONTENT_TYPE
    length: int | None = None


class Probe(NamedTuple):
    """How long ``/healthz`` took, and beside it a process that does nothing else, in seconds."""

    seconds: float
    beside: float


class Outcome(NamedTuple):
    """What became of a request.

    Attributes:
        kind: of the message.
        status: of the answer with its code, or what went wrong on the way.
        seconds: from the first byte sent to the last one received.
        is_right: whether the message may get it, as each may be told that the server is busy.
    """

    kind: str
    status: str
    seconds: float
    is_right: bool


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a soak, write its tables, and return the status to exit with."""
    parser = build_parser(__doc__, "soak")
    parser.add_argument("--minutes", type=float, default=10.0, help="at least so long")
    parser.add_argument("--requests", type=int, default=20_000, help="at least so many")
    parser.add_argument("--clients", type=int, default=6, help="that send at the same time")
    parser.add_argument("--bombs", type=float, default=0.01, help="share of the bad requests")
    parser.add_argument("--server", choices=(OURS, NGINX), default=OURS)
    options = parser.parse_args(arguments)
    machine = describe_machine(os.cpu_count() or 1)
    with (
        run_server(options.server, options.model, os.cpu_count() or 1) as server,
        watch_health(server.url) as probes,
    ):
        outcomes, memory, seconds = soak(server, options)
        log = server.log.read_text(encoding="utf-8", errors="replace").splitlines()
    faults = find_faults(outcomes, memory, probes, log)
    title = f"# Soak: {options.server}, {options.clients} clients"
    text = f"{render(outcomes, memory, seconds)}\n\n{render_health(probes)}"
    verdict = "\n".join(f"- Fault: {fault}" for fault in faults) or "No fault was found."
    publish(f"{title}\n\n{machine}\n\n{text}\n\n{verdict}", options.out)
    return 1 if faults else 0


def soak(server: Served, options: argparse.Namespace) -> tuple[list[Outcome], list[int], float]:
    """Let clients send until there is enough.

    Returns:
        what became of each request, the server's memory in bytes once a second, and the seconds.
    """
    with urllib.request.urlopen(f"{server.url}/model", timeout=_PATIENCE) as response:
        has_gate = json.load(response)["gate"] is not None
    good, bad = good_messages(), bad_messages(has_gate=has_gate)
    bombs = [message for message in bad if message.kind == _BOMB]
    others = [message for message in bad if message.kind != _BOMB]
    alone = ask_alone(server.url, good)
    outcomes: list[Outcome] = []
    at_rest = server.resident_bytes()
    start = time.monotonic()

    def mix(seed: int) -> Iterator[Message]:
        chance = random.Random(seed)
        for number in itertools.count(seed):
            minutes = (time.monotonic() - start) / 60
            if minutes >= options.minutes and len(outcomes) >= options.requests:
                return
            if number % 2:
                yield chance.choice(bombs if chance.random() < options.bombs else others)
            else:
                yield chance.choice(good)

    with (
        watch(1.0, server.resident_bytes) as memory,
        ThreadPoolExecutor(options.clients) as clients,
    ):
        running = [
            clients.submit(send_all, server.url, mix(seed), outcomes.append, alone)
            for seed in range(options.clients)
        ]
        for client in running:
            client.result()
    return outcomes, [at_rest, *memory], time.monotonic() - start


def ask_alone(url: str, messages: Iterable[Message]) -> dict[Message, Shares]:
    """Return the shares that films get while nobody else asks."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=_PATIENCE)
    shares = {message: _read_shares(_exchange(connection, message)[1]) for message in messages}
    connection.close()
    return shares


def send_all(
    url: str,
    messages: Iterable[Message],
    note: Callable[[Outcome], None],
    alone: Mapping[Message, Shares] | None = None,
) -> None:
    """Send messages one after the other over a connection that is kept, and note each outcome."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=_PATIENCE)
    for message in messages:
        start = time.perf_counter()
        try:
            status, answer = _exchange(connection, message)
            code = answer.get("code", "")
            expected = (alone or {}).get(message, [])
            if status == 200 and not _is_same(_read_shares(answer), expected):
                status, code = 0, "other shares than alone"
        except (OSError, http.client.HTTPException) as error:
            status, code = 0, type(error).__name__
            connection.close()
        seconds = time.perf_counter() - start
        shown = f"{status or ''} {code}".strip()
        right = status in message.statuses or shown in (_BUSY if message.statuses else [_HUNG_UP])
        note(Outcome(message.kind, shown, seconds, right))
    connection.close()


def _exchange(
    connection: http.client.HTTPConnection, message: Message
) -> tuple[int, dict[str, Any]]:
    """Send a message; return the status of the answer and the answer."""
    connection.putrequest("POST", message.path)
    connection.putheader("Content-Type", message.content_type)
    length = len(message.body) if message.length is None else message.length
    connection.putheader("Content-Length", str(length))
    connection.endheaders(message.body)
    if not message.statuses:
        connection.close()
        return 0, {"code": _HUNG_UP}
    response = connection.getresponse()
    answer: dict[str, Any] = json.loads(response.read())
    if length != len(message.body):
        connection.close()  # the server waits for the rest
    return response.status, answer


def _read_shares(answer: dict[str, Any]) -> Shares:
    """Return the shares of each film in an answer; of none that was refused."""
    films = [film.get("prediction") for film in answer.get("results", [answer])]
    return [list(film["all_probabilities"].values()) if film else [] for film in films]


def _is_same(shares: Shares, expected: Shares) -> bool:
    """Return whether no share differs, but for a film that was refused for want of time."""
    pairs = zip(shares, expected, strict=False)
    return all(not (a and b) or bool(np.allclose(a, b, atol=_ROUNDING, rtol=0)) for a, b in pairs)


@contextmanager
def watch(every: float, take: Callable[[], Sample]) -> Iterator[list[Sample]]:
    """Take a sample at intervals of some seconds, in a thread."""
    samples: list[Sample] = []
    over = threading.Event()

    def repeat() -> None:
        while not over.wait(every):
            samples.append(take())

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        over.set()
        thread.join()


@contextmanager
def watch_health(url: str) -> Iterator[list[Probe]]:
    """Time ``/healthz`` twice a second, and beside it a process that does nothing else."""
    listener = socket.create_server(("127.0.0.1", 0))
    idle = multiprocessing.get_context("fork").Process(target=_echo, args=(listener,), daemon=True)
    idle.start()
    host, port = urlsplit(url).netloc.split(":")
    request = b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n"

    def probe() -> Probe:
        before = _time_exchange(listener.getsockname(), b"ping")
        seconds = _time_exchange((host, int(port)), request)
        return Probe(seconds, max(before, _time_exchange(listener.getsockname(), b"ping")))

    with watch(0.5, probe) as probes:
        yield probes
    idle.terminate()
    listener.close()


def _echo(listener: socket.socket) -> None:
    while True:
        with listener.accept()[0] as connection:
            connection.sendall(connection.recv(100))


def _time_exchange(address: tuple[str, int], request: bytes) -> float:
    """Return the seconds until something comes back; the patience where nothing does."""
    start = time.monotonic()
    try:
        with socket.create_connection(address, timeout=_PATIENCE) as connection:
            connection.sendall(request)
            answered = connection.recv(100)
    except OSError:
        answered = b""
    return time.monotonic() - start if answered else _PATIENCE


def find_faults(
    outcomes: Sequence[Outcome],
    memory: Sequence[int],
    probes: Sequence[Probe] = (),
    log: Sequence[str] = (),
) -> list[str]:
    """Return what must not have happened."""
    wrong = Counter(f"{o.kind}: {o.status}" for o in outcomes if not o.is_right)
    faults = [f"{count} x wrong answer to {what}" for what, count in wrong.most_common()]
    warm, end = _phases(memory)[1:3]
    if len(memory) >= _FEWEST_SAMPLES and end > warm * (1 + _GROWTH):
        faults.append(f"memory grew from {warm:.0f} to {end:.0f} MiB after warm-up")
    if slow := [probe for probe in probes if _is_slow(probe)]:
        worst = max(probe.seconds for probe in slow)
        faults.append(f"{len(slow)} x /healthz was slow, at most {worst:.1f} s")
    if strange := [line for line in log if not _is_ours(line)]:
        faults.append(f"{len(strange)} lines in the log that should not be there: {strange[0]}")
    return faults


def _is_slow(probe: Probe) -> bool:
    """Return whether a slow answer is the server's doing and not the machine's."""
    return probe.seconds >= _SLOW and probe.beside < _SLOW / 4


def _is_ours(line: str) -> bool:
    """Return whether a line of the log is one of the application's, and no error."""
    try:
        return str(json.loads(line)["level"]) in ("INFO", "WARNING")
    except (ValueError, KeyError, TypeError):
        return False


def render_health(probes: Sequence[Probe]) -> str:
    """Return how long ``/healthz`` took, in a sentence."""
    seconds = [probe.seconds for probe in probes] or [float("nan")]
    beside = [probe.beside for probe in probes] or [float("nan")]
    late = [probe for probe in probes if probe.seconds >= _SLOW]
    machine = len(late) - sum(map(_is_slow, late))
    return (
        f"`/healthz` was asked {len(probes)} times: median {np.median(seconds):.3f} s, at most "
        f"{max(seconds):.2f} s; a process that does nothing else took {np.median(beside):.3f} s "
        f"and at most {max(beside):.2f} s. {len(late)} took over a second, {machine} of them "
        "while that one was slow too."
    )


def render(outcomes: Sequence[Outcome], memory: Sequence[int], seconds: float) -> str:
    """Return the tables in Markdown.

    Args:
        outcomes: of all requests.
        memory: bytes of all processes of the server, at even intervals.
        seconds: that it took.
    """
    bad = sum(o.kind.startswith("bad") for o in outcomes)
    deliberate = sum(o.status in _BUSY for o in outcomes)
    server_errors = sum(o.status.startswith("5") for o in outcomes) - deliberate
    wrong = sum(not o.is_right for o in outcomes)
    parts = np.array_split(np.asarray(memory) / _MEBIBYTE, min(_PARTS, len(memory)))
    over_time = ", ".join(f"{np.median(part):.0f}" for part in parts)
    names = ("at the start, model loaded", "median of the second fifth", "of the last", "at most")
    memory_rows = [
        (name, f"{value:.0f}") for name, value in zip(names, _phases(memory), strict=True)
    ]
    memory_rows.append((f"medians of {_PARTS} equal parts", over_time))
    rows = []
    kinds = {outcome.kind for outcome in outcomes}
    for kind in sorted(kinds, key=lambda kind: (kind.startswith("bad"), kind)):
        mine = [outcome for outcome in outcomes if outcome.kind == kind]
        counts = sorted(Counter(outcome.status for outcome in mine).items())
        answers = ", ".join(f"{count:,} x {status}" for status, count in counts)
        times = 1000 * np.percentile([outcome.seconds for outcome in mine], [50, 95, 99])
        rows.append((kind, answers, *(f"{milliseconds:.0f}" for milliseconds in times)))
    return (
        f"{len(outcomes):,} requests in {seconds / 60:.1f} minutes, {bad:,} of them bad: "
        f"{server_errors} server errors, {deliberate} deliberate 503, {wrong} wrong answers.\n\n"
        f"{render_table(('memory of the server', 'MiB'), memory_rows)}\n\n"
        f"{render_table(('request', 'answers', 'p50 ms', 'p95 ms', 'p99 ms'), rows)}"
    )


def _phases(memory: Sequence[int]) -> tuple[float, float, float, float]:
    """Return MiB at the start, after warm-up (a fifth of the time), at the end, and at most."""
    fifth = max(1, len(memory) // 5)
    warm = np.median(memory[fifth : 2 * fifth] or memory)
    values = np.array([memory[0], warm, np.median(memory[-fifth:]), max(memory)]) / _MEBIBYTE
    start, warm, end, most = values.tolist()
    return start, warm, end, most


def good_messages() -> list[Message]:
    """Return drawn films of several sizes in every way that they can be sent."""
    messages = []
    for seed in range(_VARIANTS):
        film = draw_chest_phantom(224 + 32 * seed, seed)
        data_set = radiograph(film.astype("u2") * 16, bits_stored=12)
        png, jpeg, dicom = encode(film), encode(film, "JPEG"), write(data_set)
        document = json.dumps({"image": base64.b64encode(png).decode()}).encode()
        batch = form([("files", "film", data) for data in (png, jpeg, dicom)])
        # A gate may find that drawings are no films: half of them insist on an answer.
        path, statuses = (
            ("/predict?force=1", (200,)) if seed % 2 else ("/predict?force=0", (200, 422))
        )
        messages += [
            *[Message("PNG", _upload(png), statuses, path)] * 2,
            *[Message("JPEG", _upload(jpeg), statuses, path)] * 2,
            Message("DICOM", _upload(dicom), statuses, f"{path}&preview=0"),
            Message("JSON", document, statuses, f"{path}&preview=0", "application/json"),
            Message("batch of 3", batch, (200,), "/predict/batch?preview=0"),
        ]
        if seed < _COSTLY:
            j2k = write(data_set, JPEG2000Lossless)
            messages += [
                Message("DICOM, JPEG 2000", j2k, statuses, path, "image/dicom"),
                Message("with evidence", _upload(png), (200,), "/predict?force=1&explain=1"),
            ]
    return messages


def bad_messages(*, has_gate: bool, largest: int = 40 * _MEBIBYTE) -> list[Message]:
    """Return requests that deserve no answer about a film, of files up to so many bytes."""
    rng = np.random.default_rng(0)
    film = draw_chest_phantom(400, _VARIANTS)
    png, dicom = encode(film), write(radiograph(film.astype("u2") * 16, bits_stored=12))
    any_answer = (200, 400, 413, 415, 422)
    noise = [encode(rng.integers(0, 256, (300, 300), dtype=np.uint8)) for _ in range(4)]
    files: list[tuple[str, tuple[int, ...], list[bytes]]] = [
        ("truncated", (400, 415), [png[: len(png) // 2], dicom[: len(dicom) // 2]]),
        ("bits flipped", any_answer, [_flip_bits(data, rng) for data in [png, dicom] * 4]),
        ("wrong type", (415,), [b"%PDF-1.7 film", b"<html>film</html>", b"PK\3\4film"]),
        ("empty", (400,), [b""]),
        ("noise", (422,) if has_gate else (200,), noise),
        ("bomb", any_answer, [data for data in _bombs() if len(data) <= largest]),
    ]
    documents = (b'{"image": "not base64!"}', b'{"image":' * 5000, b"[" * 50_000)
    spoilt = form([("files", "film", data) for data in (png, png[:999], b"", b"text")])
    return [
        *(Message(f"bad: {kind}", _upload(d), right) for kind, right, data in files for d in data),
        *(Message("bad: JSON", d, (400,), content_type="application/json") for d in documents),
        Message("bad: no file", form([], note="film"), (400,)),
        Message("bad: 10,000 parts", form([("x", "y", b"z")] * 10_000), (413,)),
        Message("bad: announces 1 TB", b"", (413,), length=10**12),
        Message("bad: hangs up", _upload(png), (), length=10**6),
        Message("bad: 3 in a batch of 4", spoilt, (200,), "/predict/batch"),
    ]


def _upload(data: bytes) -> bytes:
    return form([("file", "film", data)])


def _flip_bits(data: bytes, rng: np.random.Generator) -> bytes:
    """Flip twenty bits of a file, past its beginning."""
    spoilt = bytearray(data)
    for position in rng.integers(len(data) // 10, len(data), 20):
        spoilt[position] ^= 1 << int(rng.integers(8))
    return bytes(spoilt)


def _bombs() -> list[bytes]:
    """Return small files that announce, or unpack to, a great deal."""
    runs = b"\x81\x00" * 200_000
    frame = struct.pack("<16I", 2, 64, 64 + len(runs), *[0] * 13) + runs + runs
    values = np.arange(4096, dtype="u2").reshape(64, 64)
    junk = np.random.default_rng(0).integers(0, 256, (1, 200), dtype=np.uint8)
    fax = {256: 64, 257: 700_000, 258: 1, 259: 2, 278: 700_000}
    j2k = radiograph(values, Rows=2200, Columns=2200)
    return [
        *(make() for make, _ in CHEAP_TO_MAKE.values()),
        *GIGAPIXELS.values(),
        tiff(junk, extra=fax),
        tiff(np.zeros((6000, 6000, 4), "u2"), deflate=True),
        write_frame(j2k, JPEG2000Lossless, jpeg2000(2200, layers=65_535, tile=110)),
        write(radiograph(values, VOILUTSequence=[Dataset()] * 500_000)),
        write_frame(radiograph(values), RLELossless, frame),
        write_frame(radiograph(values, Rows=60_000, Columns=60_000), RLELossless, frame),
    ]


if __name__ == "__main__":
    sys.exit(main())
