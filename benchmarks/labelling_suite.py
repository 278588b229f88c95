"""The corruption suite of the labelling as one table.

Run ``python benchmarks/labelling_suite.py [--singles 10] [--pairs 150] [--blind 40] [--split report]``. Each kind of
damage meets synthetic spines (``totalspineseg_bids.evaluation.corruption``) in whole and partial views and both
public layouts of step 2, alone and in pairs. Columns:

all right
    images in which every structure has its own name
identified
    structures with their own name
abstained
    images without names
wrong
    images with a wrong name
silent
    images with a wrong name that no warning comes with
sure right
    components with a confidence of 0.9 or more that are right

Images without a correctly placed landmark in the map are counted apart ("no correct landmark"). Below the table
stand the confidences of all named structures of the other images against how many of them are right.

``--sessions 20`` labels sessions of two images instead (``evaluation.corruption.sessions``), that many a kind, and adds
the column

consistent
    sessions whose images do not contradict each other: no structure has two names of which one carries no reason, and
    no image names with certainty what the other leaves unnamed (but where the images are displaced by up to two levels)
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from totalspineseg_bids.evaluation.corruption.cases import Plan, make_all, plans
from totalspineseg_bids.evaluation.corruption.score import Score, rates, score
from totalspineseg_bids.evaluation.corruption.sessions import KINDS, contradictions, make_session
from totalspineseg_bids.segmentation.labelling import label_map, label_session

BLIND = "no landmark in view"
UNANCHORED = "no correct landmark"
_COLUMNS = ("all right", "identif.", "abstain.", "wrong", "silent", "sure right")
_BINS = (0.0, 0.7, 0.8, 0.9, 0.95, 0.99, 1.01)


class Outcome(NamedTuple):
    """One case, labelled and scored; ``seconds`` is the processor time of the labelling."""

    plan: Plan
    view: str
    layout: str
    score: Score
    seconds: float


def run_maps(listed: list[Plan]) -> Iterator[Outcome]:
    """Label and score semantic maps."""
    for plan, case in make_all(listed):
        start = time.process_time()
        spine = label_map(case.semantic, case.affine, case.layout, support=case.support)
        yield Outcome(plan, case.view, case.layout.name, score(case, spine), time.process_time() - start)


def run_sessions(number: int, split: str, only: list[str] | None, *, errors: bool) -> None:
    """Label sessions and print a row per kind."""
    print(f"{'kind of session':34s} {'img':>5s} " + " ".join(f"{name:>9s}" for name in (*_COLUMNS, "consistent")))
    rows: list[list[Score]] = []
    agreed: list[bool] = []
    for kind in KINDS:
        if only and not any(text in kind for text in only):
            continue
        rows.append([])
        here = []
        for seed in range(number):
            session = make_session(kind, seed, split)
            spines = label_session([case.as_input for case in session])
            scores = [score(case, spine) for case, spine in zip(session, spines, strict=True)]
            found = contradictions(scores, displaced=KINDS[kind].shift_mm[0] > 0)
            here.append(not found)
            for case, result in zip(session, scores, strict=True):
                rows[-1].append(result)
                if errors and (result.wrong or found):
                    state = "abstained" if result.abstained else f"{result.silent} silent"
                    damages = " + ".join(case.damages) or "undamaged"
                    print(f"  {kind} #{seed} {case.view} {case.layout.name} {damages}: {state};", *result.errors)
            if errors and found:
                print("    contradictions:", *found, flush=True)
        print(f"{line(kind, rows[-1])} {100 * np.mean(here):9.1f}", flush=True)
        agreed += here
    print(f"{line('ALL SESSIONS', list(itertools.chain(*rows)))} {100 * np.mean(agreed):9.1f}")


def line(name: str, scores: list[Score]) -> str:
    """Format a row of the table."""
    return f"{name:34s} {len(scores):5d} " + " ".join(f"{100 * rate:9.1f}" for rate in rates(scores).values())


def main() -> None:
    """Print the table and write the requested files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--singles", type=int, default=10, help="cases a kind of damage")
    parser.add_argument("--pairs", type=int, default=150, help="cases of two damages")
    parser.add_argument("--blind", type=int, default=40, help="cases without a landmark")
    parser.add_argument("--split", choices=("fit", "report"), default="report")
    parser.add_argument("--sessions", type=int, metavar="N", help="only sessions, N of each kind")
    parser.add_argument("--kind", action="append", help="only kinds whose name holds this text")
    parser.add_argument("--errors", action="store_true", help="list what is not right, case by case")
    parser.add_argument("--tsv", type=Path, help="write the table")
    parser.add_argument("--json", type=Path, help="write every case")
    options = parser.parse_args()
    if options.sessions:
        run_sessions(options.sessions, options.split, options.kind, errors=options.errors)
        return
    listed = plans(options.split, options.singles, options.pairs, options.blind)
    if options.kind:
        listed = [p for p in listed if any(text in p.kind for text in options.kind)]
    rows: dict[tuple[str, str], list[Score]] = defaultdict(list)
    records, confidences = [], []
    spent = 0.0
    for plan, view, layout, result, seconds in run_maps(listed):
        spent += seconds
        group = plan.group if plan.group == "blind" or result.anchored else "unanchored"
        kind = {"pair": "two damages", "unanchored": UNANCHORED, "blind": BLIND}.get(group, plan.kind)
        rows[group, kind].append(result)
        if group in {"single", "pair"}:
            confidences += result.confidences
        record = {"group": group, "kind": plan.kind, "seed": plan.seed, "view": view, "layout": layout}
        records.append({**record, **vars(result)})
        if options.errors and not result.all_right and group != "blind":
            state = "abstained" if result.abstained else f"{result.silent} silent"
            print(f"  {group} {plan.kind} #{plan.seed} {view} {layout}: {state};", *result.errors, flush=True)
    report(rows, options.tsv)
    report_calibration(confidences)
    print(f"labelling took {spent:.0f} s of processor time for {len(records)} images")
    if options.json:
        options.json.write_text(json.dumps(records, indent=1, default=int))


def report_calibration(confidences: list[tuple[float, bool]]) -> None:
    """Print how many of the named structures are right, by their confidence."""
    if not confidences:
        return
    table = np.array(confidences, float)
    print(f"{'confidence':>12s} {'named':>7s} {'mean':>7s} {'right':>7s}")
    for low, high in itertools.pairwise(_BINS):
        inside = table[(table[:, 0] >= low) & (table[:, 0] < high)]
        if len(inside):
            mean, right = inside.mean(axis=0)
            print(f"{low:5.2f} - {min(high, 1):4.2f} {len(inside):7d} {mean:7.3f} {right:7.3f}")


def report(rows: dict[tuple[str, str], list[Score]], tsv: Path | None) -> None:
    """Print the table by kind and its sums."""
    print(f"{'kind':34s} {'n':>5s} " + " ".join(f"{name:>9s}" for name in _COLUMNS))
    table = [(kind, row) for (group, kind), row in rows.items() if group == "single"]
    table.append(("ALL SINGLE DAMAGES", [s for (group, _), row in rows.items() if group == "single" for s in row]))
    table += [(kind, row) for (group, kind), row in rows.items() if group != "single"]
    for kind, row in table:
        print(line(kind, row))
    if tsv:
        lines = ["\t".join(["kind", "images", *rates([])])]
        lines += ["\t".join([kind, str(len(row)), *(f"{v:.4f}" for v in rates(row).values())]) for kind, row in table]
        tsv.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
