"""Where large reads are cut: everything once, at multiples of a piece, into pieces of a size."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from fda_core.storage.s3_read import LARGE_PIECE_BYTES, PIECE_BYTES, _cuts


@given(st.integers(0, 2**40), st.integers(PIECE_BYTES + 1, 2**30))
def test_pieces_are_of_a_size_and_begin_at_its_multiples(start: int, size: int) -> None:
    cuts = _cuts(start, start + size)
    piece = LARGE_PIECE_BYTES if size > 2 * LARGE_PIECE_BYTES else PIECE_BYTES
    assert (cuts[0], cuts[-1]) == (start, start + size)
    assert all(cut % piece == 0 for cut in cuts[1:-1])
    assert all(piece / 2 <= end - at <= 2 * piece for at, end in pairwise(cuts))
