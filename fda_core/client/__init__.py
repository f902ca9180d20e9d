"""The typed client of the REST surface: `Client(url, key).jobs.submit(recipe)`.

Needs httpx2 (`pip install 'fda-merge[client]'`) and no torch.
"""

from fda_core.client.client import Client

__all__ = ["Client"]
