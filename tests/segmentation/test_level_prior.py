"""Evidence of a level prior."""

from dataclasses import replace

import numpy as np
import pytest

from totalspineseg_bids.anatomy import Structure
from totalspineseg_bids.segmentation.class_map import ClassMap, LabelMeaning
from totalspineseg_bids.segmentation.labelling.column.cross_check import solve
from totalspineseg_bids.segmentation.labelling.column.levels import solve_levels
from totalspineseg_bids.segmentation.labelling.column.naming import name_components
from totalspineseg_bids.segmentation.labelling.column.parameters import EvidenceWeights
from totalspineseg_bids.segmentation.labelling.column.rejection import rejection_costs
from totalspineseg_bids.segmentation.labelling.components.level_prior import LevelPrior, with_level_prior
from totalspineseg_bids.segmentation.labelling.records import ComponentVoxels
from totalspineseg_bids.segmentation.result import SpineStatus

from .observations import canal_extent, column_of, make_observation

NAMES = ("background", "disc_L3_L4", "disc_L4_L5", "vertebrae_L4", "canal")
LAYOUT = ClassMap.from_labels({name: value for value, name in enumerate(NAMES)})


def _grid(affine=None):
    """Coarse grid of 6 x 4 x 20 voxels of 5 x 4 x 3 mm: disc L3-L4 above, L4 in the middle, L4-L5 below."""
    probabilities = np.zeros((len(NAMES), 6, 4, 20), np.float32)
    probabilities[0] = 1.0
    for row, part in ((2, slice(2, 4)), (3, slice(4, 12)), (1, slice(12, 14))):
        probabilities[:, :, :, part] = 0.0
        probabilities[row, :, :, part] = 0.7
        probabilities[1 if row == 2 else 2, :, :, part] = 0.1
        probabilities[0, :, :, part] = 0.2
    affine = np.eye(4) if affine is None else affine
    return LevelPrior.from_classes(probabilities, NAMES, LAYOUT, affine @ np.diag([5.0, 4.0, 3.0, 1.0]))


def _levels_of(kind, rows, prior=None, affine=None):
    """Return what a prior says of a component of a kind between two rows of the image."""
    empty = ComponentVoxels(np.zeros((0, 3), np.int64), np.zeros(0, np.int64), ())
    index = np.argwhere(np.ones((10, 10, rows[1] - rows[0]), bool)) + np.array([8, 3, rows[0]])
    own = ComponentVoxels(index, np.zeros(len(index), np.int64), ())
    parts = tuple(own if k is kind else empty for k in (Structure.DISC, Structure.VERTEBRA, Structure.SACRUM))
    affine = np.eye(4) if affine is None else affine
    (found,) = with_level_prior([make_observation(kind, 10.0)], parts, affine, prior or _grid())
    return found.level_prior


TURNED = np.array([[0, -1, 0, 40.0], [1, 0, 0, 7.0], [0, 0, 1, -3.0], [0, 0, 0, 1.0]])


@pytest.mark.parametrize(
    ("kind", "rows", "expected"),
    [
        pytest.param(Structure.DISC, (37, 40), {"L3-L4": 7 / 8, "L4-L5": 1 / 8}, id="disc"),
        pytest.param(Structure.VERTEBRA, (14, 30), {"L4": 1.0}, id="vertebra"),
        pytest.param(Structure.DISC, (500, 520), {}, id="outside"),
        pytest.param(Structure.DISC, (0, 3), {}, id="on background"),
    ],
)
def test_components_get_the_mean_probability_of_their_kind_at_their_place_in_the_scanner(kind, rows, expected):
    assert _levels_of(kind, rows) == pytest.approx(expected, abs=1e-5)
    # The grids need share nothing but scanner space.
    assert _levels_of(kind, rows, _grid(TURNED), TURNED) == pytest.approx(expected, abs=1e-5)


def test_names_that_no_level_has_are_no_level():
    scout = LevelPrior.from_classes(np.zeros((2, 1, 1, 1), np.float32), ("background", "canal"), LAYOUT, np.eye(4))
    assert scout.meanings == (None, LabelMeaning(Structure.CANAL))


def _without_landmarks(first, last):
    names, observations = column_of(first, last, landmarks=set())
    return names, [replace(o, class_shares=tuple(replace(v, levels={}) for v in o.class_shares)) for o in observations]


def _solve(observations):
    solution = solve(observations, canal_extent(observations))
    return solution, name_components(observations, solution)


def test_a_scout_names_a_column_without_landmarks():
    names, observations = _without_landmarks("T4", "T11")
    assert _solve(observations)[1].status is SpineStatus.ABSTAINED
    solution, naming = _solve([replace(o, level_prior={n: 0.85}) for n, o in zip(names, observations, strict=True)])
    assert naming.status is SpineStatus.LABELLED
    assert list(solution.levels) == names


def test_a_scout_that_hesitates_between_neighbours_does_not_decide():
    _names, observations = _without_landmarks("T4", "T11")
    bodies = [o for o in observations if o.kind is Structure.VERTEBRA]
    priors = {o.s: {f"T{4 + n}": 0.5, f"T{5 + n}": 0.5} for n, o in enumerate(bodies)}
    mixed = [replace(o, level_prior=priors.get(o.s, {})) for o in observations]
    assert _solve(mixed)[1].status is SpineStatus.ABSTAINED


def _shifted(names, observations, by):
    """Return the components with a prior that is shifted: each has the level ``by`` places below in its kind."""
    informed = []
    for kind in Structure:
        rows = [n for n, o in enumerate(observations) if o.kind is kind]
        levels = {n: names[rows[k + by]] for k, n in enumerate(rows) if 0 <= k + by < len(rows)}
        informed += [replace(observations[n], level_prior={levels[n]: 0.95} if n in levels else {}) for n in rows]
    return sorted(informed, key=lambda o: o.s)


def test_a_scout_alone_adds_no_vertebra():
    """A lumbar column with its sacrum, and a prior shifted by one: L5 would have to be L6."""
    names, observations = column_of("T11", "S")
    informed = _shifted(names, observations, 1)
    assert solve_levels(informed, canal_extent(informed)).variant.lumbar == 6
    solution = solve(informed, canal_extent(informed))
    assert list(solution.levels) == names
    assert "L6" in solution.disputed
    naming = name_components(informed, solution)
    assert any("level prior" in (reason or "") for reason in naming.reasons)


def test_names_that_a_scout_and_the_landmarks_dispute_come_with_a_warning(monkeypatch):
    names, observations = column_of("T2", "L2", landmarks={"T12-L1"})
    informed = _shifted(names, observations, -1)
    strong = EvidenceWeights(prior_end_weight=4.0, prior_end_budget=12.0, prior_budget=30.0)
    monkeypatch.setattr("totalspineseg_bids.segmentation.labelling.column.evidence.WEIGHTS", strong)
    solution = solve(informed, canal_extent(informed))
    naming = name_components(informed, solution)
    assert naming.status is SpineStatus.LABELLED
    wrong = [n for n, name in enumerate(names) if solution.levels[n] != name]
    assert wrong
    assert all("level prior" in (naming.reasons[n] or "") or "class of" in (naming.reasons[n] or "") for n in wrong)


def test_without_a_scout_nothing_is_disputed():
    _names, observations = column_of("T11", "S")
    assert solve(observations, canal_extent(observations)).disputed is None


def test_a_sacrum_is_told_from_more_vertebrae():
    names = ("background", "sacrum", "vertebrae_L5", "canal")
    layout = ClassMap.from_labels({name: value for value, name in enumerate(names)})
    probabilities = np.broadcast_to(np.float32([0.05, 0.6, 0.2, 0.05])[:, None, None, None], (4, 6, 4, 20))
    scout = LevelPrior.from_classes(probabilities, names, layout, np.diag([5.0, 4.0, 3.0, 1.0]))
    seen = _levels_of(Structure.SACRUM, (14, 30), scout)
    assert seen == pytest.approx({"S": 0.75, "L5": 0.25})
    sure, neutral, doubtful = (
        rejection_costs([make_observation(Structure.SACRUM, 10.0, level_prior=prior)])[0]
        for prior in (seen, {}, {"S": 0.1, "L5": 0.9})
    )
    assert sure == pytest.approx(neutral + EvidenceWeights().prior_sacrum / 2)
    assert doubtful < neutral


def test_a_scout_that_made_out_nothing_takes_no_disc_for_a_false_one():
    """Two lumbar discs alone in view, 38 mm apart, of which it says a little of everything."""
    discs = [make_observation(Structure.DISC, s, volume=16e3) for s in (20.0, 58.0)]
    levels = ("T10-T11", "T11-T12", "T12-L1", "L1-L2", "L2-L3")
    blind = [replace(o, level_prior=dict.fromkeys(levels, 0.06)) for o in discs]
    for seen in (discs, blind):
        assert all(level is not None for level in solve_levels(seen, canal_extent(seen)).levels)
