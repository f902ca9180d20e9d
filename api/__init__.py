"""The front end: REST, events, schedules and the controller that leads jobs; never loads torch."""
