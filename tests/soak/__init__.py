"""Long proofs: real processes killed at random moments, and what was lost (nothing)."""
