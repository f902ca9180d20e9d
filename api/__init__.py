"""The FastAPI front end: accepts, projects and shows jobs. Never loads torch."""
