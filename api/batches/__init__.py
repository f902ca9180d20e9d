"""Batches: jobs that are submitted, shown and cancelled together."""
