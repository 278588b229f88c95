"""Constants of the component search: sizes and distances below or beyond which a component is treated as an error.

Lengths are mm and volumes mm³ on the working grid; shares have no unit. Values without a source are assumptions that
``docs/labelling.md`` describes.
"""

from __future__ import annotations

#: Volumes below which a part is noise, mm³; a disc of the neck has about 1000.
DISC_SPECK_MM3 = 25.0
SMALL_DISC_MM3 = 80.0
BODY_SPECK_MM3 = 350.0
SACRUM_SPECK_MM3 = 1500.0
#: Part of the volume of the discs around it below which what looks like a disc cuts no body: the joint between the dens
#: and the body of C2 may come out as one, of an eighth of C2-C3.
SLIGHT_DISC_SHARE = 0.2
SACRUM_TOP_MM = 25.0
#: Share of a sacrum in front of the canal, below which the canal in view ends above it.
SACRUM_BODY_SHARE = 0.05
#: A body this many times as long as those around it (so many at most, within so many mm) is a block. Few, because from
#: the neck to the chest bodies come to be twice as long.
FUSED_RATIO, NEIGHBOURING_BODIES, NEIGHBOURS_MM = 1.65, 4, 110.0
#: Between two discs this many times as far apart as those around them lies one body at most.
ONE_BODY_GAP_RATIO = 1.4
#: Pieces larger than this are worth a note when they are joined, mm³.
NOTABLE_MM3 = 80.0
#: Halves of one disc lie nearer to each other across the canal than this, a false disc beside the column does not, mm.
PIECES_APART_MM = 30.0
ROLLS = (-0.2, 0.0, 0.2)
#: Fewer voxels than these of a component inside the prior's view say nothing.
PRIOR_FEWEST_VOXELS = 20
#: Share of a component that the prior must take for some level of its kind before its names count in full.
PRIOR_FULL_CREDIT = 0.3
#: Probability of the sacrum from which bone may be one, where no vertebra is more probable.
PRIOR_SACRUM = 0.15
#: A component takes a localizer's level where the two lie this near along the canal, mm; patients move between scans.
LOCALIZER_NEAR_MM = 9.0
LOCALIZER_ASIDE_MM = 45.0
LOCALIZER_SMALLEST_MM3 = 60.0
#: Nothing of the column may lie further below the upper end of the sacrum than this, mm.
LOWEST_DISC_BELOW_SACRUM_MM = 12.0
SMALL_DISC_SHARE = 0.3
#: Sum of a level prior's probabilities of all discs below which it sees none in a place.
PRIOR_NO_DISC = 0.2
