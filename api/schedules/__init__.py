"""Schedules: batches that are made again and again."""
