"""The corruption suite of the labelling: synthetic semantic columns, damaged as models damage them, and their score.

``benchmarks/labelling_suite.py`` runs it as a whole, ``test_suite.py`` a small part of it.
"""
