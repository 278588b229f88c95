"""Participant level as jobs of Snakemake: plan, resources of a job, submission, and the work of one job.

Snakemake schedules, submits and repeats the jobs. It is an extra (``pip install 'totalspineseg-bids[cluster]'``) that
only the submission and ``workflow/Snakefile`` need.
"""
