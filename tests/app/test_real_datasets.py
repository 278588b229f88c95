"""Datasets as people have them: what surrounds the images must not cost the run."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from tiny_spine import make_dataset, save, tiny_image  # type: ignore[import-not-found]

from tests.columns import make_column, semantic_of
from tests.images import cropped
from totalspineseg_bids.app.run import run
from totalspineseg_bids.bids.tables import read_table
from totalspineseg_bids.cli.bids_app import parse_config
from totalspineseg_bids.segmentation.class_map import ClassMap
from totalspineseg_bids.segmentation.labelling import LabellingInput, label_session

GOOD = ("sub-01/anat/sub-01_T2w.nii.gz", "sub-02/anat/sub-02_T2w.nii.gz")


def write(name: str, text: str, encoding: str = "utf-8") -> Callable[[Path], object]:
    def make(raw: Path) -> None:
        path = raw / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode(encoding))

    return make


def add(*names: str) -> Callable[[Path], object]:
    return lambda raw: [save(raw / name, tiny_image()) for name in names]


def both(*steps: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda raw: [step(raw) for step in steps]


def description(encoding: str) -> Callable[[Path], object]:
    content = {"Name": "Tiny", "BIDSVersion": "1.10.0", "Authors": ["José"]}
    return write("dataset_description.json", json.dumps(content, ensure_ascii=False), encoding)


@dataclass(frozen=True)
class Kind:
    """A kind of dataset: how it is made, the options of the run, and what the run does and says."""

    make: Callable[[Path], object]
    says: str = ""
    """Parts of the messages, a line each; each is on exactly one line."""
    options: str = ""
    code: int = 0
    done: tuple[str, ...] = GOOD
    """Images that are processed, where the run is not refused as a whole."""
    lacks: str = ""
    """Text that is in no message, a line each."""


KINDS = {
    "func sidecar without a key": Kind(
        both(
            add("sub-01/func/sub-01_task-rest_bold.nii.gz"),
            write("sub-01/func/sub-01_task-rest_bold.json", '{"TaskName": "rest"}'),
        ),
        "SIDECAR_KEY_REQUIRED /sub-01/func/sub-01_task-rest_bold.nii.gz:",
    ),
    "participant not in the table": Kind(
        write("participants.tsv", "participant_id\tage\nsub-01\t5\n"), "PARTICIPANT_ID_MISMATCH /participants.tsv:"
    ),
    "scans.tsv names an absent file": Kind(
        write("sub-01/sub-01_scans.tsv", "filename\tacq_time\nanat/sub-01_T1w.nii.gz\tn/a\n"),
        "SCANS_FILENAME_NOT_MATCH_DATASET",
    ),
    "two READMEs": Kind(write("README.md", "Text.\n"), "MULTIPLE_README_FILES /README (and 1 more)"),
    "unknown suffix": Kind(add("sub-01/anat/sub-01_STIR.nii.gz"), "NOT_INCLUDED"),
    "unknown suffix that is selected": Kind(
        add("sub-01/anat/sub-01_STIR.nii.gz"),
        "NOT_INCLUDED /sub-01/anat/sub-01_STIR.nii.gz; correct it or give --skip-bids-validation",
        "--suffix STIR T2w",
        16,
    ),
    "echo without its time": Kind(
        add("sub-01/anat/sub-01_echo-1_T2starw.nii.gz"),
        "files of the selected images, the first is SIDECAR_KEY_REQUIRED "
        "/sub-01/anat/sub-01_echo-1_T2starw.nii.gz (EchoTime)",
        code=16,
    ),
    "strict": Kind(
        write("README.md", "Text.\n"),
        "not a valid BIDS dataset, 2 errors, the first is MULTIPLE_README_FILES",
        "--strict-validation",
        16,
    ),
    "selected sidecar with a wrong value": Kind(
        write("sub-01/anat/sub-01_T2w.json", '{"EchoTime": "long"}'), "1 error in files of the selected images", code=16
    ),
    "description with a byte-order mark": Kind(description("utf-8-sig"), "INVALID_JSON_ENCODING"),
    "description in Latin-1": Kind(description("latin-1"), "dataset_description.json: is not UTF-8"),
    "description that is no JSON": Kind(
        write("dataset_description.json", '{"Name": '), "dataset_description.json: cannot be read", code=16
    ),
    "participants that do not exist": Kind(
        write("participants.tsv", "participant_id\nsub-01\nsub-02\nsub-09\n"),
        "has no participant nobody; check --participant-label",
        "--participant-label nobody",
        18,
    ),
    "labels without leading zeros": Kind(
        lambda raw: None,
        "has no participant 1 (did you mean 01?), 2 (did you mean 02?); check --participant-label",
        "--participant-label 1 2",
        18,
    ),
    "upper-case folders": Kind(
        add("SUB-03/anat/SUB-03_T2w.nii.gz", "sub-01/SES-2/anat/sub-01_SES-2_T2w.nii.gz"),
        "2 folders not read, because names start with lower-case sub-, ses- or anat: SUB-03, sub-01/SES-2",
    ),
    "participants without images": Kind(
        lambda raw: [(raw / f"sub-{number}").mkdir() for number in range(3, 8)],
        "5 participants without a selected image: sub-3, sub-4, sub-5 and 2 more",
    ),
    "a named participant without images": Kind(
        lambda raw: (raw / "sub-09").mkdir(),
        "1 participant without a selected image: sub-09\nhas no participant 08",
        "--participant-label 01 02 08 09",
    ),
    "suffixes that are not selected": Kind(
        add("sub-01/anat/sub-01_UNIT1.nii.gz", "sub-02/anat/sub-02_acq-ax_t2w.nii.gz"),
        "images of other suffixes are not processed (1 UNIT1, 1 t2w); --suffix selects them",
    ),
    "only suffixes that are not selected": Kind(
        lambda raw: None,
        "images of other suffixes are not processed (2 T2w)\nno image matches suffix T1w; check the labels",
        "--suffix T1w",
        18,
    ),
    "participant listed in .bidsignore": Kind(
        both(
            add("sub-03/anat/sub-03_T2w.nii.gz", "sub-03/anat/sub-03_odd_T2w.nii.gz"), write(".bidsignore", "sub-03/\n")
        ),
        "1 image left out by .bidsignore: sub-03/anat/sub-03_T2w.nii.gz",
        lacks="BIDS validator\nnot a BIDS name",
    ),
    "every image listed in .bidsignore": Kind(
        write(".bidsignore", "# all\n**/*_T2w.nii.gz\n"),
        "no image matches suffix T1w T2w T2starw PDw MTw (2 left out by .bidsignore)",
        code=18,
    ),
    "files of macOS": Kind(
        write("sub-01/anat/._sub-01_T2w.nii.gz", "Mac OS X"),
        "1 hidden file ignored: sub-01/anat/._sub-01_T2w.nii.gz",
        lacks="not a BIDS name",
    ),
    "copies of images": Kind(
        add("sub-01/anat/sub-01_T2w copy.nii.gz", "sub-01/anat/sub-01_T2w (1).nii.gz"),
        "2 files left out, because the name is not a BIDS name: sub-01/anat/sub-01_T2w (1).nii.gz,",
    ),
    "parts of a complex image": Kind(
        add("sub-01/anat/sub-01_part-phase_T2w.nii.gz"), "1 image left out, show no anatomy"
    ),
    "extensions in upper case": Kind(
        lambda raw: save(raw / "x.nii.gz", tiny_image()).rename(raw / "sub-01/anat/sub-01_T1w.NII.GZ"),
        "1 file left out, because the name is not a BIDS name: sub-01/anat/sub-01_T1w.NII.GZ",
    ),
    "label with underscores": Kind(
        add("sub-WMH_21/anat/sub-WMH_21_T2w.nii.gz"),
        "1 file left out, because the name is not a BIDS name: sub-WMH_21/anat/sub-WMH_21_T2w.nii.gz\n"
        "1 participant without a selected image: sub-WMH_21",
    ),
    "label with a plus sign": Kind(
        add("sub-01/anat/sub-01_acq-spin+echo_T2w.nii.gz"),
        done=("sub-01/anat/sub-01_T2w.nii.gz", "sub-01/anat/sub-01_acq-spin+echo_T2w.nii.gz", GOOD[1]),
    ),
    "selected image with an entity that BIDS does not know": Kind(
        add("sub-01/anat/sub-01_sequ-211_T2w.nii.gz"),
        "the first is ENTITY_NOT_IN_RULE /sub-01/anat/sub-01_sequ-211_T2w.nii.gz; correct it or give",
        code=16,
    ),
    "index that the sidecar repeats as a number": Kind(
        both(
            add("sub-01/anat/sub-01_run-01_T2w.nii.gz"),
            write("sub-01/anat/sub-01_run-01_T2w.json", '{"run": 1, "EchoTime": 0.1}'),
        ),
        done=("sub-01/anat/sub-01_T2w.nii.gz", "sub-01/anat/sub-01_run-01_T2w.nii.gz", GOOD[1]),
    ),
    "sidecars and tables without content": Kind(
        lambda raw: [(raw / name).symlink_to("/gone/x") for name in ("T2w.json", "participants.tsv")],
        "SYMLINK_BROKEN /T2w.json (and 1 more)",
    ),
    "long labels": Kind(
        add(f"sub-01/anat/sub-01_acq-{'V' * 190}_T2w.nii.gz"),
        done=(GOOD[0], f"sub-01/anat/sub-01_acq-{'V' * 190}_T2w.nii.gz", GOOD[1]),
    ),
    "labels too long for the names of results": Kind(
        add(f"sub-01/anat/sub-01_acq-{'V' * 215}_T2w.nii.gz"), "1 of 3 images failed, the first:", code=65
    ),
    "images of derivatives and sources": Kind(
        add("derivatives/x/sub-01/anat/sub-01_T2w.nii.gz", "sourcedata/sub-03/anat/sub-03_T2w.nii.gz")
    ),
    "name that is not UTF-8": Kind(
        add(b"sub-01/anat/sub-01_acq-gr\xf6\xdfer_T2w.nii.gz".decode("utf-8", "surrogateescape")),
        "1 file left out, because the name is not a BIDS name",
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_each_kind(name, tmp_path, factory, capsys):
    kind, out = KINDS[name], tmp_path / "out"
    raw = make_dataset(tmp_path / "raw", dict.fromkeys(GOOD, tiny_image()))
    kind.make(raw)
    settings = parse_config([str(raw), str(out), "participant", "--model", "bundled", *kind.options.split()])
    assert run(settings, factory=factory) == kind.code
    said = capsys.readouterr().err
    for part in kind.says.splitlines():
        assert sum(part in line for line in said.splitlines()) == 1, (part, said)
    for part in kind.lacks.splitlines():
        assert part not in said
    marks = (path.relative_to(out).as_posix() for path in out.glob("sub-*/**/*_seg-totalspineseg_desc-*_dseg.json"))
    expected = (
        image.replace("_T2w.nii.gz", "_seg-totalspineseg_desc-T2w_dseg.json")
        for image in (() if kind.code in {16, 18} else kind.done)
    )
    assert sorted(marks) == sorted(expected)


#: Options of the group level, the images that its table should list (none if it fails), and part of its message.
GROUPS = {
    "all": ((), ("sub-01_T1w", "sub-01_UNIT1", "sub-02_ses-a_acq-sag_T2w"), ""),
    "suffix": (("--suffix", "T1w"), ("sub-01_T1w",), ""),
    "session": (("--session-label", "a"), ("sub-02_ses-a_acq-sag_T2w",), ""),
    "filter file": (("--bids-filter-file", "FILTERS"), (), "holds no derivatives of the images asked for"),
    "one label without results": (
        ("--participant-label", "01", "08"),
        ("sub-01_T1w", "sub-01_UNIT1"),
        "has no results of participant 08",
    ),
    "label and suffix": (("--participant-label", "02", "--suffix", "T1w"), (), "holds no derivatives"),
}


@pytest.mark.parametrize("name", GROUPS)
def test_the_selection_acts_at_group_level(name, tmp_path, call, capsys):
    options, expected, says = GROUPS[name]
    images = ("sub-01/anat/sub-01_T1w", "sub-01/anat/sub-01_UNIT1", "sub-02/ses-a/anat/sub-02_ses-a_acq-sag_T2w")
    make_dataset(tmp_path / "raw", {f"{image}.nii.gz": tiny_image() for image in images})
    filters = tmp_path / "filters.json"
    filters.write_text('{"t2w": {"acquisition": null}, "t1w": {"session": ["*"]}}')
    assert call("participant", "--suffix", "T1w", "T2w", "UNIT1") == 0
    assert call("group", *(word.replace("FILTERS", str(filters)) for word in options)) == (0 if expected else 18)
    assert says in capsys.readouterr().err
    if expected:
        assert [row["image"] for row in read_table(tmp_path / "out/group_images.tsv")] == list(expected)


DATALAD = """[ $1 = get ] && shift 2
for name; do cp {folder}/remote/"${{name##*/}}" {folder}/annex || exit 1; done"""


#: Options of a run on links without content, exit code, number of images fetched, and what the run says.
FETCHES = {
    "not asked for": ((), 66, 0, "sub-01/anat/sub-01_T2w.nii.gz; --datalad-get fetches them"),
    "not installed": ((), 66, 0, "2 images without content, such as sub-01/anat/sub-01_T2w.nii.gz; fetch"),
    "asked for, not installed": (("--datalad-get",), 66, 0, "--datalad-get needs DataLad"),
    "asked for": (("--datalad-get",), 0, 2, "fetch 1 images: sub-02_T2w"),
    "one lost": (("--datalad-get",), 66, 1, "datalad get ended with exit code 1: cp:"),
    "one participant": (("--datalad-get", "--participant-label", "02"), 0, 1, "fetch 1 images: sub-02_T2w"),
    "dry run": (("--datalad-get", "--dry-run"), 0, 0, ""),
}


@pytest.fixture(params=FETCHES)
def fetch(request, tmp_path, program, monkeypatch):
    """Make a dataset of dangling links, and a fake ``datalad`` that fetches their targets."""
    raw = make_dataset(tmp_path / "raw", {})
    (tmp_path / "annex").mkdir()
    for number, name in enumerate(GOOD):
        content = save(tmp_path / "remote" / Path(name).name, tiny_image(seed=number))
        (raw / name).parent.mkdir(parents=True)
        (raw / name).symlink_to(tmp_path / "annex" / content.name)
    program("datalad", DATALAD.format(folder=tmp_path))
    if "not installed" in request.param:
        monkeypatch.setenv("PATH", "/nothing")
    if request.param == "one lost":
        (tmp_path / "remote" / Path(GOOD[1]).name).unlink()
    return FETCHES[request.param]


@pytest.mark.skipif(sys.platform == "win32", reason="the program is a shell script")
def test_images_without_content_are_fetched_where_asked(fetch, tmp_path, call, capsys):
    options, code, done, says = fetch
    assert call("participant", *options) == code
    assert says in capsys.readouterr().err
    assert len(list((tmp_path / "out").glob("sub-*/anat/*_desc-T2w_dseg.nii.gz"))) == 2 * done
    assert len(list((tmp_path / "annex").iterdir())) == done


DROPPED = {
    "group": (("group",), "T2w_dseg.tsv", 66),
    "group of another participant": (("group", "--participant-label", "02"), "T2w_dseg.tsv", 0),
    "labels": (("participant",), "totalspineseg_desc-T2w_dseg.nii.gz", 66),
    "sidecar": (("participant",), "totalspineseg_desc-T2w_dseg.json", 66),
    "labels, processed again": (("participant", "--force"), "totalspineseg_desc-T2w_dseg.nii.gz", 0),
    "reports": (("participant", "--reports-only"), "totalspineseg_desc-T2w_dseg.json", 66),
    "figures": (("participant", "--reports-only"), "desc-T2w_thumbnail.png", 66),
}


@pytest.mark.parametrize("name", DROPPED)
def test_results_whose_content_was_dropped_are_named(name, tmp_path, call, capsys):
    options, dropped, code = DROPPED[name]
    make_dataset(tmp_path / "raw", {image: tiny_image() for image in (*GOOD, GOOD[0].replace("T2w", "T1w"))})
    assert call("participant") == 0
    (path,) = (tmp_path / "out").glob(f"sub-01/*/*{dropped}")
    path.unlink()
    path.symlink_to(tmp_path / "annex" / "gone")
    capsys.readouterr()
    assert call(*options) == code
    if code:
        last = capsys.readouterr().err.splitlines()[-1]
        assert path.name in last
        assert "datalad get" in last


HEAD = "participant_id\tsex\tage\n"
SITES = "participant_id\tsex\tage\tsite\nsub-01\tF\t40\tZürich\nsub-02\tF\t41\tGenève\n"
#: Table of participants, scores of the two sessions, and what the run says.
PARTICIPANTS: dict[str, tuple[str | bytes, tuple[str, str], str]] = {
    "UTF-16": (SITES.encode("utf-16"), ("2.50", "2.50"), "participants.tsv: is not UTF-8, read as utf-16"),
    "Windows 1252": (SITES.encode("cp1252"), ("2.50", "2.50"), "participants.tsv: is not UTF-8, read as cp1252"),
    "leading zeros lost": (HEAD + "1\tF\t40\n", ("2.50", "2.50"), "1 ids without leading zeros"),
    "numbers of a spreadsheet": (HEAD + "1.0\tF\t40\n", ("2.50", "2.50"), "such as sub-1.0 for"),
    "another person": (HEAD + "sub-001\tF\t40\nsub-01\tM\t40\n", ("n/a", "n/a"), ""),
    "two candidates": (HEAD + "1\tF\t40\n001\tF\t40\n", ("2.50", "2.50"), "ids without leading zeros"),
    "one row per session": (
        "participant_id\tsession_id\tsex\tage\nsub-01\tses-a\tF\t40\nsub-01\tses-b\tF\t60\n",
        ("2.50", "n/a"),
        "",
    ),
    "rows of sessions without a name": (HEAD + "sub-01\tF\t40\nsub-01\tF\t60\n", ("n/a", "n/a"), ""),
    "quotes of R": ('"participant_id"\t"sex"\t"age"\n"sub-01"\t"F"\t40\n', ("2.50", "2.50"), ""),
    "no ids": ("subject\tsex\nsub-01\tF\n", ("n/a", "n/a"), "has no column participant_id"),
}


@pytest.mark.parametrize("name", PARTICIPANTS)
def test_tables_of_participants_as_spreadsheets_leave_them(name, tmp_path, call, capsys):
    text, scores, says = PARTICIPANTS[name]
    out = tmp_path / "out"
    images = {f"sub-01/ses-{s}/anat/sub-01_ses-{s}_T2w.nii.gz": tiny_image(seed=i) for i, s in enumerate("ab")}
    raw = make_dataset(tmp_path / "raw", images)
    (raw / "participants.tsv").write_bytes(text if isinstance(text, bytes) else text.encode())
    norms = tmp_path / "norms.tsv"
    norms.write_text("measure\tlevel\tmean\tsd\tsex\tage_min\tage_max\nvolume\tL2-L3\t250\t20\tF\t30\t50\n")
    assert call("participant") == call("group", "--norms", str(norms)) == 0
    assert says in capsys.readouterr().err
    rows = read_table(out / "group_measures.tsv")
    assert tuple(row["z"] for row in rows if (row["level"], row["measure"]) == ("L2-L3", "volume")) == scores
    assert ("Zürich" in (out / "group.html").read_text(encoding="utf-8")) == isinstance(text, bytes)


@pytest.mark.parametrize("name", [b"Universit\xe4t", b"it's; my $HOME (2) & `more`"])
def test_folders_with_unusual_names(name, tmp_path, call):
    base = tmp_path / name.decode("utf-8", "surrogateescape")
    raw, out = make_dataset(base / "raw", dict.fromkeys(GOOD, tiny_image())), base / "out"
    assert [call(level, raw=raw, out=out) for level in ("participant", "group")] == [0, 0]
    assert len(list(out.glob("sub-*/anat/*_desc-T2w_dseg.nii.gz"))) == 4
    for path in (path for path in out.rglob("*") if path.suffix in {".json", ".tsv", ".html", ".toml"}):
        path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "environment", [{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"PYTHONIOENCODING": "ascii"}]
)
def test_a_terminal_that_is_not_utf8(tmp_path, environment):
    def start(*arguments):
        command = [sys.executable, *map(str, arguments)]
        return subprocess.run(command, check=False, capture_output=True, env={**os.environ, **environment})

    raw = make_dataset(tmp_path / "Zürich", {GOOD[0]: tiny_image()})
    options = ("participant", "--model", "bundled", "--dry-run")
    done = start("-m", "totalspineseg_bids", raw, tmp_path / "Ausgabe-ß", *options)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"to do\t{GOOD[0]}\n".encode()
    tool = "from totalspineseg_bids.cli.tools import main; raise SystemExit(main())"
    done = start("-c", tool, "segment", tmp_path / "ł.nii.gz", tmp_path / "ß.nii.gz")
    assert done.returncode == 66
    assert b"no such file" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(("below", "status"), [("C2-C3", "labelled"), ("C3-C4", "labelled"), (None, "no-spine")])
def test_an_image_of_the_head_costs_that_of_the_neck_nothing(below, status):
    step2 = ClassMap.named("r20241115-step2")
    column = make_column(last="T4")
    semantic = semantic_of(column.truth, step2)
    # The image ends in the middle of the vertebra above a disc.
    bottom = int(column.centre(below)[2]) + 8 if below else 0
    head = cropped(semantic if below else 0 * semantic, column.affine, 2, bottom)
    neck, head = (LabellingInput(*image, step2) for image in ((semantic, column.affine), head))
    (alone,) = label_session([neck])
    beside, together = label_session([head, neck])
    assert beside.status.value == status
    assert [(c.level, c.reason) for c in together.components] == [(c.level, c.reason) for c in alone.components]
    assert together.flags == alone.flags == ()
