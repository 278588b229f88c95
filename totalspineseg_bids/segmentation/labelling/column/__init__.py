"""From ordered components to anatomical levels, by exact inference over the whole column."""
