"""Figures and pages for people.

Per-image figures (PNG), the page of a subject and the page of a group, written from labelled images and from tables
of text. A page loads nothing from the network. Nothing here segments, measures or looks for files of a dataset:
what a page shows is handed in.
"""
