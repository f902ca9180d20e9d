"""Jobs: submitting, showing and changing them."""
