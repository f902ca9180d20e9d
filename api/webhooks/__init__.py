"""Webhooks: telling other services how jobs end."""
