"""What ``import resformer`` offers: the page of documentation at work, and clear refusals."""

from __future__ import annotations

import doctest
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

import resformer
from resformer import find_shipped_model
from resformer.data.manifest import read_manifest
from resformer.phantom import draw_chest_phantom
from tests.data_sets import encode

ROOT = Path(__file__).parent.parent


def test_the_page_of_documentation_is_true(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(find_shipped_model(), "best_model.pth")
    shutil.copytree(image_folder, "data")
    Image.fromarray(draw_chest_phantom(200, seed=3)).save("film.png")
    page = str(ROOT / "docs" / "api.md")
    found = doctest.testfile(page, module_relative=False, optionflags=doctest.FAIL_FAST)
    assert found.attempted > 20
    assert found.failed == 0


def test_the_names_are_there_before_pytorch_is() -> None:
    code = (
        "import sys, resformer; assert set(resformer.__all__) <= set(dir(resformer));"
        "resformer.__version__; assert 'torch' not in sys.modules; resformer.load;"
        "assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=300)
    for name in resformer.__all__:
        assert getattr(resformer, name).__name__.rpartition(".")[2] == name
    misspelt = "lod"
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        getattr(resformer, misspelt)


def test_what_only_training_or_serving_needs_may_be_missing(tmp_path: Path) -> None:
    """The package's own dependencies are enough to classify a film and to explain the answer."""
    Image.fromarray(draw_chest_phantom(200)).save(tmp_path / "film.png")
    extras = [*_names_of("train"), *_names_of("serve")]
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({extras!r}));"
        "import resformer; model = resformer.load(sys.argv[1]);"
        "model.predict(sys.argv[2]).explain()"
    )
    arguments = [sys.executable, "-c", code, str(find_shipped_model()), str(tmp_path / "film.png")]
    subprocess.run(arguments, cwd=ROOT, check=True, timeout=300)


def _names_of(extra: str) -> list[str]:
    """Names by which the packages of an extra are imported."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    packages = [re.split("[>=;]", text)[0] for text in project["optional-dependencies"][extra]]
    return [package.lower().replace("-", "_") for package in packages]


def test_several_data_sets_and_archives_are_one(image_folder: Path, tmp_path: Path) -> None:
    archive = tmp_path / "more.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for number in range(3):
            film = tmp_path / "film.png"
            Image.fromarray(draw_chest_phantom(96, seed=900 + number)).save(film)
            packed.write(film, f"COVID/{number}.png")
            packed.write(
                image_folder / f"Normal/images/Normal-{number}.png", f"Normal/{number}.png"
            )
    with resformer.open_dataset([str(image_folder), archive], seed=1) as data:
        rows = data.manifest.rows
        assert len(rows) == 48 + 6
        assert sum(map(len, (data.train, data.validation, data.test))) == len(rows)
        assert repr(data).startswith("<Dataset of COVID, Lung_Opacity, Normal, Viral Pneumonia: ")
        assert [pixels.shape for pixels, _ in data.train] == [(96, 96)] * len(data.train)
        extracted = data.root / next(r.path for r in rows if r.path.startswith("data-2/"))
        assert extracted.is_file()
    assert not extracted.exists()


def test_of_several_films_the_one_that_cannot_be_read_is_named(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    model = resformer.load(tiny_checkpoint, device="cpu")
    film, broken = draw_chest_phantom(96), tmp_path / "broken.png"
    broken.write_bytes(encode(film)[:99])
    for bad, name in ((broken, str(broken)), (str(broken), str(broken)), (b"", "films[1]")):
        with pytest.raises(resformer.ImageError) as refusal:
            model.predict([film, bad, film])
        assert str(refusal.value).startswith(f"{name}: The ")
        assert refusal.value.code == ("unreadable_image" if bad else "empty_file")
    with pytest.raises(FileNotFoundError, match=r"absent\.png"):
        model.predict([tmp_path / "absent.png"])
    with pytest.raises(IsADirectoryError):
        model.predict(tmp_path)


def test_what_cannot_be_is_refused_with_the_fix(image_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="films are all different, raise duplicate_threshold"):
        resformer.open_dataset(image_folder, duplicate_threshold=0.01)
    data = resformer.open_dataset(image_folder)
    with pytest.raises(ValueError, match="choose one of recommended, quick"):
        resformer.train(data, recipe="best", run_dir=tmp_path / "run")
    with pytest.raises(ValueError, match="no option epoch: choose among"):
        resformer.train(data, run_dir=tmp_path / "run", epoch=3)
    assert not (tmp_path / "run").exists()
    for films in (data.manifest.rows, data.manifest.rows[1:]):
        data.manifest = replace(data.manifest, rows=films)
        with pytest.raises(ValueError, match="no folder"):
            resformer.train(data, run_dir=tmp_path / "run", outliers=tmp_path / "absent")
        assert read_manifest(tmp_path / "run" / "manifest.csv").rows == films
    with pytest.raises(resformer.CheckpointError, match="no checkpoint at"):
        resformer.evaluate(tmp_path / "absent.pth", data.test)
