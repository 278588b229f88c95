"""Constants of the component search: sizes and distances below or beyond which a component is treated as an error.

Lengths are mm and volumes mm³ on the working grid; shares have no unit. Values without a source are assumptions.
"""

from __future__ import annotations

import numpy as np

#: Volumes below which a connected part is noise, mm³; a disc of the neck has about 1000.
DISC_SPECK_MM3 = 25.0
#: Smallest disc that the field of view does not cut, mm³.
SMALL_DISC_MM3 = 80.0
BODY_SPECK_MM3 = 350.0
SACRUM_SPECK_MM3 = 1500.0
#: Volume relative to that of the discs around it below which a disc cuts no body: the joint between the dens and the
#: body of C2 may have the class disc, with an eighth of the volume of C2-C3.
SLIGHT_DISC_SHARE = 0.2
#: Length of the upper part of the sacrum that gives its position along the canal, mm.
SACRUM_TOP_MM = 25.0
#: Share of the sacrum in front of the canal below which the canal in view ends above the sacrum.
SACRUM_BODY_SHARE = 0.05
#: Length relative to the bodies around it from which a body is a block, and the largest number and distance of these
#: bodies. Only the nearest are compared, because bodies become twice as long from the neck to the chest.
FUSED_RATIO, NEIGHBOURING_BODIES, NEIGHBOURS_MM = 1.65, 4, 110.0
#: Distance of two discs relative to the gaps around them up to which there is one body between them.
ONE_BODY_GAP_RATIO = 1.4
#: Share of the distance between discs at either end of a body within which a disc does not cut the body, and length
#: relative to this distance from which a body is cut at the discs within it.
BODY_END_SHARE, LONG_RATIO = 0.25, 1.2
#: A piece belongs to a larger one if this share of its extent along the canal overlaps and the centres differ by at
#: most this share of the larger extent plus this distance, mm.
PIECE_OVERLAP, PIECE_OFFSET_RATIO, PIECE_OFFSET_MM = 0.7, 0.35, 2.0
#: Smallest piece of a disc whose joining is reported, mm³.
NOTABLE_MM3 = 80.0
#: Largest distance between pieces of one disc across the canal, mm; false discs beside the column are further away.
PIECES_APART_MM = 30.0
#: Tilts of a disc at which bridged discs are searched for, mm along the canal per mm in anterior direction (pitch) and
#: in lateral direction (roll).
PITCHES = np.arange(-0.6, 0.61, 0.15)
ROLLS = (-0.2, 0.0, 0.2)
#: Depth of a valley relative to the lower of its two peaks below which two discs are bridged.
WAIST_RATIO = 0.4
#: Distance between two peaks relative to the smallest distance of neighbouring discs from which they are two discs.
PEAKS_APART_RATIO = 0.62
#: A component is one disc if its extent along the canal is below this share of the smallest distance between discs plus
#: this length, mm.
ONE_DISC_RATIO, ONE_DISC_MM = 0.6, 3.0
#: Volume relative to the median from which a disc counts for the smallest distance between discs.
STEP_DISC_SHARE = 0.2
#: Largest distance of pieces of one disc along the canal: relative to the gaps around them, the limits of this
#: distance, and its value if there are no gaps, mm.
PIECES_NEAR_RATIO, PIECES_NEAR_LIMITS_MM, PIECES_NEAR_MM = 0.4, (5.0, 12.0), 6.0
#: Smallest distance between neighbouring discs of one image: its value if too few discs are found, and its limits, mm.
USUAL_LEAST_STEP_MM, STEP_LIMITS_MM = 13.0, (11.0, 22.0)
#: Fewest voxels of a component within the field of view of the level prior for which its probabilities are used.
PRIOR_FEWEST_VOXELS = 20
#: Sum of the prior's probabilities of all levels of a kind from which a component's probabilities count in full.
PRIOR_FULL_CREDIT = 0.3
#: Probability of the sacrum from which bone may be sacrum, if no vertebra is more probable.
PRIOR_SACRUM = 0.15
#: Largest distance along the canal between a component and the structure of a localizer whose level it gets, mm;
#: patients move between scans.
LOCALIZER_NEAR_MM = 9.0
#: Largest distance of a structure of the localizer across the canal from the usual place of discs and bodies, mm.
LOCALIZER_ASIDE_MM = 45.0
#: Usual distance of discs and bodies in front of the centreline, and of the furthest voxels of a disc behind it, mm.
LOCALIZER_ANTERIOR_MM, LOCALIZER_BEHIND_MM = 18.0, -5.0
#: Smallest structure of a localizer that is used, mm³.
LOCALIZER_SMALLEST_MM3 = 60.0
#: Largest distance of a disc of the column below the upper end of the sacrum, mm.
LOWEST_DISC_BELOW_SACRUM_MM = 12.0
#: Volume relative to the median disc below which a disc is not evidence against a sacrum above it.
SMALL_DISC_SHARE = 0.3
#: Sum of the level prior's probabilities of all discs below which a disc is false.
PRIOR_NO_DISC = 0.2
