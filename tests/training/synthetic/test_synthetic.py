"""The stream and the trainer behind the bundled models, on a column of boxes."""

import itertools
import json
import os
import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.inference.untrained import small_network
from totalspineseg_bids import anatomy
from totalspineseg_bids.errors import MissingInputError, ModelError, UsageError
from totalspineseg_bids.imaging.volume import Volume
from totalspineseg_bids.inference.model import load_model
from totalspineseg_bids.models.roles import LEVEL_PRIOR_KEY, Role, role_of
from totalspineseg_bids.synthesis.arrays import TorchArrays
from totalspineseg_bids.training.class_maps import REGIONS, dataset_json
from totalspineseg_bids.training.synthetic.augment import acquire, imperfect_discs
from totalspineseg_bids.training.synthetic.batches import drawn_in_thread
from totalspineseg_bids.training.synthetic.bundle import publish, step1_of_step2
from totalspineseg_bids.training.synthetic.label_map_pool import PoolRecipe, build_pool
from totalspineseg_bids.training.synthetic.level_prior import IGNORE, PATCH, level_prior_dataset_json, level_prior_table
from totalspineseg_bids.training.synthetic.level_prior_patches import LevelPriorPatchDataset
from totalspineseg_bids.training.synthetic.options import SyntheticTraining
from totalspineseg_bids.training.synthetic.patch_dataset import SyntheticPatchDataset
from totalspineseg_bids.training.synthetic.small_plans import PLAIN, SUBVOXEL, small_plans
from totalspineseg_bids.training.synthetic.trainer import learning_rate_factor


def boxes(_rng=None, _number=0, _spacing=1.0):
    labels = np.full((64, 72, 130), 2, np.uint8)
    for z, vertebra in zip((110, 82, 54, 26), (22, 21, 20, 19), strict=True):
        labels[20:44, 40:64, z - 20 : z] = vertebra
        labels[20:44, 40:64, z - 27 : z - 20] = vertebra + 184
    labels[24:40, 22:38], labels[28:36, 26:34] = 201, 200
    return Volume(labels, np.eye(4))


def test_a_pool_is_kept_for_the_next_run_and_one_of_an_earlier_version_is_made_anew(pool, tmp_path):
    made = []

    def spine(rng, number, spacing):
        made.append(number)
        return boxes(rng, number, spacing)

    assert len(pool[0].discs) == 3
    assert pool[0].variant == anatomy.SpineVariant()
    assert sum(entry.weight for entry in pool) == pytest.approx(1.0)
    assert build_pool(tmp_path / "pool", None, PoolRecipe(2), 1, spine) == pool
    assert made == []
    index = tmp_path / "pool" / "pool.json"
    index.write_text(json.dumps(json.loads(index.read_text())["entries"]))
    assert build_pool(tmp_path / "pool", None, PoolRecipe(2), 1, spine) == pool
    assert made == [0, 1]


@pytest.fixture
def pool(tmp_path):
    return build_pool(tmp_path / "pool", None, PoolRecipe(2), 1, boxes)


def test_an_empty_folder_of_label_maps_is_an_error_that_names_it(tmp_path):
    with pytest.raises(MissingInputError, match="maps"):
        build_pool(tmp_path / "pool", tmp_path / "maps", PoolRecipe(0), 1, boxes)


@pytest.mark.parametrize(("dataset", "channels"), [(101, 1), (102, 2), (103, 1)])
def test_stream_gives_patches_in_nnunet_order_and_repeats(pool, dataset, channels):
    def draw():
        stream = SyntheticPatchDataset(pool, dataset, (48, 32, 16), 1.75, [4, dataset])
        return list(itertools.islice(stream, 4))

    for (data, target), (again, _) in zip(draw(), draw(), strict=True):
        assert data.shape == (channels, 48, 32, 16)
        assert target.shape == (48, 32, 16)
        assert np.isfinite(data).all()
        np.testing.assert_array_equal(data, again)
        if channels == 2:
            assert set(np.unique(data[1])) <= {0.0, 1.0}


def test_level_prior_sees_whole_fields_of_view_and_repeats(pool):
    def draw():
        return list(itertools.islice(LevelPriorPatchDataset(pool, [5]), 20))

    drawn = draw()
    for (data, target), (again, _) in zip(drawn, draw(), strict=True):
        assert data.shape == (1, *PATCH)
        assert target.shape == PATCH
        np.testing.assert_array_equal(data, again)
        # What lies around the field of view is zero and background, as nnU-Net pads.
        assert not target[data[0] == 0].any()
    assert any((target > 0).any() for _, target in drawn)


def test_groups_are_drawn_at_once_and_repeat(pool):
    def draw():
        return list(itertools.islice(SyntheticPatchDataset(pool, 102, (48, 32, 16), 1.75, [4]).groups(6), 3))

    drawn = draw()
    for (data, target), (again, _) in zip(drawn, draw(), strict=True):
        assert data.shape == (6, 2, 48, 32, 16)
        assert target.shape == (6, 48, 32, 16)
        assert data.dtype == torch.float32
        assert target.dtype == torch.uint8
        torch.testing.assert_close(data, again)
        assert not torch.equal(data[0], data[1])
    hinted = [bool(image[1].any()) for data, _ in drawn for image in data]
    assert any(hinted)
    assert not all(hinted)
    # The odd discs that an image comes with are those of its own target.
    odd, even = (REGIONS[102][name][0] for name in ("disc_O", "disc_E"))
    for data, target in drawn:
        for image, values in zip(data, target, strict=True):
            given = values[image[1] > 0]
            assert (given == even).sum() <= (given == odd).sum()


def test_several_loading_processes_draw_different_images(pool, monkeypatch):
    def first(worker):
        info = None if worker is None else SimpleNamespace(id=worker, num_workers=2)
        monkeypatch.setattr("totalspineseg_bids.training.synthetic.patch_dataset.get_worker_info", lambda: info)
        return next(iter(SyntheticPatchDataset(pool, 101, (48, 32, 16), 1.75, [4])))[0]

    drawn = [first(None), first(0), first(1)]
    assert not np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[1], drawn[2])
    np.testing.assert_array_equal(first(1), drawn[2])


def test_level_prior_names_each_level_and_shares_classes_of_supernumerary_ones():
    table, labels = level_prior_table(), level_prior_dataset_json(0)["labels"]
    assert table[anatomy.disc("T6-T7").id] == labels["disc_T6_T7"]
    assert table[anatomy.vertebra("T13").id] == labels["vertebrae_T12"]
    assert table[anatomy.disc("L5-L6").id] == IGNORE
    assert set(labels.values()) == set(range(len(labels)))
    assert role_of(level_prior_dataset_json(0)) is Role.SINGLE
    assert level_prior_dataset_json(0)[LEVEL_PRIOR_KEY] is True


def test_odd_discs_of_training_have_faults_but_stay_discs():
    labels = boxes().data
    mask = np.isin(labels, [206, 204]).astype(np.uint8)
    rng = np.random.default_rng(0)
    shares = [float((imperfect_discs(labels, [[206, 204]], rng, 1.0) * mask).sum() / mask.sum()) for _ in range(30)]
    assert np.mean(shares) > 0.8
    assert min(shares) < 0.99
    assert not imperfect_discs(labels, [[]], rng, 1.0).any()


def test_acquisitions_of_a_group_are_alike_in_blur_and_differ_in_noise():
    arrays = TorchArrays(torch.device("cpu"), 1)
    image = torch.rand((1, 24, 32, 40)).repeat(5, 1, 1, 1)
    drawn = acquire(image, np.random.default_rng(0), (1.75, 1.75, 1.75), arrays)
    assert drawn.shape == image.shape
    assert (drawn.mean((1, 2, 3)).abs() < 1).all()
    assert ((drawn.std((1, 2, 3)) > 0.5) & (drawn.std((1, 2, 3)) < 1.5)).all()
    assert len({round(float(one.std()), 4) for one in drawn}) == 5


def test_batches_of_a_thread_come_in_order_and_with_their_errors():
    message = "a map is gone"

    def batches():
        for number in range(4):
            yield torch.full((2,), number), torch.zeros(2)
        raise MissingInputError(message)

    drawn = drawn_in_thread(batches(), torch.device("cpu"))
    assert [int(next(drawn)[0][0]) for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(MissingInputError, match=message):
        next(drawn)


def test_a_thread_that_draws_ends_with_the_training():
    drawn = drawn_in_thread(iter(itertools.repeat((torch.zeros(1), torch.zeros(1)))), torch.device("cpu"))
    next(drawn)
    assert any(thread.name.startswith("drawing") for thread in threading.enumerate())
    drawn.close()
    assert not any(thread.name.startswith("drawing") for thread in threading.enumerate())


def test_learning_rate_rises_then_falls():
    assert learning_rate_factor(0.0, 0) < learning_rate_factor(0.0, 100) == pytest.approx(1.0)
    assert learning_rate_factor(0.9, 5000) < 0.2
    assert learning_rate_factor(1.0, 5000) == 0.0


@pytest.mark.parametrize(
    ("dataset", "minutes", "workers", "message"),
    [(104, 1.0, 1, "dataset"), (101, 1.0, 0, "workers"), (101, 0, 1, "minutes")],
)
def test_bad_settings_are_refused(tmp_path, dataset, minutes, workers, message):
    with pytest.raises(UsageError, match=message):
        SyntheticTraining(tmp_path, dataset, minutes, workers=workers)


def test_publishing_without_a_model_says_what_to_run(tmp_path):
    with pytest.raises(ModelError, match="train-bundled"):
        publish(tmp_path, tmp_path / "bundled")


def test_plans_name_the_channels_that_are_not_normalised():
    plans = small_plans("Dataset102_TotalSpineSeg_step2", ["MRI", "noNorm"])
    schemes = plans["configurations"]["3d_fullres"]["normalization_schemes"]
    assert json.loads(json.dumps(schemes)) == ["ZScoreNormalization", "NoNormalization"]


def network(dataset, kind):
    labels = dataset_json(dataset, 1)
    return small_network(len(labels["channel_names"]), len(labels["labels"]) - 1, network=kind)


@pytest.mark.parametrize("kind", [PLAIN, SUBVOXEL])
def test_step1_cut_out_of_step2_gives_what_step2_gives_without_discs(kind):
    torch.manual_seed(0)
    step2, step1 = network(102, kind), network(101, kind)
    step1.load_state_dict(step1_of_step2(step2.state_dict()))
    image = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        whole = step2(torch.cat([image, torch.zeros_like(image)], 1))
        cut = step1(image)
    names = {dataset: [n for n in dataset_json(dataset, 1)["labels"] if n != "background"] for dataset in (101, 102)}
    for row, name in enumerate(names[101]):
        torch.testing.assert_close(cut[:, row], whole[:, names[102].index(name)])


_RUN = """
import sys
from pathlib import Path
from totalspineseg_bids.training.synthetic.options import SyntheticTraining
from totalspineseg_bids.training.synthetic.synthetic_training import train_bundled

if __name__ == "__main__":
    features = (4, 8, 8, 8, 8, 8)
    train_bundled(SyntheticTraining(Path(sys.argv[1]), 101, float(sys.argv[2]), spines=1, threads=1, features=features))
"""


def train_tiny(work_dir, minutes):
    """Train in a process of its own, because nnU-Net reads its folders from the environment at import."""
    script = work_dir / "run.py"
    script.write_text(_RUN)
    subprocess.run([sys.executable, str(script), str(work_dir), str(minutes)], check=True, capture_output=True)
    (file,) = work_dir.glob("results/*/*/fold_all/checkpoint_final.pth")
    checkpoint = torch.load(file, weights_only=False)
    # Whatever the network computes in while it learns, no step is rounded away when it is added to the weights.
    assert {w.dtype for w in checkpoint["training_weights"].values() if w.is_floating_point()} == {torch.float32}
    return checkpoint["synthetic"]


@pytest.mark.slow
def test_training_resumes_and_is_published(tmp_path):
    """A few steps of training, a second stretch from its checkpoint, then the stripped model with its card."""
    # The clock starts with the first batch's wait, so even a second of budget yields a step.
    first = train_tiny(tmp_path, minutes=0.01)
    second = train_tiny(tmp_path, minutes=first["seconds"] / 60 + 0.05)
    assert second["step"] > first["step"] > 0
    published = publish(tmp_path, tmp_path / "bundled")
    card = (published[0] / "MODEL_CARD.md").read_text()
    assert "parametric spines" in card
    # The plans are those of the network that was trained, whatever its width.
    assert load_model(published[0]).networks()[0].encoder.output_channels == [4, 8, 8, 8, 8, 8]


_BOTH_WIDTHS = """
import sys
from pathlib import Path

import torch
from totalspineseg_bids.training.synthetic.trainer import nnUNetTrainerSynthetic
from totalspineseg_bids.training.synthetic.options import SyntheticTraining, describe

description, plans = describe(102, 1, features=(4, 8, 8, 8, 8, 8), convolutions=1)
plans["continue_training"] = False
trainer = nnUNetTrainerSynthetic(plans, "3d_fullres", "all", description, torch.device("cpu"))
trainer.prepare(SyntheticTraining(Path(sys.argv[1]), 102, 1.0, features=(4, 8, 8, 8, 8, 8), convolutions=1), [])
# A step changes the weights by nothing to speak of, so that the next one starts where it did.
trainer.initial_lr = 1e-12
torch.manual_seed(0)
batch = torch.randn(1, 2, 128, 64, 64), torch.randint(0, 14, (1, 128, 64, 64)).to(torch.uint8)
for trainer.bfloat16 in (False, True):
    print("loss", trainer.train_step(batch)["loss"])
print("skipped", trainer.skipped)
image, labels = torch.randn(2, 2, 128, 64, 64), torch.randint(0, 14, (2, 128, 64, 64)).to(torch.uint8)
image[0, 1] = 0.0  # comes without odd discs
with torch.no_grad():
    print("batch", float(trainer.batch_loss((image, labels))))
    print("singles", sum(float(trainer.batch_loss((image[[n]], labels[[n]]))) for n in (0, 1)) / 2)
"""


@pytest.mark.slow
def test_a_step_in_16_bits_asks_for_the_same_as_one_in_32(tmp_path):
    environment = os.environ | {f"nnUNet_{name}": str(tmp_path) for name in ("raw", "preprocessed", "results")}
    run = subprocess.run(
        [sys.executable, "-c", _BOTH_WIDTHS, str(tmp_path)], check=True, capture_output=True, text=True, env=environment
    )
    wide, narrow = (float(line.split()[1]) for line in run.stdout.splitlines() if line.startswith("loss"))
    assert narrow == pytest.approx(wide, rel=0.01)
    assert narrow != wide
    assert "skipped 0" in run.stdout
    # The images of a batch count as much as they do one by one, whatever each is asked for.
    batch, singles = (
        float(line.split()[1]) for line in run.stdout.splitlines() if line.startswith(("batch", "singles"))
    )
    assert batch == pytest.approx(singles, rel=1e-4)
