"""Measure the accuracy of the level prior and fit the weight of its evidence.

``python benchmarks/calibrate_level_prior.py [--model bundled]``: draws fields of view of unseen spines, runs
the level prior, and compares its levels with the ground truth. Prints the share of levels that are right and within
one; the levels off, counted; and ``prior_end_weight`` and ``prior_budget`` of
``labelling.column.parameters.EvidenceWeights``, fitted by maximum likelihood:
the weights of the prior's log-likelihoods of components at the ends of the column (each) and of the others (all
together) that predict best whether the column is shifted.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize

from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import Structure
from totalspineseg_bids.cli.tools_common import positive
from totalspineseg_bids.imaging.grid import to_canonical
from totalspineseg_bids.imaging.io import read_labels
from totalspineseg_bids.inference.model import load_model
from totalspineseg_bids.inference.options import InferenceOptions
from totalspineseg_bids.inference.predictor import Predictor
from totalspineseg_bids.models.registry import resolve
from totalspineseg_bids.progress import bar
from totalspineseg_bids.segmentation.labelling.column.parameters import PRIOR_END_LEVELS, EvidenceWeights
from totalspineseg_bids.synthesis.appearance import render
from totalspineseg_bids.synthesis.dataset import EVALUATION_DOMAIN
from totalspineseg_bids.synthesis.parametric import make_spine
from totalspineseg_bids.synthesis.pose import Warp, sample
from totalspineseg_bids.training.synthetic.augment import acquire, draw_contrast_name
from totalspineseg_bids.training.synthetic.level_prior_patches import draw_view
from totalspineseg_bids.training.synthetic.patch_dataset import TRAINING_POSE

#: x, y, z; mm.
SPACING = (5.0, 3.5, 3.0)
SLICES = 5
#: Largest shift of the column that is distinguished, levels.
SHIFTS = 6
ORDER = {
    Structure.VERTEBRA: {level: rank for rank, level in enumerate(anatomy.VERTEBRA_LEVELS)},
    Structure.DISC: {level: rank for rank, level in enumerate(anatomy.DISC_LEVELS)},
}


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure and calibrate the level prior.")
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--views", type=positive, default=120, help="fields of view (default: %(default)s)")
    parser.add_argument("--spines", type=positive, default=8, help="spines they are drawn from (default: %(default)s)")
    parser.add_argument("--label-maps", type=Path, help="folder of label maps to draw from instead")
    parser.add_argument("--seed", type=int, default=11)
    return parser.parse_args()


def bodies(options: argparse.Namespace) -> list[np.ndarray]:
    """Return the label maps to draw from."""
    if options.label_maps is not None:
        return [to_canonical(read_labels(file)).data for file in sorted(options.label_maps.glob("*.nii.gz"))]
    seeds = np.random.SeedSequence([EVALUATION_DOMAIN, options.seed]).spawn(options.spines)
    return [make_spine(np.random.default_rng(seed)).data for seed in seeds]


def disc_centres(labels: np.ndarray) -> np.ndarray:
    """Return the centres of the discs, voxels, shape (N, 3)."""
    discs = [anatomy.disc(level).id for level in anatomy.DISC_LEVELS]
    return np.array([np.argwhere(labels == label).mean(axis=0) for label in discs if (labels == label).any()])


class LevelPrediction(NamedTuple):
    """Output of the prior for one level in the field of view."""

    shares: dict[int, float]
    """Probability of each number of levels away."""
    is_end: bool
    """True if the most probable level is at an end of the column."""


def level_predictions(truth: np.ndarray, probabilities: np.ndarray, names: tuple[str, ...]) -> list[LevelPrediction]:
    """Return the prediction of each level in the field of view."""
    predictions = []
    for structure, prefix in ((Structure.VERTEBRA, "vertebrae_"), (Structure.DISC, "disc_")):
        order = ORDER[structure]
        rows = {
            name.removeprefix(prefix).replace("_", "-"): n for n, name in enumerate(names) if name.startswith(prefix)
        }
        for level in rows:
            label = anatomy.vertebra(level) if structure is Structure.VERTEBRA else anatomy.disc(level)
            voxels = truth == label.id
            if np.count_nonzero(voxels) < 8:
                continue
            mean = {other: float(probabilities[row][voxels].mean()) for other, row in rows.items()}
            total = max(sum(mean.values()), 1e-9)
            shares = {order[other] - order[level]: share / total for other, share in mean.items()}
            predictions.append(LevelPrediction(shares, max(mean, key=lambda other: mean[other]) in PRIOR_END_LEVELS))
    return predictions


def log_likelihoods(predictions: list[LevelPrediction], weights: EvidenceWeights) -> np.ndarray:
    """Return the log-likelihood of each shift, shape (2, 2 SHIFTS + 1): sum over the ends, mean over the others."""
    table = np.array([weights.prior_hit, *weights.prior_slip])
    shifts = np.arange(-SHIFTS, SHIFTS + 1)
    total = np.zeros((2, len(shifts)))
    for shares, is_end in predictions:
        likelihood = sum(share * table[np.minimum(np.abs(shifts - away), 3)] for away, share in shares.items())
        total[int(not is_end)] += np.log(np.maximum(likelihood, weights.prior_slip[-1]))
    total[1] /= max(sum(not t.is_end for t in predictions), 1)
    return total


def main() -> int:
    """Run the benchmark."""
    options = parse()
    scout = resolve(options.model, need=["single"]).require("scout")
    predictor = Predictor(load_model(scout), InferenceOptions(threads=1))
    rng = np.random.default_rng(options.seed)
    maps = bodies(options)
    centres = [disc_centres(labels) for labels in maps]
    away: Counter[int] = Counter()
    means = []
    with bar(total=options.views, desc="views") as progress:
        for number in range(options.views):
            labels, discs = maps[number % len(maps)], centres[number % len(maps)]
            centre, (depth, length) = draw_view(discs, rng)
            centre[0] = discs[:, 0].mean()
            shape = (SLICES, round(depth / SPACING[1]), round(length / SPACING[2]))
            posed = sample(labels, centre, shape, SPACING, Warp.draw(shape, SPACING, rng, TRAINING_POSE))
            image = acquire(render(posed, rng, contrast=draw_contrast_name(rng), spacing=SPACING), rng, SPACING)
            found = predictor.predict_coarse(image[None], SPACING)
            predictions = level_predictions(posed, found.probabilities, found.names)
            away.update(max(t.shares, key=lambda k: t.shares[k]) for t in predictions)
            if len(predictions) > 2:
                means.append(log_likelihoods(predictions, EvidenceWeights()))
            progress.update()
    total = sum(away.values())
    near = sum(away[k] for k in (-1, 0, 1))
    print(f"{options.views} fields of view, {total} levels: right {away[0] / total:.3f}, within one {near / total:.3f}")
    print("levels off: " + ", ".join(f"{k:+d}: {away[k]}" for k in sorted(away)))
    stack = np.stack(means)
    in_use = np.array([EvidenceWeights().prior_end_weight, EvidenceWeights().prior_budget])

    def cost(weights: np.ndarray) -> float:
        scaled = np.tensordot(stack, weights, axes=(1, 0))
        return float((np.logaddexp.reduce(scaled, axis=1) - scaled[:, SHIFTS]).mean())

    right = float((np.tensordot(stack, in_use, axes=(1, 0)).argmax(axis=1) == SHIFTS).mean())
    fitted = minimize(lambda x: cost(np.exp(x)), np.log(in_use), method="Nelder-Mead")  # type: ignore[call-overload]
    end, views = np.exp(fitted.x)
    print(f"columns whose best shift is none: {right:.3f}")
    print("mean probability of the true shift")
    print(f"  fitted: prior_end_weight {end:.2f}, prior_budget {views:.2f}: {math.exp(-fitted.fun):.2f}")
    print(f"  in use: prior_end_weight {in_use[0]}, prior_budget {in_use[1]}: {math.exp(-cost(in_use)):.2f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
