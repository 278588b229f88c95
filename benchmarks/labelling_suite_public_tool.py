"""Run the corruption suite on the labelling of the public tool, if it is installed.

The tool (``totalspineseg`` on PyPI) is no dependency of this project: make it an environment of its own, and give its
interpreter here::

    python -m venv peer
    peer/bin/pip install torch totalspineseg nnunetv2
    python benchmarks/labelling_suite_public_tool.py --python peer/bin/python [--singles 10] [--pairs 150]

The maps are the very ones of ``labelling_suite.py`` (same seeds). Each layout goes through the tool's iterative
labelling in one call, with the options that its own inference gives it for a map of step 2. What it writes nothing for
counts as abstained; it gives no warnings, so that every wrong name is a silent one.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import nibabel as nib
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from labelling_suite import BLIND, UNANCHORED, report

from totalspineseg_bids import anatomy
from totalspineseg_bids.evaluation.corruption.cases import LAYOUTS, Plan, make, plans
from totalspineseg_bids.evaluation.corruption.score import Score, score
from totalspineseg_bids.segmentation.class_map import ClassMap
from totalspineseg_bids.segmentation.result import LabelledSpine, SpineStatus

#: What the tool writes for discs C2-C3, C7-T1, T12-L1, L5-S and vertebrae C3, T1, L1, sacrum.
_DISC_IDS, _VERTEBRA_IDS = ("63", "71", "91", "100"), ("13", "21", "41", "50")
_LANDMARKS = ("disc_C2_C3", "disc_C7_T1", "disc_T12_L1", "disc_L5_S")


def options_for(layout: ClassMap) -> list[str]:
    """Return the options of the tool's iterative labelling for a layout of step 2."""

    def values(role: str) -> list[str]:
        return [str(v) for v in layout.values_of(role)]

    landmarks = [str(layout.labels[name][0]) for name in _LANDMARKS]
    undecided, sacrum = str(layout.labels["vertebrae"][0]), str(layout.labels["sacrum"][0])
    cord = str(layout.labels["cord"][0])
    vertebrae = [v for v in values("vertebrae") if v != undecided] + [sacrum]
    # C2-C3 and L5-S first, then the other two.
    chosen = [landmarks[k] for k in (0, 3, 1, 2)]
    return [
        *("--selected-disc-landmarks", *chosen),
        *("--disc-labels", *values("disc")),
        *("--disc-landmark-labels", *landmarks),
        *("--disc-landmark-output-labels", *_DISC_IDS),
        *("--vertebrae-labels", *vertebrae),
        *("--vertebrae-landmark-output-labels", *_VERTEBRA_IDS),
        *("--vertebrae-extra-labels", undecided),
        *("--canal-labels", *(v for v in values("canal") if v != cord), "--canal-output-label", "2"),
        *("--cord-labels", cord, "--cord-output-label", "1"),
        *("--sacrum-labels", sacrum, "--sacrum-output-label", "50"),
    ]


def run_tool(python: Path, source: Path, target: Path, layout: ClassMap) -> float:
    """Label all maps of a folder; returns the seconds it took."""
    code = "from totalspineseg.utils.iterative_label import main; main()"
    command = [
        str(python),
        "-c",
        code,
        "-s",
        str(source),
        "-o",
        str(target),
        *options_for(layout),
        "-r",
        "-q",
        "-w",
        "1",
    ]
    start = time.perf_counter()
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        msg = f"{python}: the public tool failed ({last}); is totalspineseg installed there?"
        raise SystemExit(msg)
    return time.perf_counter() - start


def result_of(path: Path, shape: tuple[int, ...], affine: np.ndarray) -> LabelledSpine:
    """Convert the output of the tool to our result type; no output is an abstention."""
    if not path.exists():
        return LabelledSpine(np.zeros(shape, np.uint8), affine, (), SpineStatus.ABSTAINED, reason="no output")
    labels = anatomy.from_scheme(np.asarray(nib.load(path).dataobj).astype(np.int64), "totalspineseg")
    return LabelledSpine(labels, affine, (), SpineStatus.LABELLED)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=Path, required=True, help="interpreter of the environment with the tool")
    parser.add_argument("--singles", type=int, default=10)
    parser.add_argument("--pairs", type=int, default=150)
    parser.add_argument("--blind", type=int, default=40)
    parser.add_argument("--split", choices=("fit", "report"), default="report")
    parser.add_argument("--tsv", type=Path, help="write the table")
    options = parser.parse_args()
    listed = plans(options.split, options.singles, options.pairs, options.blind)
    rows: dict[tuple[str, str], list[Score]] = defaultdict(list)
    spent = 0.0
    with tempfile.TemporaryDirectory() as folder:
        made: dict[str, list[tuple[int, Plan]]] = defaultdict(list)
        for n, plan in enumerate(listed):
            case = make(plan)
            if case is None:
                continue
            source = Path(folder) / case.layout.name
            source.mkdir(exist_ok=True)
            nib.Nifti1Image(case.semantic, case.affine).to_filename(source / f"{n:05d}.nii.gz")
            made[case.layout.name].append((n, plan))
        for name in LAYOUTS:
            if not made[name]:
                continue
            source, target = Path(folder) / name, Path(folder) / f"{name}-out"
            spent += run_tool(options.python, source, target, ClassMap.named(name))
            for n, plan in made[name]:
                case = make(plan)
                assert case is not None
                spine = result_of(target / f"{n:05d}.nii.gz", case.semantic.shape, case.affine)
                result = score(case, spine)
                group = plan.group if plan.group == "blind" or result.anchored else "unanchored"
                kind = {"pair": "two damages", "unanchored": UNANCHORED, "blind": BLIND}.get(group, plan.kind)
                rows[group, kind].append(result)
    report(rows, options.tsv)
    print(
        f"the tool took {spent:.0f} s of wall time for {sum(map(len, made.values()))} images, reading and writing too"
    )


if __name__ == "__main__":
    main()
