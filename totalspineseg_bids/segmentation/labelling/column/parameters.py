"""Numbers that the labelling leans on: distances, sizes and what a piece of evidence is worth.

All weights are natural logarithms of probability ratios (nats): 3 nats mean "20 times less likely". Where each number
comes from is told in ``docs/method.md``.
"""

from __future__ import annotations

from dataclasses import dataclass

from totalspineseg_bids.anatomy import SpineVariant

#: Distance from the centre of each regular disc to the next one below, mm, adult: mean of a template of the spine and
#: an atlas of one adult man (C7-T1 to T1-T2 is the sixth).
DISC_STEP_MM: tuple[float, ...] = (
    *(15.5, 16.6, 16.9, 15.7, 15.3, 17.8),
    *(20.8, 22.5, 23.0, 24.9, 25.6, 26.3, 26.9, 27.8, 28.4, 30.4, 31.8),
    *(32.4, 32.7, 34.0, 33.3, 35.5),
)
#: Volume of each regular disc, mm³: round values between those of adult atlases of different size.
DISC_VOLUME_MM3: tuple[float, ...] = (
    *(1200, 1000, 1100, 1200, 1200, 1250),
    *(1700, 2100, 2100, 2800, 3700, 5000, 5700, 6000, 6300, 8000, 9500),
    *(11000, 12500, 13000, 12500, 14500, 13500),
)
#: Volume of C2 in front of the canal (with the dens) against the median of C3 to C5: 1.6 and 2.1 in two atlases, 1.8 to
#: 2.4 in synthetic necks. And its place in the chain.
AXIS_VOLUME = 2.0
AXIS_PLACE = 1
#: Centre of what is in front of the canal, of C2 (with the dens) above disc C2-C3, of C1 above that, and of the upper
#: 25 mm of the sacrum's body below disc L5-S, mm.
C2_ABOVE_DISC_MM = 15.5
C1_ABOVE_C2_MM = 15.0
SACRUM_BELOW_DISC_MM = 18.0

#: Canal end of the cord: at the disc L1-L2 on average, standard deviation about one level
#: (Saifuddin 1998, 504 adults: mean lower third of L1, range T12 to L3).
CONUS_LEVEL = "L1"
CONUS_SD_LEVELS = 1.1


#: Levels that a level prior knows by their own shape, or right beside such a one; the sacrum has a price of its own.
PRIOR_END_LEVELS = frozenset({"C1", "C2", "C2-C3", "C3", "L4", "L4-L5", "L5", "L5-S"})


@dataclass(frozen=True, slots=True)
class EvidenceWeights:
    """What each kind of disagreement costs, nats."""

    missing_disc: float = 2.6
    missing_vertebra: float = 1.5
    """[[missing_disc, missing_vertebra]] A level between two found ones was not found."""
    missing_axis: float = 2.5
    """Added where C1 was found and C2 was not: it is the largest vertebra of the neck."""
    end_level: float = 0.5
    """A level that should be in view beyond the last one found; ``end_limit`` is the most that one end can cost."""
    end_limit: float = 1.5
    reject_disc: float = 4.5
    reject_vertebra: float = 5.0
    """[[reject_disc, reject_vertebra]] A component of ordinary size that is none; smaller ones cost less."""
    reject_sacrum: tuple[float, float] = (2.0, 7.0)
    """What carries the class of the sacrum is none: price where it is as short as a vertebra, and as long as a sacrum.
    """
    landmark_hit: float = 0.88
    """Probability that a landmark is recognised where it is."""
    landmark_slip: tuple[float, float, float] = (0.01, 0.005, 0.001)
    """Probability that it is put one, two or more levels away."""
    vertebra_landmark_weight: float = 0.7
    """Weight of the landmark vertebrae (C1, C2, T1, T12), whose errors go with those of the landmark discs."""
    landmark_repeats: float = 1.4
    """Sum of the shares of voxels, over all components, up to which a landmark's class counts in full; beyond, by the
    square of the ratio, because a class seen on many components is one that the model does not know.
    """
    parity_error: float = 0.05
    """Probability that a vertebra gets the wrong one of the alternating classes."""
    parity_flip: float = 5.0
    """The alternation changes its phase between two components."""
    spacing_sd: float = 0.11
    spacing_floor_mm: float = 2.0
    """[[spacing_sd, spacing_floor_mm]] Relative standard deviation of a distance between neighbours given the subject's
    scale, and absolute error.
    """
    spacing_cap: float = 9.0
    """Largest cost of one distance."""
    volume_sd: float = 0.55
    """Standard deviation of the logarithm of a disc's volume given the scale, and of C2's given that of the vertebrae
    below; ``volume_weight`` tempers it because the errors of neighbours go together.
    """
    volume_weight: float = 0.4
    support_weight: float = 0.6
    """Weight of a second map of the same image (its errors resemble the first one's)."""
    named_hit: float = 0.85
    named_slip: tuple[float, float, float] = (0.04, 0.012, 0.004)
    """[[named_hit, named_slip]] The same as for landmarks, where a map or a localizer names every level."""
    named_weight: float = 0.5
    named_budget: float = 0.8
    """[[named_weight, named_budget]] Weight of a class where a map names every level, with errors that go together:
    that of one component at most, and of all components of one kind together.
    """
    localizer_budget: float = 3.0
    """How many independent names all that a localizer says of one kind is worth."""
    mismatch: float = 0.03
    """Probability that another image of the session says something of another component (patients move)."""
    conus_weight: float = 0.7
    """Weight of the cord's end."""
    prior_hit: float = 0.80
    prior_slip: tuple[float, float, float] = (0.08, 0.02, 0.004)
    """[[prior_hit, prior_slip]] Probability that a level prior's level is right, and that it is one, two or more levels
    away.
    """
    prior_sacrum: float = 4.0
    """What a level prior that is sure of a sacrum, or sure of vertebrae, adds to the price of a false one, or takes
    from it.
    """
    landmark_unknown: tuple[float, float] = (0.15, 0.53)
    """Probability that a model has not learned the class of a landmark: of one that another of its classes is seen of,
    and of one that names no landmark at all.
    """
    prior_end_weight: float = 1.5
    prior_end_budget: float = 4.0
    """[[prior_end_weight, prior_end_budget]] Weight of a component that the prior takes for one of `PRIOR_END_LEVELS`,
    and of all of them at most.
    """
    prior_budget: float = 3.0
    """How many independent opinions all its other levels of one image are worth at most: their errors go together, a
    run of neighbours is shifted as one.
    """


#: Share of people with each count of thoracic and lumbar vertebrae: roughly one in ten differs from 12 and 5; what
#: differs in both regions is rarer. How the tenth is shared out is an assumption.
VARIANT_PRIOR: dict[SpineVariant, float] = {
    SpineVariant(12, 5): 0.885,
    SpineVariant(11, 5): 0.01,
    SpineVariant(13, 5): 0.01,
    SpineVariant(12, 4): 0.04,
    SpineVariant(12, 6): 0.045,
    SpineVariant(11, 6): 0.005,
    SpineVariant(13, 4): 0.005,
}

#: Scales of the subject against the adult numbers above, with their prior weights (children to tall adults).
SCALES: tuple[tuple[float, float], ...] = (
    (0.60, 0.03),
    (0.70, 0.06),
    (0.79, 0.12),
    (0.88, 0.24),
    (0.97, 0.28),
    (1.07, 0.18),
    (1.18, 0.07),
    (1.32, 0.02),
)


@dataclass(frozen=True, slots=True)
class Chain:
    """The levels of one variant as one craniocaudal chain of places.

    Place ``2 n`` is the ``n``-th vertebra (C1 first, sacrum last), place ``2 n + 1`` the disc below it. There is no
    disc below C1 and the sacrum.
    """

    variant: SpineVariant
    """Numbers of vertebrae."""
    vertebrae: tuple[str, ...]
    discs: tuple[str, ...]
    """[[vertebrae, discs]] Names; ``discs[0]`` is empty."""
    position_mm: tuple[float, ...]
    """Place of each along the column, adult scale, 0 at C2-C3."""
    disc_volume_mm3: tuple[float, ...]
    """Expected volume of each disc, 0 for the empty one."""


def chain_of(variant: SpineVariant) -> Chain:
    """Lay out the chain of a variant; additional levels take the distances of their neighbours."""
    thoracic_end = 6 + 11
    steps, volumes = list(DISC_STEP_MM), list(DISC_VOLUME_MM3)
    # Lumbar first, so that the thoracic index stays right.
    if variant.lumbar == 6:
        steps.insert(-1, steps[-2])
        volumes.insert(-1, volumes[-2])
    elif variant.lumbar == 4:
        del steps[-2], volumes[-2]
    if variant.thoracic == 13:
        steps.insert(thoracic_end, steps[thoracic_end - 1])
        volumes.insert(thoracic_end, volumes[thoracic_end])
    elif variant.thoracic == 11:
        del steps[thoracic_end - 1], volumes[thoracic_end - 1]
    disc_position = [0.0]
    for step in steps:
        disc_position.append(disc_position[-1] + step)
    discs = variant.discs()
    vertebrae = variant.vertebrae()
    position = [-C2_ABOVE_DISC_MM - C1_ABOVE_C2_MM, -C2_ABOVE_DISC_MM - C1_ABOVE_C2_MM / 2, -C2_ABOVE_DISC_MM]
    for n, place in enumerate(disc_position):
        position.append(place)
        last = n == len(disc_position) - 1
        position.append(place + SACRUM_BELOW_DISC_MM if last else (place + disc_position[n + 1]) / 2)
    return Chain(variant, vertebrae, ("", *discs), tuple(position), (0.0, *volumes))


#: Preference, in right answers, for the variant that is more probable as a whole where two name as much.
TIE = 1e-3
#: Variants with a smaller share of the probability of the most probable one are not asked.
NEGLIGIBLE_VARIANT = 1e-3
ANCHOR_SHARE = 0.2
#: Probability of a prior's level from which it is taken for a named level in view.
PRIOR_ANCHOR = 0.5
#: A map with more level classes of one kind than this names every level.
MOST_LANDMARKS = 8
#: Likelihood of its best level, at the median component, below which a prior has not made out where it is.
UNINFORMATIVE_PRIOR = 0.2
#: Vertebrae below C2 that its volume is measured by.
AXIS_NEIGHBOURS = 3
#: Share of a component that carries a landmark's class, from which the model has seen a landmark.
SEEN_SHARE = 0.3
#: Most places that one step may pass.
LONGEST_STEP = 8
#: Most components that may lie between two that are kept.
WINDOW = 7
FURTHER_MISSING = 0.4
#: Where so much is found that no order of levels explains it all, what is cheaper than this to leave out is left out.
REJECT_BELOW = (2.0, 3.0)
#: Runs of components that are dearer than this to leave out are not considered, nats.
LARGEST_SKIP = 14.0
#: Steps over a number of places whose distance is this much (nats) out of line everywhere are not considered.
HOPELESS = 8.0
TOP_SD_MM = 4.0
#: Hypotheses with a smaller share of the probability than this are dropped after the forward recursion.
NEGLIGIBLE_HYPOTHESIS = 1e-7
#: Posterior probability that half of a column's components must reach for it to be named, from which one of them gets
#: its level, and below which a level comes with a warning.
SURE_COLUMN, SURE, BEYOND_DOUBT = 0.7, 0.55, 0.9
#: Landmarks that must agree for levels to come without a warning, counted by `landmark_support`.
ENOUGH_LANDMARKS = 1.5
#: Share of the volume of all components that a named column has at least.
LEAST_EXPLAINED = 0.4
WHOLE_SACRUM_MM = 60.0
#: From this share of a component on, a landmark is seen there; and from this part of its share where it is named on, it
#: is seen as well elsewhere.
LANDMARK_SEEN, LANDMARK_SEEN_ELSEWHERE = 0.25, 0.8
EVERY_LEVEL_CLASSES = 8
#: Extent along the canal of a vertebra with its processes, and of a sacrum, mm.
VERTEBRA_LENGTH_MM, SACRUM_LENGTH_MM = 40.0, 75.0
#: Least cost of taking a sacrum for none, nats.
LEAST_FALSE_SACRUM = 0.5
#: Peers lie within so much along the canal, mm.
PEERS_MM = 80.0
#: What a vertebra with a landmark class costs more.
LANDMARK_VERTEBRA = 1.5
