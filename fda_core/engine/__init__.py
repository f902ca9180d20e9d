"""Plan a merge, run its units, keep the journal."""
