"""Constants of the labelling that more than one stage uses, and those of its top-level modules.

Lengths are mm on the working grid (adult scale where noted); shares have no unit. Values without a source are
assumptions.
"""

from __future__ import annotations

#: Largest difference from 1 mm at which a voxel size counts as 1 mm, so that the map is not resampled.
SPACING_TOLERANCE_MM = 0.03
#: Margin of the crop around the foreground, voxels.
FOREGROUND_MARGIN = 4
#: Smallest distance of vertebral bodies in front of the canal's centreline, and largest distance from the midline.
BODY_FRONT_MM = 7.0
BODY_SIDE_MM = 22.0
#: Smallest distance of the centre of a disc in front of the centreline.
DISC_FRONT_MM = 3.0
#: The end of the cord in view is the conus if the canal continues this far below it and the cord in view is this long.
CONUS_ROOM_MM = 25.0
LEAST_CORD_MM = 30.0
#: Cords of a smaller volume are noise, mm³, and the step of the subsample on which the cord is measured, voxels.
LEAST_CORD_MM3 = 1500.0
CORD_STRIDE = 4
#: Fewest voxels of a disc whose centre supports the centreline.
CENTERLINE_DISC_VOXELS = 80

#: Distance of the part in view of a structure from the middle of the canal, as a share of its width, above which the
#: volume of the structure is unknown.
CUT_ASIDE_SHARE = 0.25
#: Volume relative to the median of the neighbours below which a component at the edge of the field of view is a sliver:
#: too little of its shape is in view to find its border, and its size is no evidence.
SLIVER_SHARE = 0.1
#: Volume relative to the median of the neighbours above or below which the size of a vertebra is implausible. Label
#: maps of four adults have 0.78 to 1.24 for whole vertebrae below C2.
LARGE_RATIO, SMALL_RATIO = 1.8, 0.4
#: Number of levels on each side whose volumes are compared; growth along the column cancels out.
NEIGHBOUR_LEVELS = 2
#: Expected volume of C1 and C2 relative to the median of C3 to C5; two of these adults have 1.2 and 1.8, 1.4 and 1.7.
END_RATIOS = {"C1": 1.4, "C2": 1.6}
END_NEIGHBOURS = ("C3", "C4", "C5")
#: Largest volume of C1 relative to C2; the two adults have 0.8 and 1.0.
ATLAS_TO_AXIS_RATIO = 1.5

#: Components of two images are the same where their centres, after alignment along the canal, are this near along it.
SESSION_NEAR_MM = 7.0
#: The same across the canal.
SESSION_ASIDE_MM = 25.0
#: Displacement of one image against another along the canal: standard deviations of a patient who moved and of a wrong
#: header, and probability of the latter (all assumed); largest displacement that is considered.
MOTION_SD_MM, HEADER_SD_MM, WRONG_HEADER = 4.0, 25.0, 0.03
LARGEST_DISPLACEMENT_MM = 45
#: Standard deviation of the distance between a component's centres in two aligned images, and evidence of a perfect
#: match for an alignment in nats; a bad or missing match counts as much against it. Neighbouring alignments of a column
#: differ by 1 to 2 standard deviations per match, as the distances between levels change slowly.
CENTER_SD_MM, MATCH_GAIN = 1.5, 0.5
#: Cost of an alignment at which the names of two images differ, nats.
NAMES_DIFFER = 4.0
#: Probability from which an alignment is certain, and largest difference of displacements that mean the same alignment.
CERTAIN_ALIGNMENT, SAME_ALIGNMENT_MM = 0.9, 5.0
#: Probability of a displacement below which it is not considered.
NEGLIGIBLE_ALIGNMENT = 1e-4
#: Weight of an image that is sure of its levels and certainly aligned: it outweighs a landmark in the wrong place.
SURE_IMAGE_WEIGHT = 3.0

#: Distance between neighbouring discs of an adult, averaged over the column; used where no gap can be measured.
ADULT_STEP_MM = 25.0
#: Smallest distance between neighbouring discs of any subject; smaller gaps are between pieces of one disc.
LEAST_STEP_MM = 8.0

#: Fewest voxels to which the plane of a disc is fitted.
PLANE_VOXELS = 30
#: A disc is flat if the smallest eigenvalue of its covariance is below this share of the second smallest.
FLAT_RATIO = 0.45
#: Smallest cosine of the angle between the normal of a disc and the canal.
LEAST_PLANE_COSINE = 0.7
