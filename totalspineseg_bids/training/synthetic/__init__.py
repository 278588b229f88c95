"""Training of the bundled models on synthetic images: label-map pool, patches, trainers and publication.

``synthetic_training`` trains the two steps (101, 102) and the level prior (103), ``refinement_training`` the refinement
network (104), and ``bundle`` puts the stripped weights with their model cards among the bundled models.
"""
