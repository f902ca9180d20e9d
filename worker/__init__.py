"""The Celery processes: run units of plans through the engine."""
