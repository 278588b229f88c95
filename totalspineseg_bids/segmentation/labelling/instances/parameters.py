"""Constants of the assignment of voxels: lengths in mm along or across the canal, adult scale; shares have no unit.

The sources are adult atlases; ``docs/labelling.md`` names them.
"""

from __future__ import annotations

# Heights are above the middle of disc C2-C3, along the canal; all in mm of the adult table, read off the two adult
# atlases of the neck in ``../shared/anatomy``, where this border finds C1 and C2 with Dice 0.89 to 0.94.
#: From here up, what is not the dens is C1: the joints between the two lie here.
ATLAS_AXIS_JOINT_MM = 21.0
#: How far the top of C1 lies above, and its transverse processes from the midline.
ATLAS_TOP_MM, ATLAS_SIDE_MM = 50.0, 48.0
#: The dens: half its width, its back in front of the canal's middle, its front beyond the middle of the disc.
DENS_HALF_WIDTH_MM, DENS_BACK_MM, DENS_FRONT_MM = 7.5, 4.0, 5.0
DENS_TOP_MM = 40.0
#: Share of C1 or of C2 on the other's side of this border from which the map is not believed.
MISPLACED_SHARE = 0.3
#: Share of C2 on its side of this border that has C2's class where a model tells C2 from others.
AXIS_CLASS_SHARE = 0.5
#: From here up bone without that class is C1's.
ATLAS_BONE_FROM_MM = 23.0
#: About a sixth of C1, mm³.
LEAST_ATLAS_MM3 = 1500.0
#: Step of the subsample on which bone is treated, voxels of the working grid.
STRIDE = 2
#: How far the arch and facets of L5 reach below the middle of disc L5-S, mm in the adult table.
ARCH_BELOW_DISC_MM = 15.0
#: Bone further than this from every body that was found is left out, mm.
LARGEST_DISTANCE_MM = 18.0
#: Posterior bone whose expected height is further than this above or below a body, and nearer to another body, may
#: belong to the other; beyond the second number it cannot belong to the first, mm.
HEIGHT_TOLERANCE_MM = (5.0, 8.0)
#: Bone of another class than the vertebra beside it is a slip of that class up to this size, mm³.
LARGEST_SLIP_MM3 = 800.0
#: Place in front of the middle of the canal (mm; negative behind), from the tips of the spinous processes to the body.
PROFILE_ANTERIOR_MM = (-37.0, -25.0, -17.5, -12.5, -7.5, -2.5, 2.0, 6.0, 12.0)
#: How far below the middle of its body a vertebra's bone lies there (mm), by the region of the vertebra: means of the
#: adult atlases that show it, and for one that is not named their mean (last lines of
#: ``benchmarks/posterior_slope.py``). The arch of a cervical vertebra hangs lower against its body than those further
#: down, and its body is half as high.
PROFILE_BELOW_BODY_MM = {
    "C": (13.2, 9.0, 6.2, 3.9, 2.0, 0.5, -2.2, -1.6, 0.0),
    "T": (16.7, 15.0, 7.9, 4.4, 1.6, -3.2, -3.2, -1.1, 0.0),
    "L": (15.0, 11.9, 6.9, 5.7, 2.4, -3.2, -4.0, -2.4, 0.0),
    "": (15.0, 12.0, 7.0, 4.7, 2.0, -2.0, -3.2, -1.7, 0.0),
}
#: What is less far in front of the middle of the canal lies behind the bodies, mm.
POSTERIOR_FROM_MM = 5.0
CANAL_SPECK_MM3 = 100.0
#: How much longer a way through bone is for what it changes in the height of the body.
HEIGHT_COST = 8.0
