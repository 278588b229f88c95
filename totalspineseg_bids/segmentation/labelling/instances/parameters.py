"""Constants of the assignment of voxels: lengths in mm along or across the canal, adult scale; shares have no unit.

The sources are adult label maps; values without a source are assumptions.
"""

from __future__ import annotations

# Constants of C1 and C2: heights are above the middle of disc C2-C3 along the canal, mm, adult scale, measured in two
# adult atlases of the neck, in which this border finds C1 and C2 with Dice 0.89 to 0.94.
#: Height of the joints between C1 and C2; bone above them that is not the dens is C1.
ATLAS_AXIS_JOINT_MM = 21.0
#: Height of the top of C1, and distance of its transverse processes from the midline.
ATLAS_TOP_MM, ATLAS_SIDE_MM = 50.0, 48.0
#: Dens: half its width, distance of its back in front of the centreline, and of its front beyond the disc centre.
DENS_HALF_WIDTH_MM, DENS_BACK_MM, DENS_FRONT_MM = 7.5, 4.0, 5.0
#: Height of the top of the dens.
DENS_TOP_MM = 40.0
#: Share of C1 or of C2 on the wrong side of this border above which the border of the map is replaced.
MISPLACED_SHARE = 0.3
#: Share of C2 on its side of this border that must have the class of C2 for that class to be used.
AXIS_CLASS_SHARE = 0.5
#: Height above which bone without the class of C2 is C1.
ATLAS_BONE_FROM_MM = 23.0
#: Smallest volume of C1, about a sixth of an adult one, mm³.
LEAST_ATLAS_MM3 = 1500.0
#: Step of the subsample on which vertebrae are assigned, voxels of the working grid.
STRIDE = 2
#: Distance that the arch and facets of L5 reach below the middle of disc L5-S, mm, adult scale.
ARCH_BELOW_DISC_MM = 15.0
#: Bone further than this from every body found belongs to none, mm.
LARGEST_DISTANCE_MM = 18.0
#: Posterior bone whose expected height is further than the first number from the range of a body, and nearer to another
#: body, may belong to the other; beyond the second number it cannot belong to the first, mm.
HEIGHT_TOLERANCE_MM = (5.0, 8.0)
#: Largest piece of bone with another class than the vertebra beside it that counts as a classification error, mm³.
LARGEST_SLIP_MM3 = 800.0
#: Positions of the profile in front of the centreline, from the tips of the spinous processes to the body, mm.
PROFILE_ANTERIOR_MM = (-37.0, -25.0, -17.5, -12.5, -7.5, -2.5, 2.0, 6.0, 12.0)
#: Distance of a vertebra's bone below the middle of its body at these positions, by region, mm: means of the adult
#: atlases that show the region, and their mean for an unnamed vertebra (``benchmarks/posterior_slope.py``).
PROFILE_BELOW_BODY_MM = {
    "C": (13.2, 9.0, 6.2, 3.9, 2.0, 0.5, -2.2, -1.6, 0.0),
    "T": (16.7, 15.0, 7.9, 4.4, 1.6, -3.2, -3.2, -1.1, 0.0),
    "L": (15.0, 11.9, 6.9, 5.7, 2.4, -3.2, -4.0, -2.4, 0.0),
    "": (15.0, 12.0, 7.0, 4.7, 2.0, -2.0, -3.2, -1.7, 0.0),
}
#: Bone less far in front of the centreline than this lies behind the bodies, mm.
POSTERIOR_FROM_MM = 5.0
#: Pieces of the canal smaller than this are noise, mm³.
CANAL_SPECK_MM3 = 100.0
#: Cost of a change of the expected body height along a path, relative to its length.
HEIGHT_COST = 8.0
