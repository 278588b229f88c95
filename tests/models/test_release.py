"""From a release on a server to predictions: zips shaped like the public ones, with networks that really run."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.inference.samples import release
from tests.inference.untrained import write_untrained_model
from totalspineseg_bids.cli.tools import main
from totalspineseg_bids.inference.model import load_model
from totalspineseg_bids.inference.options import InferenceOptions
from totalspineseg_bids.inference.predictor import Predictor
from totalspineseg_bids.models import catalog
from totalspineseg_bids.models.registry import resolve

from .conftest import NAMES


def publish(folder, served, role, family, architecture):
    """Write a zip as the public releases have it: a trainer that nnU-Net does not know, and files beside the model."""
    name = f"{NAMES[role]}_r20251124.zip"
    top = folder / NAMES[role]
    model = write_untrained_model(
        top, release(f"{family}-{role}"), architecture=architecture, trainer="nnUNetTrainer_16000Images_NoSuchClass"
    )
    (model / "fold_0" / "progress.png").write_bytes(b"png")
    (model / "fold_0" / "debug.json").write_text("{}")
    with zipfile.ZipFile(served / name, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(top.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder).as_posix())
    return name


@pytest.mark.parametrize("kind", [("r20241115", "residual"), ("r20240601", "plain")])
def test_installed_verified_and_run(server, tmp_path, monkeypatch, capsys, kind):
    family, architecture = kind
    names = [publish(tmp_path / "made", tmp_path / "served", role, family, architecture) for role in ("step1", "step2")]
    urls = tuple(f"{server.address}/{name}" for name in names)
    monkeypatch.setitem(catalog.RELEASES, "r20251124", urls)
    server.break_after = [5000]  # the first connection breaks off
    assert main(["models", "install", "r20251124"]) == 0
    assert server.ranges[:2] == [None, "bytes=5000-"]
    assert main(["models", "verify"]) == 0
    assert "r20251124: 6 files as installed" in capsys.readouterr().out
    assert main(["models", "list"]) == 0
    listed = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("r20251124"))
    assert listed.split()[-3:] == ["yes", "step1,", "step2"]
    found = resolve("r20251124")
    image = np.random.default_rng(0).normal(size=(2, 18, 20, 22)).astype(np.float32)
    for channels, role in ((1, "step1"), (2, "step2")):
        model = load_model(found.require(role))
        labels = (
            Predictor(model, InferenceOptions(device="cpu", engine="torch", threads=1))
            .predict(image[:channels], (1, 1, 1))
            .labels
        )
        assert labels.shape == image.shape[1:]
        assert set(np.unique(labels)) <= {0, *release(f"{family}-{role}")["regions_class_order"]}
        assert len(np.unique(labels)) > 1
    weights = next(Path(str(found.step2)).glob("fold_0/*.pth"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert main(["models", "verify", "r20251124"]) == 66
    assert "checkpoint_final.pth changed" in capsys.readouterr().err.splitlines()[-1]
