"""Tests of totalspineseg_bids.models."""
