"""Where bytes live: one protocol, one file per kind of storage."""
