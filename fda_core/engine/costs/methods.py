"""Work of a merge method on one tensor, from its shape and the number of experts.

Products are exact for the methods that results are compared with (task arithmetic, TSV-M, WUDI
by Adam and its closed forms), which tests hold to what they do; the other matrix methods get a
figure by their cost class, good to a factor of a few. What the engine does around a method
(widening, subtracting, statistics of the result) is counted with it.
"""

from collections.abc import Callable, Sequence

from fda_core.contract.plan import PlannedTensor
from fda_core.engine.costs.shapes import numel
from fda_core.engine.costs.work import Work
from fda_core.methods.base import Method, is_layer_matrix
from fda_core.methods.wudi import FilteredWudi, Wudi

EIGEN = 9
"""FLOP per n³ of a symmetric eigendecomposition with vectors: the nominal count."""
SVD = 20
"""FLOP per o·i·min(o, i) of a thin singular value decomposition."""
TRAFFIC_OF_EXPERT = 8
"""Elements read and written per element: widening, subtracting, statistics, adding."""
TRAFFIC_OF_RESULT = 14
"""The same of base and result, whatever the experts."""
LAUNCHES_OF_TENSOR = 20
ADAM_TRAFFIC = 22
"""Elements read and written per element and step of Adam, beside the product."""
ADAM_LAUNCHES = 10
WIDE = 8


def method_work(method: Method | None, tensor: PlannedTensor, *, item: int) -> Work:
    """Return what merging one tensor takes beside reading and writing; no method keeps the base."""
    experts, size = len(tensor.experts), numel(tensor.shape)
    work = Work(
        element_flops=2 * size * experts,
        traffic_bytes=item * size * (TRAFFIC_OF_RESULT + TRAFFIC_OF_EXPERT * experts),
        launches=LAUNCHES_OF_TENSOR * (experts + 1),
    )
    if method is None or not experts or not is_layer_matrix(tensor.layer, tensor.shape):
        return work
    return work + _matrix_work(method, tensor.matrix_shape, experts, item)


def _matrix_work(method: Method, shape: Sequence[int], experts: int, item: int) -> Work:
    rows, columns = shape
    if method.name == "tsvm":
        return _tsvm(rows, columns, experts)
    if isinstance(method, Wudi) and method.parameters.solver == "adam":
        return _adam(rows, columns, experts, steps=method.parameters.steps, item=item)
    if isinstance(method, Wudi | FilteredWudi):
        return _filtered(rows, columns, experts)
    rough: dict[str, Callable[[], Work]] = {
        "B": lambda: Work(
            factor_flops=SVD * rows * columns * min(rows, columns) * (experts + 2),
            launches=10 * (experts + 2),
        ),
        "C": lambda: _adam(
            rows, columns, experts, steps=int(getattr(method.parameters, "steps", 300)), item=item
        ),
    }
    return rough.get(method.cost, Work)()


def _tsvm(rows: int, columns: int, experts: int) -> Work:
    """Return a Gram route per expert, two polar factors of the stacks, and their product."""
    short, long = sorted((rows, columns))
    kept = max(1, short // experts)
    stack = kept * experts
    each = Work(
        wide_flops=2 * short * short * long + 2 * short * kept * long,
        factor_flops=EIGEN * short**3,
        product_bytes=WIDE * (2 * short * long + 2 * short * short),
        launches=20,
    )
    joined = Work(flops=2 * rows * columns * stack, launches=20)
    return each * experts + _polar(rows, stack) + _polar(columns, stack) + joined


def _polar(side: int, stack: int) -> Work:
    """Return (X Xᵀ)^(-1/2) X of a stack of that many vectors."""
    short, long = sorted((side, stack))
    return Work(
        wide_flops=4 * short * short * long + 2 * short**3,
        factor_flops=EIGEN * short**3,
        product_bytes=WIDE * (3 * short * long + 4 * short * short),
        launches=20,
    )


def _adam(rows: int, columns: int, experts: int, *, steps: int, item: int) -> Work:
    """Return C and D from every expert, then steps of M C − D and Adam."""
    square = columns * columns * rows
    if rows > columns:
        formed = Work(flops=4 * square)
    else:
        formed = Work(flops=2 * square + 4 * rows * rows * columns)
    size = rows * columns
    step = Work(
        flops=2 * square,
        product_bytes=item * (2 * size + columns * columns),
        traffic_bytes=item * ADAM_TRAFFIC * size,
        launches=ADAM_LAUNCHES,
    )
    if experts == 1:
        return formed
    return formed * experts + step * steps


def _filtered(rows: int, columns: int, experts: int) -> Work:
    """Return the closed form, in the space of columns or of all experts' rows."""
    size, stack = rows * columns, rows * experts
    if stack < columns:
        wide = 2 * stack * stack * columns + 2 * rows * rows * stack * experts
        wide += 2 * rows * stack * stack + 2 * rows * stack * columns
        return Work(
            wide_flops=wide,
            factor_flops=EIGEN * stack**3,
            product_bytes=WIDE * (2 * stack * columns + 3 * stack * stack),
            launches=30 * experts,
        )
    short, long = sorted((rows, columns))
    each = Work(
        wide_flops=2 * columns * columns * rows + 4 * short * short * long,
        product_bytes=WIDE * (4 * size + 2 * columns * columns),
        launches=30,
    )
    return each * experts + Work(
        wide_flops=6 * size * columns,
        factor_flops=EIGEN * columns**3,
        product_bytes=WIDE * (6 * size + 4 * columns * columns),
        launches=20,
    )
