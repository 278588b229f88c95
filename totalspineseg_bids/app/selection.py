"""Selection of images that the settings of a run define."""

from __future__ import annotations

from totalspineseg_bids.bids.query import Selection, read_filters
from totalspineseg_bids.config import DEFAULT_SUFFIXES, RunConfig


def make_selection(config: RunConfig) -> Selection:
    """Return the selection of images that a configuration defines.

    At group level, the default of the suffixes selects every suffix that the participant level has processed.

    Raises
    ------
    MissingInputError, UsageError
        If the filter file cannot be read.
    """
    filters = read_filters(config.bids_filter_file) if config.bids_filter_file else None
    any_suffix = config.analysis_level == "group" and config.suffix == DEFAULT_SUFFIXES and not filters
    return Selection(
        config.participant_label,
        config.session_label,
        config.exclude_participant_label,
        () if any_suffix else config.suffix,
        filters,
    )
