"""Read numpy arrays out of a stranger's pickle, and nothing else out of it.

Only the three names that rebuild an array are let through, so no code of the pickle's author
is ever called, whatever the file says.
"""

import io
import pickle

import numpy as np
from numpy.typing import NDArray

from fda_core.errors import PickleRefused

ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
}
NUMBER_KINDS = "biuf"


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str) -> object:
        if (module_name, global_name) not in ALLOWED:
            raise PickleRefused(
                f"the pickle asks for {module_name}.{global_name}; only numpy arrays are read",
                hint="Do not load this file by other means; tell whoever published it.",
            )
        # NumPy 2 renamed its private package and warns about the old name.
        return super().find_class(module_name.replace(".core.", "._core."), global_name)


def load_array(data: bytes) -> NDArray[np.generic]:
    """Return the one array of numbers in a pickle; raise `PickleRefused` for all else."""
    loaded = _ArraysOnly(io.BytesIO(data)).load()
    if not isinstance(loaded, np.ndarray) or loaded.dtype.kind not in NUMBER_KINDS:
        raise PickleRefused(
            f"the pickle holds a {type(loaded).__name__}, not an array of numbers",
            hint="Do not load this file by other means; tell whoever published it.",
        )
    return loaded
