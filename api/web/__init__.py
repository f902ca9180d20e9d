"""The dashboard: pages made on the server, from the same services as the JSON routes."""
