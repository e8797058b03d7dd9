from __future__ import annotations

import re
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import test_environment
from test_environment import (
    check_compressed_films,
    check_device,
    check_model,
    check_packages,
    check_python,
    main,
)

ROOT = Path(test_environment.__file__).parent


@pytest.fixture
def requirements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A requirements file that the script reads in place of the project's."""
    monkeypatch.setattr(test_environment, "ROOT", tmp_path)
    path = tmp_path / "requirements.txt"
    path.write_text(f"# A comment.\n\nnumpy=={version('numpy')}\n", encoding="utf-8")
    return path


def test_all_in_place_ends_with_zero(
    requirements: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--model", str(tiny_checkpoint)]) == 0
    printed = capsys.readouterr().out
    assert re.search(rf"^ok +numpy +{version('numpy')} +{version('numpy')}$", printed, re.M)
    assert re.search(r"^ok +Model .*COVID, Lung_Opacity, Normal, Viral Pneumonia", printed, re.M)
    assert printed.endswith("\nEverything is in place.\n")


def test_every_problem_is_named_with_what_to_do(
    requirements: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    requirements.write_text("numpy==0.1\nno-such-package==1.0\n", encoding="utf-8")
    assert main([]) == 1
    printed = capsys.readouterr().out
    assert re.search(r"^FAIL +no-such-package +1\.0 +missing$", printed, re.M)
    assert "Problems: 3. What to do:" in printed
    assert "- numpy: python -m pip install numpy==0.1\n" in printed
    assert "- no-such-package: python -m pip install no-such-package==1.0\n" in printed
    assert "- Model: restore best_model.pth" in printed


def test_a_build_for_other_hardware_is_the_pinned_version(
    requirements: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requirements.write_text("torch==2.13.0\n", encoding="utf-8")
    for installed, fine in (("2.13.0+cpu", True), ("2.13.0", True), ("2.13.1+cpu", False)):
        monkeypatch.setattr(test_environment, "version", lambda name, found=installed: found)
        (check,) = check_packages(requirements)
        assert check.found == installed
        assert (check.remedy == "") is fine


def test_what_windows_lacks_is_not_asked_for_there(
    requirements: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requirements.write_text('no-such-package==1.0; sys_platform != "win32"\n', encoding="utf-8")
    monkeypatch.setattr(sys, "platform", "linux")
    (check,) = check_packages(requirements)
    assert (check.name, check.expected, check.found) == ("no-such-package", "1.0", "missing")
    monkeypatch.setattr(sys, "platform", "win32")
    assert list(check_packages(requirements)) == []


def test_an_old_python_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_python().remedy == ""
    monkeypatch.setattr(sys, "version_info", (3, 10, 14))
    assert "install Python 3.11 or newer" in check_python().remedy


def test_the_device_is_named() -> None:
    check = check_device()
    assert check.remedy == ""
    assert check.found.startswith(("CPU, threads: ", "GPU: ", "MPS"))


def test_each_compression_of_dicom_is_tried(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    names = ["RLE", "JPEG", "JPEG lossless", "JPEG-LS", "JPEG 2000"]
    assert [(check.name, check.found, check.remedy) for check in check_compressed_films()] == [
        (f"DICOM, {name}", "decodes", "") for name in names
    ]
    (tmp_path / "gdcm.py").write_text("raise ImportError", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    failing = [check for check in check_compressed_films() if check.remedy]
    assert [check.name for check in failing] == ["DICOM, JPEG lossless", "DICOM, JPEG-LS"]
    assert all("Compressed DICOM images cannot be decoded" in check.found for check in failing)
    assert all("--force-reinstall" in check.remedy for check in failing)


def test_packages_that_do_not_load_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setitem(sys.modules, "resformer.predict", None)
    assert "PyTorch does not load" in check_device().found
    assert "--force-reinstall" in check_device().remedy
    monkeypatch.setitem(sys.modules, "resformer.image_errors", None)
    (check,) = check_compressed_films()
    assert check.remedy == "mend the packages above first"
    assert check_model(Path("any.pth")).remedy == "mend the packages above first"


def test_a_damaged_model_is_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "broken.pth"
    path.write_bytes(b"not a checkpoint")
    for model in (path, tmp_path):
        assert "--model" in check_model(model).remedy


@pytest.mark.parametrize(
    "name", ["requirements.txt", "requirements-test.txt", "requirements-notebook.txt"]
)
def test_requirements_are_exact_pins(name: str) -> None:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    found = [line for line in lines if line and not line.startswith(("#", "-r requirements.txt"))]
    pin = r'[A-Za-z0-9-]+(\[[a-z,]+\])?==[0-9][0-9.]*(; sys_platform != "win32")?'
    assert found
    assert [line for line in found if not re.fullmatch(pin, line)] == []
