"""The database: a read model of jobs, and the home of keys, schedules and webhooks."""
