"""Strangers' pickles: arrays of numbers come out, nothing else runs."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from fda_core.errors import PickleRefused
from tests.bench.vision.pickled_arrays import load_array


class _Runs:
    """Calls a function with a text when it is read."""

    def __init__(self, function: object, text: str) -> None:
        self.function, self.text = function, text

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return self.function, (self.text,)


@pytest.mark.parametrize("protocol", [3, 4])
@pytest.mark.parametrize("dtype", ["u1", "i8", "f4"])
def test_an_array_comes_out_as_it_was(protocol: int, dtype: str) -> None:
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    loaded = load_array(pickle.dumps(array, protocol=protocol))
    assert loaded.dtype == array.dtype
    np.testing.assert_array_equal(loaded, array)


def test_the_name_that_older_numpys_wrote_is_read() -> None:
    data = pickle.dumps(np.arange(3), protocol=3).replace(b"numpy._core", b"numpy.core")
    np.testing.assert_array_equal(load_array(data), np.arange(3))


@pytest.mark.parametrize("function", [os.system, eval, exec, pickle.loads, np.load, os.unlink])
def test_no_function_is_called(tmp_path: Path, function: object) -> None:
    mark = tmp_path / "mark"
    mark.touch()
    with pytest.raises(PickleRefused, match="only numpy arrays"):
        load_array(pickle.dumps(_Runs(function, str(mark))))
    assert mark.exists()


def test_os_system_is_refused_by_name() -> None:
    with pytest.raises(PickleRefused, match=r"(posix|nt|os)\.system"):
        load_array(pickle.dumps(_Runs(os.system, "true")))


def test_a_pickle_inside_an_array_of_objects_is_refused() -> None:
    with pytest.raises(PickleRefused):
        load_array(pickle.dumps(np.array([_Runs(os.system, "true")], dtype=object)))
    with pytest.raises(PickleRefused, match="array of numbers"):
        load_array(pickle.dumps(np.array([None, "text"], dtype=object)))


def test_something_else_than_an_array_is_refused() -> None:
    with pytest.raises(PickleRefused, match="holds a list"):
        load_array(pickle.dumps([1, 2, 3]))
