"""The dtypes of safetensors files that can be read and written. Imports no torch."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from fda_core.errors import UnsupportedDtype


class Dtype(NamedTuple):
    """A dtype of safetensors: bytes of an element, and its name in torch."""

    size_bytes: int
    torch_name: str


DTYPES: Final[Mapping[str, Dtype]] = MappingProxyType(
    {
        "BOOL": Dtype(1, "bool"),
        "U8": Dtype(1, "uint8"),
        "I8": Dtype(1, "int8"),
        "F8_E5M2": Dtype(1, "float8_e5m2"),
        "F8_E4M3": Dtype(1, "float8_e4m3fn"),
        "F8_E5M2FNUZ": Dtype(1, "float8_e5m2fnuz"),
        "F8_E4M3FNUZ": Dtype(1, "float8_e4m3fnuz"),
        "F8_E8M0": Dtype(1, "float8_e8m0fnu"),
        "I16": Dtype(2, "int16"),
        "U16": Dtype(2, "uint16"),
        "F16": Dtype(2, "float16"),
        "BF16": Dtype(2, "bfloat16"),
        "I32": Dtype(4, "int32"),
        "U32": Dtype(4, "uint32"),
        "F32": Dtype(4, "float32"),
        "I64": Dtype(8, "int64"),
        "U64": Dtype(8, "uint64"),
        "F64": Dtype(8, "float64"),
        "C64": Dtype(8, "complex64"),
    }
)

FLOATS: Final = frozenset({"F64", "F32", "F16", "BF16"})
"""The dtypes in which weights are merged."""

_BY_TORCH_NAME = {dtype.torch_name: name for name, dtype in DTYPES.items()}


def name_of(dtype: object) -> str:
    """Return the safetensors name of a `torch.dtype`; `UnsupportedDtype` if it has none."""
    torch_name = str(dtype).removeprefix("torch.")
    if torch_name not in _BY_TORCH_NAME:
        raise UnsupportedDtype(
            f"{dtype} cannot be stored as safetensors", hint=f"Known: {', '.join(DTYPES)}."
        )
    return _BY_TORCH_NAME[torch_name]
