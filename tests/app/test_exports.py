"""Files for other tools, read back by the libraries of these tools."""

import datetime
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from tiny_spine import TinySegmenter, contents, make_dataset, tiny_image, tree  # type: ignore[import-not-found]

from tests.measurement.phantom import components_of
from totalspineseg_bids.anatomy import BY_ID, CANAL_ID, CORD_ID, LABELS
from totalspineseg_bids.app.files import FileJob, FileOptions, segment_files
from totalspineseg_bids.bids.tables import read_table
from totalspineseg_bids.bids.validate import validate
from totalspineseg_bids.exports import label_cord, make_exports, split_vertebrae
from totalspineseg_bids.imaging.volume import Volume
from totalspineseg_bids.segmentation.result import DiscPoint, LabelledSpine, SpineStatus

IMAGE = "sub-01/anat/sub-01_T2w.nii.gz"
STEM = "sub-01/anat/sub-01"
EXPORTED = {
    "seg-totalspineseg_dseg.ctbl",
    "seg-totalspineseg_dseg.label",
    f"{STEM}_desc-T2w_discs.mrk.json",
    f"{STEM}_desc-T2w_vertebrae.mrk.json",
    *(
        f"{STEM}_seg-{kind}_desc-T2w_dseg.{extension}"
        for kind in ("cordlevels", "centerline", "vertebralparts")
        for extension in ("nii.gz", "tsv", "json")
    ),
}
ALL = ["slicer", "itksnap", "sct", "parts"]


def read(path: Path) -> np.ndarray:
    """Read an image as SimpleITK does, which is how ITK-SNAP and Slicer read it."""
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))).transpose()


@pytest.fixture(scope="module")
def segmenter():
    return TinySegmenter()


@pytest.fixture
def exported(tmp_path, process):
    make_dataset(tmp_path / "raw", {IMAGE: tiny_image()}, "LPS")
    assert process(export=ALL) == 0
    return tmp_path / "out"


def test_exports_are_valid_and_removed_without_the_networks(tmp_path, process, segmenter):
    make_dataset(tmp_path / "raw", {IMAGE: tiny_image()})
    out, calls = tmp_path / "out", segmenter.calls
    assert process() == 0
    before = contents(out)
    assert process(export=ALL) == 0
    assert set(tree(out)) - set(before) == EXPORTED
    assert validate(out) == []
    assert process() == 0
    after = contents(out)
    assert {name: after[name] for name in before} == before
    assert {name for name in after if name not in before} == {n for n in EXPORTED if n.startswith("seg-")}
    assert segmenter.calls == calls + 1


@pytest.mark.parametrize("scheme", ["totalsegmri", "totalspineseg"])
def test_the_tables_of_slicer_and_itksnap_name_the_ids_of_the_scheme(scheme, tmp_path, process):
    make_dataset(tmp_path / "raw", {IMAGE: tiny_image()})
    assert process(export=ALL, label_scheme=scheme) == 0
    expected = {label.id_in(scheme): (label.name, label.color) for label in LABELS}
    snap, slicer = {}, {}
    for line in (tmp_path / "out/seg-totalspineseg_dseg.label").read_text().splitlines()[1:]:
        numbers, name, _ = line.split('"')
        index, red, green, blue, *_ = map(int, numbers.split())
        snap[index] = name, (red, green, blue)
    for line in (tmp_path / "out/seg-totalspineseg_dseg.ctbl").read_text().splitlines()[2:]:
        index, name, *color, alpha = line.split(" ")
        assert alpha == "255"
        slicer[int(index)] = name, tuple(map(int, color))
    assert snap == slicer == expected


def test_markups_have_the_points_of_the_disc_image(exported):
    content = json.loads((exported / f"{STEM}_desc-T2w_discs.mrk.json").read_text())
    (markup,) = content["markups"]
    assert markup["coordinateSystem"] == "LPS"
    image = SimpleITK.ReadImage(str(exported / f"{STEM}_seg-levels_desc-T2w_dseg.nii.gz"))
    points = {point["label"]: point["position"] for point in markup["controlPoints"]}
    assert set(points) == {"L2-L3", "L3-L4"}
    for level, value in (("L2-L3", 22), ("L3-L4", 23)):
        (index,) = np.argwhere(SimpleITK.GetArrayViewFromImage(image).transpose() == value).tolist()
        assert np.abs(np.subtract(image.TransformIndexToPhysicalPoint(index), points[level])).max() <= 0.5
    bodies = json.loads((exported / f"{STEM}_desc-T2w_vertebrae.mrk.json").read_text())["markups"][0]["controlPoints"]
    labels = nib.load(exported / f"{STEM}_seg-totalspineseg_desc-T2w_dseg.nii.gz")
    for point in bodies:
        voxels = np.argwhere(np.asarray(labels.dataobj) == {"L2": 21, "L3": 20, "L4": 19}[point["label"]])
        centre = nib.affines.apply_affine(labels.affine, voxels.mean(axis=0)) * (-1, -1, 1)
        np.testing.assert_allclose(point["position"], centre, atol=1e-3)


def test_markups_are_what_slicerio_makes_of_the_same_points(exported, tmp_path):
    markups = pytest.importorskip("slicerio.markups")
    ours = json.loads((exported / f"{STEM}_desc-T2w_discs.mrk.json").read_text())["markups"][0]
    lines = ["# Markups fiducial file version = 4.11", "# CoordinateSystem = LPS"]
    lines.append("# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID")
    for point in ours["controlPoints"]:
        x, y, z = point["position"]
        lines.append(f"{point['id']},{x},{y},{z},0,0,0,1,1,1,0,{point['label']},,")
    (tmp_path / "points.fcsv").write_text("\n".join(lines) + "\n")
    markups.fcsv_to_markups_json(str(tmp_path / "points.fcsv"), str(tmp_path / "points.mrk.json"))
    theirs = json.loads((tmp_path / "points.mrk.json").read_text())["markups"][0]
    assert theirs["type"] == ours["type"]
    assert theirs["coordinateSystem"] == ours["coordinateSystem"]
    assert [(p["label"], p["position"]) for p in theirs["controlPoints"]] == [
        (p["label"], p["position"]) for p in ours["controlPoints"]
    ]


def test_the_cord_has_levels_between_the_disc_points_and_a_centreline(exported):
    labels = read(exported / f"{STEM}_seg-totalspineseg_desc-T2w_dseg.nii.gz")
    levels = read(exported / f"{STEM}_seg-cordlevels_desc-T2w_dseg.nii.gz")
    assert set(np.unique(levels)) == {0, 22}  # L3
    assert np.unique(labels[levels > 0]).tolist() == [CORD_ID]
    between = np.unique(np.argwhere(levels)[:, 2])
    discs = [np.argwhere(labels == label)[:, 2].mean() for label in (205, 204)]
    assert abs(between.min() - min(discs)) <= 1
    assert abs(between.max() - max(discs)) <= 1
    assert read_table(exported / f"{STEM}_seg-cordlevels_desc-T2w_dseg.tsv")[0]["name"] == "L3"
    line = read(exported / f"{STEM}_seg-centerline_desc-T2w_dseg.nii.gz")
    cord = np.argwhere(labels == CORD_ID)
    voxels = np.argwhere(line)
    assert len(np.unique(voxels[:, 2])) == len(voxels) >= len(np.unique(cord[:, 2])) - 2
    assert np.abs(voxels[:, :2] - cord[:, :2].mean(axis=0)).max() <= 1


def column(names: list[tuple[int, str]], tilt: float = 0.0) -> tuple[LabelledSpine, np.ndarray]:
    """A cord along z with disc points 10 mm apart, and vertebrae with posterior elements behind it."""
    labels = np.zeros((40, 60, 20 + 10 * len(names)), np.uint8)
    height = labels.shape[2]
    points = []
    y = 20 + tilt * np.arange(height)
    for z in range(height):
        middle = round(y[z])
        labels[12:28, middle - 7 : middle + 8, z] = CANAL_ID
        labels[16:24, middle - 3 : middle + 4, z] = CORD_ID
    for number, (label, _) in enumerate(names):
        top = height - 10 - 10 * number
        where = (slice(8, 32), slice(0, 60), slice(top - 9, top - 1))
        part = labels[where]
        places = np.indices(part.shape)[1] - y[None, None, top - 9 : top - 1]
        part[(part == 0) & (places > 7) & (places < 25)] = label
        part[(part == 0) & (places < -7) & (places > -14)] = label
    for number, (_, disc) in enumerate(names):
        if disc:
            z = height - 10 - 10 * number
            points.append(DiscPoint(disc, (20.0, float(y[z]), float(z))))
    line = np.stack([np.full(height, 20.0), y, np.arange(height)], axis=1)[::-1]
    components = tuple(c for c in components_of(labels, np.eye(4)) if c.level)
    spine = LabelledSpine(
        labels, np.eye(4), components, SpineStatus.LABELLED, centerline_mm=line, disc_points=tuple(points)
    )
    return spine, labels


#: Vertebrae with the disc above each, and the values of the cord below each disc.
LEVELS = {
    "regular": ([(41, "C2-C3"), (40, "C3-C4"), (39, "C4-C5")], [3, 4]),
    "thirteen thoracic": ([(23, "T11-T12"), (230, "T12-T13"), (22, "T12-L1"), (21, "L1-L2")], [19, 0, 20]),
    "eleven thoracic": ([(24, "T10-T11"), (22, "T12-L1"), (21, "L1-L2")], [18, 20]),
    "a missing disc": ([(39, "C3-C4"), (38, ""), (37, "C5-C6"), (36, "C6-C7")], [0, 0, 6]),
}


@pytest.mark.parametrize("kind", LEVELS)
@pytest.mark.parametrize("tilt", [0.0, 0.5])
def test_the_level_of_the_cord_is_that_of_the_vertebra_between_two_discs(kind, tilt):
    names, expected = LEVELS[kind]
    spine, labels = column(names, tilt)
    levels = label_cord(spine, labels, Volume(labels, np.eye(4)).geometry)
    height = labels.shape[2]
    found = [int(levels[20, round(20 + tilt * z), z]) for z in (height - 15 - 10 * n for n in range(len(names) - 1))]
    assert found == expected


def test_the_cord_is_cut_perpendicular_to_its_centreline():
    spine, labels = column(LEVELS["regular"][0], tilt=0.5)
    levels = label_cord(spine, labels, Volume(labels, np.eye(4)).geometry)
    _, y, z = (round(value) for value in spine.disc_points[0].position_mm)
    # The cord leans forwards, so its cut is higher behind than in front.
    assert (levels[20, y + 3, z - 1], levels[20, y - 3, z + 1]) == (0, 3)


def test_vertebrae_are_divided_at_the_canal():
    spine, labels = column([(41, "C2-C3"), (40, "C3-C4")])
    parts = split_vertebrae(spine, labels, np.eye(4))
    for label, value in ((41, 1), (40, 2)):
        voxels = np.argwhere(labels == label)
        behind = parts[tuple(voxels.T)] == value + 100
        assert set(parts[tuple(voxels.T)]) == ({101} if value == 1 else {value, value + 100})
        if value > 1:
            assert (voxels[behind][:, 1] < 20).all()
            assert (voxels[~behind][:, 1] > 20).all()
    assert set(np.unique(parts)) == {0, 101, 2, 102}


def test_nothing_is_exported_without_content():
    spine, labels = column([(41, "")])
    kinds = [product.kind for product in make_exports(["sct"], spine, labels * 0, Volume(labels, np.eye(4)).geometry)]
    assert kinds == []


def test_the_tool_without_bids_writes_the_same_files(tmp_path, exported):
    job = FileJob(tmp_path / "raw" / IMAGE, tmp_path / "files/labels.nii.gz")
    (outcome,) = segment_files([job], TinySegmenter(), FileOptions(export=tuple(ALL), probabilities=True))
    assert outcome.line == "sub-01_T2w.nii.gz: labelled; 5 levels; look at: test-flag"
    folder = tmp_path / "files"
    record = json.loads((folder / "labels.json").read_text())
    assert (record["status"], record["reason"]) == ("labelled", None)
    assert sorted(c["level"] for c in record["components"] if c["level"]) == ["L2", "L2-L3", "L3", "L3-L4", "L4"]
    maps = {"points": "levels"} | {kind: kind for kind in ("cordlevels", "centerline", "vertebralparts")}
    same = {"labels.nii.gz": f"{STEM}_seg-totalspineseg_desc-T2w_dseg.nii.gz"}
    same |= {f"labels_{name}.nii.gz": f"{STEM}_seg-{kind}_desc-T2w_dseg.nii.gz" for name, kind in maps.items()}
    for part in ("SC", "canal"):
        same[f"labels_label-{part}_probseg.nii.gz"] = f"{STEM}_label-{part}_desc-T2w_probseg.nii.gz"
    same |= {f"labels_{part}.mrk.json": f"{STEM}_desc-T2w_{part}.mrk.json" for part in ("discs", "vertebrae")}
    same |= {f"labels.{extension}": f"seg-totalspineseg_dseg.{extension}" for extension in ("label", "ctbl")}
    for name, other in same.items():
        assert (folder / name).read_bytes() == (exported / other).read_bytes(), name
    assert len(list(folder.iterdir())) == 12  # and labels.json


def write_series(folder: Path, image: nib.Nifti1Image) -> None:
    """Write an image as a sagittal DICOM series of single slices."""
    pydicom = pytest.importorskip("pydicom")
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

    data = np.asarray(image.dataobj).astype(np.uint16)
    to_lps = np.diag([-1.0, -1, 1, 1]) @ image.affine
    folder.mkdir(parents=True)
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    now = datetime.datetime(2024, 1, 1)
    for number in range(data.shape[0]):
        dataset = pydicom.Dataset()
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = MRImageStorage
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = study, series, frame
        dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate, dataset.PatientSex = "A^B", "1", "", "O"
        dataset.StudyDate = dataset.SeriesDate = now.strftime("%Y%m%d")
        dataset.StudyTime = dataset.SeriesTime = now.strftime("%H%M%S")
        dataset.StudyID, dataset.AccessionNumber, dataset.ReferringPhysicianName = "1", "", ""
        dataset.Modality, dataset.SeriesNumber, dataset.InstanceNumber = "MR", 3, number + 1
        dataset.Manufacturer, dataset.PositionReferenceIndicator, dataset.Laterality = "none", "", ""
        # Rows run from cranial to caudal, columns from anterior to posterior: flipped z and y of the image.
        rows = data[number, ::-1, ::-1].T
        dataset.Rows, dataset.Columns = rows.shape
        dataset.PixelSpacing, dataset.SliceThickness = [1.0, 1.0], 1.0
        dataset.ImageOrientationPatient = [*(-to_lps[:3, 1]), *(-to_lps[:3, 2])]
        corner = to_lps @ (number, data.shape[1] - 1, data.shape[2] - 1, 1)
        dataset.ImagePositionPatient = [float(v) for v in corner[:3]]
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
        dataset.PixelData = np.ascontiguousarray(rows).tobytes()
        dataset.save_as(folder / f"{number:03d}.dcm", enforce_file_format=True)


def test_a_dicom_segmentation_has_the_labels_of_the_image(tmp_path, process):
    highdicom = pytest.importorskip("highdicom")
    raw = make_dataset(tmp_path / "raw", {IMAGE: tiny_image()})
    image = nib.load(raw / IMAGE)
    write_series(tmp_path / "dicom/sub-01", image)
    settings = {"export": ["dicom"], "dicom_dir": tmp_path / "dicom"}
    assert process(skip_bids_validation=True, **settings) == 0
    out = tmp_path / "out"
    found = highdicom.seg.segread(out / f"{STEM}_desc-T2w_dseg.dcm")
    labels = np.asarray(nib.load(out / f"{STEM}_seg-totalspineseg_desc-T2w_dseg.nii.gz").dataobj)
    names = {found.get_segment_description(n).segment_label: n for n in found.segment_numbers}
    assert set(names) == {BY_ID[int(label)].name for label in np.unique(labels[labels > 0])}
    volume = found.get_volume(combine_segments=False)
    for label in np.unique(labels[labels > 0]):
        voxels = np.argwhere(volume.array[..., names[BY_ID[int(label)].name] - 1])
        places = nib.affines.apply_affine(np.diag([-1.0, -1, 1, 1]) @ volume.affine, voxels)
        expected = nib.affines.apply_affine(image.affine, np.argwhere(labels == label))
        order = [np.lexsort(np.round(points).T) for points in (places, expected)]
        np.testing.assert_allclose(places[order[0]], expected[order[1]], atol=1e-3)
    assert validate(out) == []


def test_an_image_without_its_dicom_series_goes_without(tmp_path, process, capsys):
    pytest.importorskip("highdicom")
    make_dataset(tmp_path / "raw", {IMAGE: tiny_image()})
    (tmp_path / "dicom").mkdir()
    assert process(export=["dicom"], dicom_dir=tmp_path / "dicom") == 0
    assert "holds no DICOM series with its voxels" in capsys.readouterr().err
    assert not list((tmp_path / "out").rglob("*.dcm"))
