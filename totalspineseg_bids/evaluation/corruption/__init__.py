"""Label corruption suite: synthetic semantic maps with the errors that networks make, and scores of their labelling.

``benchmarks/labelling_suite.py`` runs all of it; the tests run a small part.
"""
