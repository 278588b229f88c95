"""``totalspineseg-tools segment`` and ``label``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, cast

from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import LabelScheme
from totalspineseg_bids.cli.bids_app import add_setting
from totalspineseg_bids.cli.tools_common import (
    Subparsers,
    add_label_scheme,
    add_model,
    add_subcommand,
    fill_model,
    say,
)
from totalspineseg_bids.config import SETTINGS, check_dicom_dir
from totalspineseg_bids.errors import ExitCode, UsageError


def add_subcommands(subparsers: Subparsers) -> None:
    """Add the subcommands."""
    segment = add_subcommand(
        subparsers,
        "segment",
        _segment,
        "segment and label images: a file, a folder of images, or nested sub-*/anat folders",
        "Output files are named like their inputs. A file that cannot be used does not stop the others. "
        "Each image gets its labels and a JSON file with status, reason, levels and confidence; an image without a "
        "spine gets only the JSON file.",
    )
    segment.add_argument("input", type=Path, metavar="IN", help="NIfTI image or folder")
    segment.add_argument("output", type=Path, metavar="OUT", help="output image or folder")
    add_model(segment)
    add_label_scheme(segment, "in the output")
    segment.add_argument(
        "--localizer", type=Path, metavar="LABELLED", help="labelled image of the same participant (IN must be a file)"
    )
    segment.add_argument("--points", action="store_true", help="write an image of the disc points (NAME_points.nii.gz)")
    segment.add_argument(
        "--probabilities",
        action="store_true",
        help="write the probabilities of cord and canal (NAME_label-SC_probseg.nii.gz and …label-canal…)",
    )
    segment.add_argument("--report", action="store_true", help="no effect; the JSON file is always written")
    for name in ("volume", "export", "dicom_dir"):
        add_setting(segment, SETTINGS[name])
    segment.add_argument(
        "--skip-existing",
        action="store_true",
        help="skip images whose output exists, or whose JSON file says that they show no spine",
    )

    label = add_subcommand(
        subparsers,
        "label",
        _label,
        "label the levels in a semantic map of step 1, step 2 or the single-step model",
        "If the evidence does not decide the levels, components are numbered instead; this is not an error.",
    )
    label.add_argument("segmentation", type=Path, metavar="SEG", help="semantic map (NIfTI)")
    label.add_argument("output", type=Path, metavar="OUT", help="labelled image (NIfTI)")
    label.add_argument(
        "--layout", required=True, metavar="NAME|dataset.json", help="classes of the map, such as r20240601-step2"
    )
    add_label_scheme(label, "in the output and the localizer")
    label.add_argument("--localizer", type=Path, metavar="LABELLED", help="labelled image of the same participant")
    label.add_argument(
        "--report", type=Path, metavar="OUT.json", help="write levels, confidence and reasons to this file"
    )


def _segment(**options: Any) -> int:
    from totalspineseg_bids.app.interrupt import stop_on_signal

    # Includes the imports, so that a signal while libraries load ends the run in the same way.
    with stop_on_signal():
        return _segment_files(argparse.Namespace(**options))


def _setting(options: argparse.Namespace, name: str) -> object:
    setting, given = SETTINGS[name], getattr(options, name)
    return setting.validate(setting.default if given is None else given)


def _segment_files(options: argparse.Namespace) -> int:
    from totalspineseg_bids.app.files import (
        FileOptions,
        check_results,
        find_file_jobs,
        is_file_done,
        segment_files,
    )
    from totalspineseg_bids.app.segmenter import make_segmenter
    from totalspineseg_bids.imaging.io import VolumeChoice
    from totalspineseg_bids.progress import bar
    from totalspineseg_bids.segmentation.localizer import read_localizer

    jobs = find_file_jobs(options.input, options.output)
    volume = cast("VolumeChoice", _setting(options, "volume"))
    export, dicom_dir = cast("tuple[str, ...]", _setting(options, "export")), cast("Path | None", options.dicom_dir)
    check_dicom_dir(export, dicom_dir)
    if options.localizer is not None and options.input.is_dir():
        msg = "--localizer applies to one image; give a file as IN"
        raise UsageError(msg)
    scheme = options.label_scheme
    localizer = options.localizer and read_localizer(options.localizer, scheme)
    if options.skip_existing:
        jobs = [job for job in jobs if not is_file_done(job)]
    if not jobs:
        say("nothing to do: every output exists")
        return ExitCode.SUCCESS
    fill_model(options)
    segmenter, models = make_segmenter(options)
    outcomes = []
    with bar(total=len(jobs), desc="segment") as progress:
        outputs = FileOptions(
            *(scheme, localizer, volume, options.points, options.probabilities), export, dicom_dir, models.name
        )
        for outcome in segment_files(jobs, segmenter, outputs):
            outcomes.append(outcome)
            progress.update()
            progress.clear()
            say(outcome.line)
    return check_results(outcomes)


def _label(
    segmentation: Path,
    output: Path,
    *,
    layout: str,
    label_scheme: LabelScheme,
    localizer: Path | None,
    report: Path | None,
) -> None:
    from totalspineseg_bids.app.files import check_output, describe, write_report
    from totalspineseg_bids.imaging.io import load_labels, write_labels
    from totalspineseg_bids.segmentation.class_map import ClassMap
    from totalspineseg_bids.segmentation.labelling import label_map
    from totalspineseg_bids.segmentation.localizer import read_localizer

    check_output(segmentation, output)
    class_map = ClassMap.resolve(layout)
    loaded = load_labels(segmentation)
    semantic = loaded.volume
    class_map.check_values(semantic.data, segmentation)
    known = read_localizer(localizer, label_scheme) if localizer else None
    spine = label_map(semantic.data, semantic.affine, class_map, localizer=known)
    labels = anatomy.to_scheme(spine.labels, label_scheme)
    write_labels(output, labels, semantic.affine, loaded.header, keep_units=True)
    if report is not None:
        write_report(report, spine, label_scheme)
    say(describe(output.name, spine))
