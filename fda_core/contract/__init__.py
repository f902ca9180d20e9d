"""What all processes share, as plain data: pydantic and the standard library only."""
