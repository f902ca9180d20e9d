"""The merge engine: checkpoints in, one merged checkpoint out.

A library without HTTP, queues, databases or environment variables. `fda_core.contract` and
everything that planning needs import no torch.
"""

__version__ = "0.1.0"
