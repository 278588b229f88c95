"""Draw the label map: assign each voxel to a vertebra, a disc, the sacrum, the cord or the canal."""
