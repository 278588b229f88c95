"""Machines and files as people have them: no home folder, limits of containers, label maps of other tools."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nibabel.affines import from_matvec
from processes import MAIN_SIDECAR, as_plain_user, config, finish, start  # type: ignore[import-not-found]
from tiny_spine import UNDECIDED, TinySegmenter, make_dataset, save, tiny_image  # type: ignore[import-not-found]

from tests import images
from tests.columns import make_column, semantic_of
from totalspineseg_bids import anatomy
from totalspineseg_bids.app.crash import read_crashes
from totalspineseg_bids.app.session import find_companions
from totalspineseg_bids.bids.names import SourceImage
from totalspineseg_bids.cli.tools import main as tools
from totalspineseg_bids.imaging.grid import to_working_grid
from totalspineseg_bids.imaging.intensity import clip_outliers
from totalspineseg_bids.imaging.io import load_image
from totalspineseg_bids.inference.resources import available_cpus, memory_limit_mb
from totalspineseg_bids.segmentation.class_map import ClassMap
from totalspineseg_bids.segmentation.localizer import read_localizer

STEP2 = ClassMap.named("r20241115-step2")
IMAGE = "sub-01/anat/sub-01_T2w.nii.gz"

PROGRAM = """
import os, pwd, sys, tempfile
os.environ.pop("HOME", None)
def unknown(*_):
    raise KeyError("uid not found")
pwd.getpwuid = unknown
def none():
    raise FileNotFoundError(2, "No usable temporary directory found")
if sys.argv[1] == "no temporary folder":
    tempfile._get_default_tempdir = none
from totalspineseg_bids.cli.{module} import main
sys.exit(main(sys.argv[2:]))
"""


DRY_RUN = ["RAW", "OUT", "participant", "--model", "bundled", "--dry-run"]


#: Program, its arguments, exit code and message of a run without a home folder.
NO_HOME = {
    "version": ("bids_app", ["--version"], 0, "totalspineseg-bids 0"),
    "run": ("bids_app", DRY_RUN, 0, f"to do\t{IMAGE}"),
    "no temporary folder": ("bids_app", [*DRY_RUN, "--participant-label", "01"], 0, f"to do\t{IMAGE}"),
    "no model": (
        "bids_app",
        ["RAW", "OUT", "participant"],
        66,
        "set TOTALSPINESEG_BIDS_MODELS to a folder, or use --model bundled",
    ),
    "output in it": (
        "bids_app",
        ["RAW", "~/out", "participant"],
        64,
        "~/out: '~' cannot be used because there is no home folder",
    ),
    "tools": ("tools", ["models", "--help"], 0, "models"),
}


@pytest.mark.skipif(sys.platform == "win32", reason="user ids are those of POSIX")
@pytest.mark.parametrize("case", NO_HOME)
def test_no_home_folder(tmp_path, case):
    """As a user id that has no entry in /etc/passwd, without ``HOME``."""
    module, arguments, exit_code, message = NO_HOME[case]
    places = {"RAW": str(make_dataset(tmp_path / "raw", {IMAGE: tiny_image()})), "OUT": str(tmp_path / "out")}
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("XDG", "TOTALSPINESEG"))}
    script = [sys.executable, "-c", PROGRAM.format(module=module), case, *(places.get(a, a) for a in arguments)]
    done = subprocess.run(script, capture_output=True, text=True, check=False, env=variables)
    assert done.returncode == exit_code, done.stderr
    assert message in (done.stdout if exit_code == 0 else done.stderr.splitlines()[-1])
    assert "Traceback" not in done.stderr


#: Groups of the process, files of the groups, CPUs and memory in MB; the first version of groups has a tree a resource.
LIMITS = {
    "both": ("0::/job\n", {"job/cpu.max": "150000 100000", "job/memory.max": "2147483648"}, 1, 2048),
    "of a parent": ("0::/job/step\n", {"job/cpu.max": "100000 100000", "job/step/cpu.max": "max 100000"}, 1, None),
    "of the root": ("0::/\n", {"cpu.max": "100000 100000", "memory.max": "1048576"}, 1, 1),
    "of another group": ("0::/elsewhere\n", {"cpu.max": "50000 100000"}, 1, None),
    "version 1": (
        "4:memory:/job\n2:cpu,cpuacct:/job\n",
        {f"cpu,cpuacct/job/cpu.cfs_{name}_us": "100000" for name in ("quota", "period")}
        | {"memory/job/memory.limit_in_bytes": "1073741824"},
        1,
        1024,
    ),
    "version 1, none": (
        "2:cpu:/\n4:memory:/\n",
        {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}
        | {"memory/memory.limit_in_bytes": "9223372036854771712"},
        None,
        None,
    ),
    "nonsense": ("nonsense\n", {"cpu.max": "many"}, None, None),
}


@pytest.mark.skipif(sys.platform != "linux", reason="control groups exist on Linux only")
@pytest.mark.parametrize("case", LIMITS)
def test_limits_of_containers(tmp_path, case):
    own, files, cpus, megabytes = LIMITS[case]
    for name, content in files.items():
        path = tmp_path / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    (tmp_path / "own").write_text(own)
    places = tmp_path / "groups", tmp_path / "own"
    nothing = tmp_path / "nothing", tmp_path / "nothing"
    assert available_cpus(*places) == (cpus or len(os.sched_getaffinity(0)))
    assert memory_limit_mb(*places) == (megabytes or memory_limit_mb(*nothing))


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="affinity can be set on Linux only")
def test_affinity_limits_the_default_number_of_threads():
    code = (
        "import os; from totalspineseg_bids.inference.options import InferenceOptions; "
        "os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); "
        "print(InferenceOptions().thread_count, InferenceOptions(threads=3).thread_count)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["None" if os.cpu_count() == 1 else "1", "3"]


def label_map_of(tmp_path, data, dtype):
    """Write values as another tool would, with offsets, codes and units of its own."""
    image = nib.Nifti1Image(data.astype(dtype), from_matvec(np.eye(3), (31.25, -7.5, -120.125)))
    image.set_sform(image.affine, 4)
    image.set_qform(image.affine, 2)
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, tmp_path / "map.nii.gz")
    return tmp_path / "map.nii.gz"


#: Change of the values of a label map, their type, exit code, and what the tool says about it.
LABEL_MAPS = {
    "a little less": (lambda labels: labels - (labels == 1) * 1e-7, np.float32, 0, "labelled"),
    "a little more": (lambda labels: labels + (labels == 1) * 9e-4, np.float64, 0, "labelled"),
    "integers": (lambda labels: labels, np.int16, 0, "labelled"),
    "fractions": (lambda labels: labels + (labels == 1) * 0.02, np.float32, 65, "it holds the value 1.02"),
    "negative": (lambda labels: labels - (labels == 1) * 5.0, np.float32, 65, "it holds the value -4"),
    "no number": (lambda labels: np.where(labels == 1, np.nan, labels), np.float32, 65, "it holds the value nan"),
    "a series": (lambda labels: np.stack([labels] * 2, axis=3), np.uint8, 65, "holds 2 volumes, but a 3D"),
}


GEOMETRY = (
    *("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("srow_x", "srow_y", "srow_z", "pixdim", "xyzt_units"),
)


@pytest.mark.parametrize("kind", LABEL_MAPS)
def test_label_maps_of_other_tools(tmp_path, capsys, kind):
    change, dtype, exit_code, message = LABEL_MAPS[kind]
    column = make_column(first="T10", last="S")
    source = label_map_of(tmp_path, change(semantic_of(column.truth, STEP2).astype(np.float64)), dtype)
    target = tmp_path / "out.nii.gz"
    assert tools(["label", str(source), str(target), "--layout", "r20241115-step2"]) == exit_code
    said = capsys.readouterr()
    assert message in (said.err.splitlines()[-1] if exit_code else said.out)
    if exit_code == 0:
        before, after = nib.load(source).header, nib.load(target).header
        assert [name for name in GEOMETRY if not np.array_equal(before[name], after[name])] == []


def source_at(tmp_path, entities, affine=None, code=1):
    """Write a tiny image at another place in the scanner."""
    path = save(tmp_path / f"sub-01/anat/sub-01_{entities}.nii.gz", tiny_image())
    image = nib.Nifti1Image(tiny_image(), nib.load(path).affine if affine is None else affine)
    image.set_sform(image.affine, code)
    image.set_qform(None, 0)
    nib.save(image, path)
    return SourceImage(path.relative_to(tmp_path).as_posix(), path)


def segment_with_tiny_segmenter(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, TinySegmenter]:
    segmenter = TinySegmenter()
    monkeypatch.setattr(
        "totalspineseg_bids.app.segmenter.make_segmenter", lambda *_: (segmenter, SimpleNamespace(name="tiny"))
    )
    return tools(["segment", *arguments]), segmenter


@pytest.mark.parametrize(
    ("choice", "exit_code", "spine"),
    [
        ((), 0, True),
        (("--volume", "mean"), 0, True),
        (("--volume", "1"), 0, True),
        (("--volume", "0"), 0, False),
        (("--volume", "3"), 65, False),
        (("--volume", "last"), 64, False),
    ],
)
def test_series_outside_bids(tmp_path, monkeypatch, choice, exit_code, spine):
    lean = tiny_image(spine=False)
    series = np.stack([lean, tiny_image(), 2 * tiny_image() - lean], axis=3)
    source = save(tmp_path / "series.nii.gz", series)
    target = tmp_path / "out.nii.gz"
    assert segment_with_tiny_segmenter(monkeypatch, str(source), str(target), *choice)[0] == exit_code
    assert target.exists() == spine


def test_no_spine_outside_bids_is_recorded_and_not_done_again(tmp_path, monkeypatch):
    source = save(tmp_path / "in/a.nii.gz", tiny_image(spine=False))
    save(tmp_path / "in/b.nii.gz", tiny_image())
    folders, record = (str(tmp_path / "in"), str(tmp_path / "out")), tmp_path / "out/a.json"
    save(tmp_path / "out/a.nii.gz", tiny_image())  # of an earlier run
    assert segment_with_tiny_segmenter(monkeypatch, *folders)[0] == 0
    content = json.loads(record.read_text())
    assert (content["status"], content["reason"]) == ("no-spine", "neither canal nor disc in view")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.json", "b.json", "b.nii.gz"]
    code, segmenter = segment_with_tiny_segmenter(monkeypatch, *folders, "--skip-existing")
    assert (code, segmenter.calls) == (0, 0)
    save(source, tiny_image())
    assert segment_with_tiny_segmenter(monkeypatch, *folders)[0] == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.json", "a.nii.gz", "b.json", "b.nii.gz"]


@pytest.mark.parametrize("stored", anatomy.LABEL_SCHEMES)
@pytest.mark.parametrize("expected", anatomy.LABEL_SCHEMES)
def test_localizer_in_the_other_label_scheme(tmp_path, stored, expected, caplog):
    column = make_column(first="T10", last="S")
    path = label_map_of(tmp_path, anatomy.to_scheme(column.truth, stored), np.uint8)
    np.testing.assert_array_equal(read_localizer(path, expected).data, column.truth)
    assert (f"those of the label scheme {stored}, not {expected}" in caplog.text) == (stored != expected)


@pytest.mark.parametrize(
    ("affine", "code", "together"),
    [
        (None, 1, True),
        (None, 0, False),
        (np.eye(4), 1, False),
        (from_matvec(np.eye(3), (-8.5, -11.5, -19.5)), 2, False),
    ],
    ids=["placed", "without code", "at the corner", "at the middle"],
)
def test_images_of_unknown_position_are_labelled_alone(tmp_path, affine, code, together):
    sources = [source_at(tmp_path, suffix, affine, code) for suffix in ("T1w", "T2w")]
    assert find_companions(sources[0], sources) == ((sources[1],) if together else ())


@pytest.mark.parametrize(("steps", "groups"), [((0, 25, 50), [3, 3, 3]), ((0, 25, 90), [2, 2, 1])])
def test_images_that_overlap_through_others_are_labelled_together(tmp_path, steps, groups):
    sources = [source_at(tmp_path, f"run-{z}_T2w", from_matvec(np.eye(3), (-9, -12, 30 + z))) for z in steps]
    found = [{source, *find_companions(source, sources)} for source in sources]
    assert [len(group) for group in found] == groups
    assert found[0] == found[1]


class Killed(TinySegmenter):
    """A segmenter whose process the kernel kills at one image, as it does when the memory is used up."""

    def segment(self, volume, **rest):
        if volume.data.max() > UNDECIDED:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().segment(volume, **rest)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the runs are forked")
def test_an_image_at_which_a_run_was_killed_does_not_stop_the_next_run(tmp_path):
    names = [f"sub-0{number}/anat/sub-0{number}_T2w.nii.gz" for number in (1, 2, 3)]
    series = {name: tiny_image(seed=number) for number, name in enumerate(names)}
    series[names[0]][0, 0, 0] = 2 * UNDECIDED
    settings = config(make_dataset(tmp_path / "raw", series), tmp_path / "out")
    done = []
    for _ in range(2):
        process = start(settings, Killed())
        process.join()
        assert process.exitcode == -signal.SIGKILL
        done.append(len(list(settings.output_dir.glob(MAIN_SIDECAR))))
    assert done == [0, 2]
    assert "killed while it processed this image" in read_crashes(settings.output_dir)[names[0]].reason
    finish(settings)
    assert read_crashes(settings.output_dir) == {}
    assert not list((settings.output_dir / "logs").glob("running-*"))


def test_hot_pixels_are_clipped_with_a_note(tmp_path):
    clean = np.kron(tiny_image(), np.ones((2, 2, 2), np.int16)).astype(np.float32)
    hot = clean.copy()
    at = np.random.default_rng(0).random(hot.shape) < 1e-4
    hot[at] *= 1000
    before, after = (load_image(save(tmp_path / "i.nii.gz", data)) for data in (clean, hot))
    assert (before.notes, after.notes) == ((), (f"intensity-outliers:{at.sum()}",))
    np.testing.assert_array_equal(before.volume.data, clean)
    np.testing.assert_array_equal(after.volume.data[~at], clean[~at])
    assert after.volume.data.std() == pytest.approx(clean.std(), rel=0.02)


@pytest.mark.parametrize("power", [-100, -20, 60, 100])
def test_intensities_far_from_one_are_scaled_with_a_note(tmp_path, power):
    plain, far = (tiny_image().astype(np.float64) * factor for factor in (1.0, 2.0**power))
    plain, far = (load_image(save(tmp_path / "i.nii.gz", data)) for data in (plain, far))
    assert (plain.notes, far.notes) == ((), (f"intensities-scaled:2^{2 - power}",))
    np.testing.assert_array_equal(far.volume.data, plain.volume.data * 4)


@given(scale=st.floats(1, 1e4), tail=st.floats(1, 6), empty=st.floats(0, 0.9), seed=st.integers(0, 99))
def test_ordinary_intensities_are_not_clipped(scale, tail, empty, seed):
    rng = np.random.default_rng(seed)
    values = (scale * rng.gamma(2.0, 1.0, 5000)).astype(np.float32)
    values[rng.random(5000) < 0.02] *= tail  # fat near the coil
    values[rng.random(5000) < empty] = 0
    assert clip_outliers(values)[1] == 0


def sparse_image(path: Path, size: int) -> Path:
    """Write an image of any size whose voxels take no space on disk."""
    header = nib.Nifti1Header()
    header.set_data_shape((size, size, size))
    header.set_data_dtype(np.int16)
    header.set_sform(np.diag([0.4, 0.4, 0.4, 1.0]), 1)
    header["magic"], header["vox_offset"] = b"n+1", 352
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        stream.write(header.binaryblock + bytes(4))
        stream.truncate(352 + 2 * size**3)
    return path


@pytest.mark.skipif(sys.platform == "win32", reason="sparse files")
def test_an_image_too_large_for_the_memory_fails_before_it_is_read(tmp_path):
    raw = make_dataset(tmp_path / "raw", {IMAGE: tiny_image()})
    sparse_image(raw / "sub-02/anat/sub-02_T2w.nii", 500)
    settings = config(raw, tmp_path / "out", mem_mb=1500)
    assert as_plain_user(settings, tmp_path / "says") == 65
    last = (tmp_path / "says").read_text().splitlines()[-1]
    assert "sub-02_T2w.nii: 500 x 500 x 500 voxels need at least 2.4 GB of memory, of which 1.5 GB may be used" in last
    assert "--mem-mb" in last
    assert len(list(settings.output_dir.glob(MAIN_SIDECAR))) == 1


@pytest.mark.parametrize(("shear", "noted"), [(1e-7, False), (2e-5, False), (3e-4, True), (0.1, True)])
def test_images_that_itk_does_not_read_carry_a_note(tmp_path, shear, noted):
    affine = from_matvec(np.diag([0.5, 0.5, 3.3]) + 3.3 * shear * np.eye(3, k=2), (7, 7, 7))
    image = images.save(tmp_path / "image.nii.gz", tiny_image(), affine)
    assert load_image(image).notes == (("sheared-affine",) if noted else ())


@pytest.mark.parametrize("spacing", [1 - 1e-6, 1 + 1e-7, 1 + 1e-4])
def test_voxels_of_nearly_1_mm_are_not_resampled(tmp_path, spacing):
    data = tiny_image().astype(np.float32)
    image = images.save(tmp_path / "image.nii.gz", data, np.diag([spacing, 1.0, spacing, 1.0]))
    np.testing.assert_array_equal(to_working_grid(load_image(image).volume).data, data)
