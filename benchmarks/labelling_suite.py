"""The corruption suite of the labelling as one table.

Run ``python benchmarks/labelling_suite.py [--singles 10] [--pairs 150] [--blind 40] [--split report]``. Each kind of
damage meets synthetic spines (``tests/segmentation/suite``) in whole and partial views and both public layouts of
step 2, alone and in pairs. Columns:

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

Images of which the map shows no landmark in its place are counted apart ("nothing right to go by").
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.segmentation.suite.cases import Plan, make_all, plans
from tests.segmentation.suite.score import Row, Score, score, total
from tests.segmentation.suite.subjects import Case
from totalspineseg_bids.segmentation.labelling import label_map
from totalspineseg_bids.segmentation.result import LabelledSpine

BLIND = "no landmark in view"
UNANCHORED = "nothing right to go by"


def label_case(case: Case) -> LabelledSpine:
    """Label a case with this project's labelling."""
    return label_map(case.semantic, case.affine, case.layout, support=case.support)


def run(listed: list[Plan]) -> Iterator[tuple[Plan, Case, Score, float]]:
    """Label and score every case; yields the processor time of the labelling with it."""
    for plan, case in make_all(listed):
        start = time.process_time()
        spine = label_case(case)
        yield plan, case, score(case, spine), time.process_time() - start


def line(name: str, row: Row) -> str:
    """Format a row of the table."""
    rates = row.rates()
    return f"{name:34s} {row.cases:5d} " + " ".join(f"{100 * rates[key]:9.1f}" for key in rates)


def main() -> None:
    """Print the table and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--singles", type=int, default=10, help="cases a kind of damage")
    parser.add_argument("--pairs", type=int, default=150, help="cases of two damages")
    parser.add_argument("--blind", type=int, default=40, help="cases without a landmark")
    parser.add_argument("--split", choices=("fit", "report"), default="report")
    parser.add_argument("--kind", action="append", help="only kinds whose name holds this text")
    parser.add_argument("--errors", action="store_true", help="list what is not right, case by case")
    parser.add_argument("--tsv", type=Path, help="write the table")
    parser.add_argument("--json", type=Path, help="write every case")
    options = parser.parse_args()
    listed = plans(options.split, options.singles, options.pairs, options.blind)
    if options.kind:
        listed = [p for p in listed if any(text in p.kind for text in options.kind)]
    rows: dict[tuple[str, str], Row] = defaultdict(Row)
    records = []
    spent = 0.0
    for plan, case, result, seconds in run(listed):
        spent += seconds
        group = plan.group if plan.group == "blind" or result.anchored else "unanchored"
        kind = {"pair": "two damages", "unanchored": UNANCHORED, "blind": BLIND}.get(group, plan.kind)
        rows[group, kind].add(result)
        record = {"group": group, "kind": plan.kind, "seed": plan.seed, "view": case.view, "layout": case.layout.name}
        records.append({**record, **vars(result)})
        if options.errors and not result.all_right and group != "blind":
            state = "abstained" if result.abstained else f"{result.silent} silent"
            what = f"{group} {plan.kind} #{plan.seed} {case.view} {case.layout.name}"
            print(
                f"  {what}: {state}; {' '.join(result.errors)}",
                flush=True,
            )
    report(rows, options.tsv)
    print(f"labelling took {spent:.0f} s of processor time for {len(records)} images")
    if options.json:
        options.json.write_text(json.dumps(records, indent=1))


def report(rows: dict[tuple[str, str], Row], tsv: Path | None) -> None:
    """Print the table by kind and its sums."""
    names = ("all right", "identif.", "abstain.", "wrong", "silent", "sure right")
    print(f"{'kind':34s} {'n':>5s} " + " ".join(f"{name:>9s}" for name in names))
    table = [(kind, row) for (group, kind), row in rows.items() if group == "single"]
    table.append(("ALL SINGLE DAMAGES", total([row for (group, _), row in rows.items() if group == "single"])))
    table += [(kind, row) for (group, kind), row in rows.items() if group != "single"]
    for kind, row in table:
        print(line(kind, row))
    if tsv:
        first = table[0][1].rates()
        lines = ["\t".join(["kind", "images", *first])]
        lines += ["\t".join([kind, str(row.cases), *(f"{v:.4f}" for v in row.rates().values())]) for kind, row in table]
        tsv.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
