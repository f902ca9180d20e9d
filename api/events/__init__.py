"""What happens to a job, as a page or a stream."""
