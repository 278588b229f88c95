"""Tests of totalspineseg_bids.inference."""
