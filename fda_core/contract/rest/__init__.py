"""The resources of the REST surface, shared by the server and the client."""
