"""What the service's processes and clients say to each other: plain data, no behaviour."""
