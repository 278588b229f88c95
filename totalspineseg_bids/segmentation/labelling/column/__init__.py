"""Find the anatomical levels of ordered components by exact inference over the whole column."""
