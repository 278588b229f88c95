"""Constants of the level search: distances, sizes and weights of the evidence.

Weights are negative log-likelihoods in nats: 3 nats mean "20 times less likely". ``docs/method.md`` lists the sources.
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
#: Width of a disc in mm is this factor times its volume in mm³ to this power: fit to the discs of six segmented adults,
#: with a residual of 14 % (standard deviation).
DISC_WIDTH_MM, DISC_WIDTH_POWER = 5.3, 0.23
#: Volume of C2 in front of the canal (with the dens) relative to the median of C3 to C5: 1.6 and 2.1 in two atlases,
#: 1.8 to 2.4 in synthetic necks.
AXIS_VOLUME = 2.0
#: Place of C2 in the chain.
AXIS_PLACE = 1
#: Distance of the centre in front of the canal, mm, adult: of C2 (with the dens) above disc C2-C3, of C1 above that of
#: C2, and of the upper 25 mm of the body of the sacrum below disc L5-S.
C2_ABOVE_DISC_MM = 15.5
C1_ABOVE_C2_MM = 15.0
SACRUM_BELOW_DISC_MM = 18.0

#: Lower end of the cord: at the disc L1-L2 on average, standard deviation about one level
#: (Saifuddin 1998, 504 adults: mean lower third of L1, range T12 to L3).
CONUS_LEVEL = "L1"
CONUS_SD_LEVELS = 1.1


#: Levels with a distinct shape, or next to such a level, for which a level prior is reliable. The sacrum has
#: its own cost.
PRIOR_END_LEVELS = frozenset({"C1", "C2", "C2-C3", "C3", "L4", "L4-L5", "L5", "L5-S"})


@dataclass(frozen=True, slots=True)
class EvidenceWeights:
    """Cost of each kind of disagreement of the evidence, in nats unless stated otherwise."""

    missing_disc: float = 2.6
    """A disc between two components was not found."""
    missing_vertebra: float = 1.5
    """A vertebra between two components was not found."""
    missing_axis: float = 2.5
    """Added if C1 was found and C2 was not, because C2 is the largest vertebra of the neck."""
    end_level: float = 0.5
    """A level beyond the first or last component was not found although it should be in view."""
    end_limit: float = 1.5
    """Largest cost of the missing levels at one end."""
    reject_disc: float = 4.5
    """A disc of ordinary size is not part of the column; smaller ones cost less."""
    reject_vertebra: float = 5.0
    """A vertebral body of ordinary size is not part of the column; smaller ones cost less."""
    reject_sacrum: tuple[float, float] = (2.0, 7.0)
    """The sacrum is false: cost if it is as short as a vertebra, and if it is as long as a sacrum."""
    landmark_hit: float = 0.88
    """Probability that the class of a landmark is found at its level."""
    landmark_slip: tuple[float, float, float] = (0.01, 0.005, 0.001)
    """Probability that it is found one, two, or more levels away."""
    vertebra_landmark_weight: float = 0.7
    """Weight of landmark vertebrae (C1, C2, T1, T12), whose errors correlate with those of landmark discs."""
    landmark_repeats: float = 1.4
    """Largest sum of voxel shares over all components up to which the class of a landmark has full weight. Beyond, the
    weight decreases with the square of the ratio, because the model has not learned a class that it finds on many
    components.
    """
    parity_error: float = 0.05
    """Probability that a component has the wrong one of the alternating classes."""
    parity_flip: float = 5.0
    """The alternation changes its phase between two components."""
    spacing_sd: float = 0.11
    """Standard deviation of a distance between neighbours, relative to the expected distance at the scale."""
    spacing_floor_mm: float = 2.0
    """Absolute standard deviation of a distance between neighbours, mm."""
    spacing_cap: float = 9.0
    """Largest cost of one distance."""
    volume_sd: float = 0.55
    """Standard deviation of the logarithm of the volume of a disc given the scale, and of C2 given the vertebrae below.
    """
    volume_weight: float = 0.4
    """Weight of volumes, below 1 because the errors of neighbours correlate."""
    support_weight: float = 0.6
    """Weight of a second map of the same image, whose errors correlate with those of the first."""
    named_hit: float = 0.85
    """`landmark_hit` of a map or a localizer that names every level."""
    named_slip: tuple[float, float, float] = (0.04, 0.012, 0.004)
    """`landmark_slip` of a map or a localizer that names every level."""
    named_weight: float = 0.5
    """Largest weight of the class of one component in a map that names every level, because errors correlate."""
    named_budget: float = 0.8
    """Largest sum of these weights over all components of one kind."""
    localizer_budget: float = 3.0
    """Largest sum of the weights of all levels of one kind that a localizer provides."""
    mismatch: float = 0.03
    """Probability that evidence of another image of the session is matched to the wrong component, as patients move."""
    conus_weight: float = 0.7
    """Weight of the lower end of the cord."""
    prior_hit: float = 0.80
    """Probability that the level of a level prior is right."""
    prior_slip: tuple[float, float, float] = (0.08, 0.02, 0.004)
    """Probability that it is one, two, or more levels away."""
    prior_sacrum: float = 4.0
    """Added to the cost of rejecting the sacrum if the level prior is certain of it, subtracted if it is certain of
    vertebrae.
    """
    landmark_unknown: tuple[float, float] = (0.15, 0.53)
    """Probability that a model has not learned the class of a landmark, if it finds other landmarks, and if it finds
    none.
    """
    prior_end_weight: float = 1.5
    """Weight of a component whose most probable level by the prior is in `PRIOR_END_LEVELS`."""
    prior_end_budget: float = 4.0
    """Largest sum of these weights."""
    prior_budget: float = 3.0
    """Largest sum of the weights of all other components with a level prior, whose errors correlate: a run of
    neighbours is shifted together.
    """


WEIGHTS = EvidenceWeights()

#: Prior probability of each variant. About one person in ten differs from 12 thoracic and 5 lumbar vertebrae, and fewer
#: in both regions (``docs/method.md``); the probabilities of the single variants are assumptions.
VARIANT_PRIOR: dict[SpineVariant, float] = {
    SpineVariant(12, 5): 0.885,
    SpineVariant(11, 5): 0.01,
    SpineVariant(13, 5): 0.01,
    SpineVariant(12, 4): 0.04,
    SpineVariant(12, 6): 0.045,
    SpineVariant(11, 6): 0.005,
    SpineVariant(13, 4): 0.005,
}

#: Sizes of the subject relative to the adult numbers above, from children to tall adults, with prior weights (assumed).
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
    """Levels of one variant as a craniocaudal chain of places.

    Place ``2 n`` is vertebra ``n`` (from C1 to the sacrum), place ``2 n + 1`` the disc below it. There is no disc below
    C1 and the sacrum.
    """

    variant: SpineVariant
    """Numbers of thoracic and lumbar vertebrae."""
    vertebrae: tuple[str, ...]
    """Vertebral levels, from C1 to the sacrum."""
    discs: tuple[str, ...]
    """Level of the disc below each vertebra but the last; ``discs[0]`` is empty."""
    position_mm: tuple[float, ...]
    """Position of each place along the column, adult scale, mm; 0 at C2-C3."""
    disc_volume_mm3: tuple[float, ...]
    """Expected volume of each disc, adult scale, mm³; 0 for ``discs[0]``."""


def chain_of(variant: SpineVariant) -> Chain:
    """Return the chain of a variant; additional levels have the distances and volumes of their neighbours.

    Parameters
    ----------
    variant
        Numbers of thoracic and lumbar vertebrae.

    Examples
    --------
    >>> chain = chain_of(SpineVariant(12, 5))
    >>> chain.vertebrae[:3], chain.discs[:3]
    (('C1', 'C2', 'C3'), ('', 'C2-C3', 'C3-C4'))
    """
    thoracic_end = 6 + 11
    steps, volumes = list(DISC_STEP_MM), list(DISC_VOLUME_MM3)
    # Lumbar levels are changed first, so that the thoracic index stays valid.
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


#: Preference for the more probable variant, in expected correct answers, if two variants explain as much.
TIE = 1e-3
#: Probability of a variant relative to the most probable one below which it is not decoded.
NEGLIGIBLE_VARIANT = 1e-3
#: Share of the voxels of a component with the class of a landmark from which it anchors the column.
ANCHOR_SHARE = 0.2
#: Probability of a level by the level prior from which it anchors the column.
PRIOR_ANCHOR = 0.5
#: Largest number of level classes of one kind in a map of landmarks; a map with more names every level.
MOST_LANDMARKS = 8
#: Likelihood of the best level at the median component below which a level prior is uninformative.
UNINFORMATIVE_PRIOR = 0.2
#: Number of vertebrae below C2 that its volume is compared with.
AXIS_NEIGHBOURS = 3
#: Share of a component with the class of a landmark from which the model has found the landmark.
SEEN_SHARE = 0.3
#: Share of a component with one of the alternating classes from which components of its kind alternate.
ALTERNATING_SHARE = 0.3
#: Weight of the alternating classes of discs; those of vertebrae have 1.
DISC_PARITY_WEIGHT = 0.5
#: Cost of a component outside the region of its class, nats per share of its voxels.
WRONG_REGION = 2.0
#: Largest cost of a volume before `EvidenceWeights.volume_weight`, and of the end of the cord, nats.
VOLUME_CAP, CONUS_CAP = 4.0, 4.5
#: Height of a lumbar level, mm, adult scale.
LUMBAR_STEP_MM = 30.0
#: Largest number of places in one step between two components.
LONGEST_STEP = 8
#: Largest number of components between two components that are kept.
WINDOW = 7
#: Cost of each further missing level relative to the first one.
FURTHER_MISSING = 0.4
#: Rejection cost below which components are left out, one after the other, if no order of levels explains all of them.
REJECT_BELOW = (2.0, 3.0)
#: Runs of components with a larger rejection cost are not considered for rejection, nats.
LARGEST_SKIP = 14.0
#: Numbers of places whose distance costs more than this under every hypothesis are not considered, nats.
HOPELESS = 8.0
#: Standard deviation of the centres of C1 and C2, whose ring and dens vary in the map, of other vertebrae, of the
#: sacrum, and of components that the field of view cuts, mm.
TOP_SD_MM, VERTEBRA_SD_MM, SACRUM_SD_MM, EDGE_SD_MM = 4.0, 1.5, 6.0, 5.0
#: Distance from which the arc length replaces the straight distance if it is longer, mm.
STRAIGHT_MM = 70.0
#: A disc should be in view from this distance beyond the last component to this distance from the end of the canal, mm.
NEXT_DISC_MM, END_ROOM_MM = 3.0, 8.0
#: Hypotheses with a smaller share of the probability are dropped after the forward recursion.
NEGLIGIBLE_HYPOTHESIS = 1e-7
#: Posterior probability that the median component must reach for the column to be named, that a component must reach to
#: get its level, and below which a level is doubtful.
SURE_COLUMN, SURE, BEYOND_DOUBT = 0.7, 0.55, 0.9
#: Logarithm of the prior odds that a header does not have head and feet reversed (assumed: 1 in 1000 has), nats.
REVERSED_HEADER = 7.0
#: Number of landmarks, counted by `landmark_support`, below which levels are doubtful.
ENOUGH_LANDMARKS = 1.5
#: Count of the landmarks that are seen at one level only, below which an image with one seen at two levels abstains.
LEAST_CLEAR_LANDMARKS = 0.6
#: Count of a landmark vertebra with its class relative to a landmark disc, 0.5 for others: only ribs, which a narrow
#: sagittal view does not show, distinguish T1 and T12 from their neighbours. On crops of a real neck without C2, the
#: classes of C7-T1 and T1 both were one level off.
VERTEBRA_LANDMARKS = {"T1": 0.25, "T12": 0.25}
#: Length of C2 relative to C3 along the canal (5th to 95th percentile) from which the dens is in view.
DENS_LENGTH = 1.6
#: Evidence on the last thoracic level, as `landmarks_of` names it, and its sum from which other numbers of vertebrae
#: than 12 and 5 are not doubtful (assumed).
VARIANT_EVIDENCE = ("T12", "T12-L1", "map 0", "map 1", "localizer", "level prior")
ENOUGH_FOR_VARIANT = 2.0
#: Smallest share of the volume of all components that the levels of a named column explain.
LEAST_EXPLAINED = 0.4
#: Length from which a sacrum counts as a whole landmark, mm.
WHOLE_SACRUM_MM = 60.0
#: Share of a component from which a landmark is found there, and share relative to the component of its level from
#: which it is found elsewhere as well.
LANDMARK_SEEN, LANDMARK_SEEN_ELSEWHERE = 0.25, 0.8
#: Extent along the canal of a vertebra with its processes, and of a sacrum, mm.
VERTEBRA_LENGTH_MM, SACRUM_LENGTH_MM = 40.0, 75.0
#: Smallest cost of rejecting the sacrum, any other component, and a disc out of line with the column (at most), nats.
LEAST_FALSE_SACRUM, LEAST_REJECTION, MISALIGNED_DISC = 0.5, 0.4, 0.5
#: Largest distance of components whose volumes are compared, mm along the canal.
PEERS_MM = 80.0
#: Added to the cost of rejecting a vertebra with the class of a landmark, nats.
LANDMARK_VERTEBRA = 1.5
