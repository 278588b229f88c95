"""From components with levels to a label map: assigns each voxel to a vertebra, disc, the sacrum, cord or canal."""
