"""Named ways to merge one tensor."""
