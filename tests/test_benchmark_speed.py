"""The benchmarks of speed: what they count, compare and write is right; times are not tested."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from benchmarks import growth, network, request, service, speed, training
from benchmarks.common import Summary, SummaryRow, draw_film, encode_film
from benchmarks.plain_service import create_app as create_plain_app
from resformer.checkpoint import load_checkpoint, save_checkpoint
from resformer.images import decode_image
from resformer.model import IdentityMappingResFormer
from resformer.predict import Predictor
from tests.web.checkpoints import write_gated_checkpoint

HISTORY = [{"seconds": 80.0, "images_per_second": rate} for rate in (100.0, 110.0, 120.0)]


def cells(text: str, first: str) -> list[str]:
    """The cells of the only row of a table that begins with a name."""
    (row,) = (line for line in text.splitlines() if line.startswith(f"| {first} |"))
    return row.strip("| ").split(" | ")[1:]


def test_networks_and_runtimes_are_compared(tiny_checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "network.md"
    rows = network.main(
        f"--model {tiny_checkpoint} --out {out} --size 64 --batch 2 --threads 1 --seconds 0 "
        "--against ResNet-18".split()
    )
    text = out.read_text()
    weights = load_checkpoint(tiny_checkpoint).build_model().parameters()
    million = sum(weight.numel() for weight in weights) / 1e6
    assert cells(text, network.OURS)[0] == f"{million:.1f} M"
    assert float(cells(text, network.SHIPPED)[-1]) < 1e-5
    assert float(cells(text, network.EARLIER)[1]) > float(cells(text, network.OURS)[1])
    assert 0 < float(cells(text, "ONNX Runtime, int8")[-1]) < 0.1
    assert rows[-1].what == "network, images/s in batches of 2"
    assert out.with_suffix(".png").stat().st_size > 1000


def test_the_parts_of_a_request_are_shares_of_the_whole(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    model = write_gated_checkpoint(tiny_checkpoint, tmp_path / "gated.pth", accepts=False)
    out = tmp_path / "request.md"
    rows = request.main(f"--model {model} --out {out} --threads 1 --scale 0.25 --seconds 0".split())
    assert [row.what for row in rows] == [
        "request, PNG, 75 x 75, ms",
        "request, PNG, 256 x 256, ms",
        "request, DICOM, 16 bits, 625 x 500, ms",
    ]
    text = out.read_text()
    assert "| file | decode | resize | network | preview beyond it | form | JSON |" in text
    *parts, total = cells(text, "DICOM, 16 bits, 625 x 500")
    taken = [float(part.split()[0]) for part in parts]
    assert all(0 <= part < float(total) for part in taken)
    assert sum(taken) > float(total) / 2  # medians of parts need not add up to the whole's
    assert out.with_suffix(".png").stat().st_size > 1000


def test_both_servers_are_loaded_and_started(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The tiny checkpoint has no graph for the other backend.
    monkeypatch.setattr(service, "STARTS", {"ours, torch": (service.OURS, "torch")})
    out = tmp_path / "service.md"
    *loads, large, small, folder, start = service.main(
        f"--model {tiny_checkpoint} --out {out} --threads 1 --seconds 0.3 --size 96 "
        "--clients 1 2 --starts 1 --films 4".split()
    )
    table = [line.strip("| ").split(" | ") for line in out.read_text().splitlines()]
    found = {(row[0], row[1]): row for row in table if row[0] in ("1", "2")}
    assert set(found) == {(n, name) for n in ("1", "2") for name in ("ours", "plain Flask")}
    assert all(float(row[2]) > 0 and row[-1] == "0" for row in found.values())
    assert [row.what.split(":")[0] for row in loads] == ["service, 1 client", "service, 2 clients"]
    assert [row.what for row in (large, small)] == [
        f"32 films in one batch, {kind}, films/s" for kind in ("PNG, 96 x 96", "JPEG, 224 x 224")
    ]
    assert all(float(row.ours) > 0 for row in (large, small, folder, start))
    assert out.with_suffix(".png").stat().st_size > 1000


def test_the_plain_service_runs_the_same_network(tiny_checkpoint: Path) -> None:
    png = encode_film(draw_film(96, 96), "PNG")
    client = create_plain_app(tiny_checkpoint).test_client()
    answer = client.post("/predict", data={"file": (io.BytesIO(png), "film.png")}).get_json()
    (expected,) = Predictor.from_file(tiny_checkpoint, "cpu").predict([decode_image(png)])
    assert answer["probabilities"] == pytest.approx(expected.probabilities, abs=1e-5)


def test_growth_is_measured_by_side_batch_and_clients(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "growth.md"
    growth.main(
        f"--model {tiny_checkpoint} --out {out} --threads 1 --seconds 0.05 "
        "--backend torch --sides 64 --batches 2 --clients 1".split()
    )
    text = out.read_text()
    assert all(float(cells(text, amount)[0]) > 0 for amount in ("1", "2", "4,096"))
    assert "Time grows with the pixels of the image to the power of" in text
    assert out.with_suffix(".png").stat().st_size > 1000


@pytest.fixture
def trained(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint with a lung head that tells how it was trained."""
    checkpoint = load_checkpoint(tiny_checkpoint)
    config = replace(checkpoint.model_config, lung_head=True)
    made = replace(
        checkpoint,
        model_config=config,
        state_dict=IdentityMappingResFormer(config).state_dict(),
        training={
            "initial": {"history": HISTORY},
            "config": {"lung_head": True, "batch_size": 4, "style_exchange": 1.0, "gone": 3},
        },
    )
    save_checkpoint(made, tmp_path / "lungs.pth")
    return tmp_path / "lungs.pth"


def test_both_networks_go_through_the_same_training_loop(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "training.md"
    (row,) = training.main(
        f"--model {trained} --out {out} --size 64 --films 8 --epochs 1 --workers 0 --threads 1 "
        "--processes 1".split()
    )
    text = out.read_text()
    assert "in batches of 4," in text
    for name in (network.OURS, training.RESNET, training.LOADER):
        assert float(cells(text, name)[0]) > 0
    assert row.beside.startswith("ResNet-18 ")
    assert "3 epochs, 4 minutes of training at a median of 110 images/s;" in text
    assert out.with_suffix(".png").stat().st_size > 1000


def test_each_process_measures_and_the_main_one_writes(trained: Path, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    out = tmp_path / "rates.json"
    training.main(
        f"--model {trained} --rates {out} --size 64 --films 8 --epochs 2 --workers 0".split()
    )
    torch.set_num_threads(threads)
    rates = json.loads(out.read_text())
    assert set(rates) == {network.OURS, training.RESNET, training.LOADER}
    assert all(len(found) == 2 and min(found) > 0 for found in rates.values())


def test_all_benchmarks_run_and_the_readme_quotes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Sequence[str]] = {}

    def measure(name: str, arguments: Sequence[str]) -> Summary:
        asked[name] = arguments
        (tmp_path / f"{name}.md").write_text(f"table of {name}\n")
        return (SummaryRow(f"{name}, ms", "1", "other 2"),)

    names = ("request", "service", "training", "growth", "network")
    assert tuple(speed.BENCHMARKS) == names
    monkeypatch.setattr(speed, "BENCHMARKS", {name: partial(measure, name) for name in names})
    (tmp_path / "growth.png").write_bytes(b"plot")
    begin, end = "<!-- speed:begin -->", "<!-- speed:end -->"
    readme, whole = tmp_path / "top.md", tmp_path / "README.md"
    for path in (readme, whole):
        path.write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    speed.main(
        ["--readme", str(readme), "--folder", str(tmp_path), "--more", "service:--seconds 5"]
    )
    table = (tmp_path / "speed.md").read_text()
    assert "| network, ms | 1 | other 2 |" in table
    assert readme.read_text() == f"before\n{begin}\n{table}{end}\nafter\n"
    assert "### Request\n\ntable of request\n\n### Service\n\n" in whole.read_text()
    assert "table of growth\n\n![Plot of the table above](growth.png)\n\n" in whole.read_text()
    assert asked["service"][-2:] == ["--seconds", "5"]
    assert str(tmp_path / "growth.md") in asked["growth"]
    with pytest.raises(ValueError, match="speed:begin"):
        speed.quote("no marks", "text")
