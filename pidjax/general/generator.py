"""One generator on the cells of a box, and how far it moves a function of them in one step of time.

    (Lψ)_i = Σ_axes  u_i (ψ_{i+1} − ψ_i) + d_i (ψ_{i−1} − ψ_i),      u = B(−2bh)/2h²,   d = B(2bh)/2h²,   B(z) = z/(e^z − 1)

with the drift b at the face between the two cells: the mean displacement h(u − d) is b exactly, and for every drift the rates
are positive, so that L is minus an M-matrix whose rows sum to zero (Scharfetter & Gummel; Chang & Cooper). Its error is O(h²).

In a step of time dt, ψ ← S ψ with S = D E_1 … E_d D, D = e^{−½ dt Ṽ} at the step's middle, and the forward masses φ ← Sᵀ φ by
the transpose, so that ⟨φ, ψ⟩ is kept to rounding. Along each axis

    exact       E = e^{dt L}, one dense matrix for all lines and times, where the axis's drift is its own and constant in time
    implicit    E = (1 − dt L)⁻¹, a tridiagonal system a line, elsewhere and where there are walls

Both are positive for every dt. Where all axes are exact they commute, and the splitting from D is of second order in dt; an
implicit axis makes it first order.

Source: Scharfetter & Gummel, *IEEE Transactions on Electron Devices* 1969; Chang & Cooper, *J. Comput. Phys.* 1970.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
from jaxtyping import Array, Float

from .._doors.checks import concrete
from .._doors.functions import evaluate
from .._maths.small import HIGHEST, tridiagonal_solve
from .box import Box, at_points
from .process import Process

_TERMS = 9
_SQUARINGS = 40
_SMALL = 1e-2
_COMPARISONS = frozenset(
    {"eq", "ne", "lt", "le", "gt", "ge", "is_finite", "argmax", "argmin", "sort", "top_k", "pure_callback"}
)


class Generator(eqx.Module):
    """The steps of a process on the cells of a box.

    Attributes:
        exact: for each axis e^{dt L}, shape (n, n), or None where the step is implicit.
        step: dt.
    """

    process: Process
    box: Box
    step: Float[Array, ""]
    exact: tuple[Float[Array, "n n"] | None, ...]

    def half(self, t: Float[Array, ""]) -> Float[Array, "*cells"]:
        """D: e^{−½ dt Ṽ} at the middle of the step, zero outside the walls."""
        killing = at_points(lambda x: self.process.killing(t, x), self.box.points)
        return jnp.where(self.box.are_inside, jnp.exp(-0.5 * self.step * killing), 0)

    def backward(self, axis: int, t: Float[Array, ""], values: Float[Array, "*cells"]) -> Float[Array, "*cells"]:
        """E ψ along an axis."""
        return self._along(axis, t, values, transposed=False)

    def forward(self, axis: int, t: Float[Array, ""], masses: Float[Array, "*cells"]) -> Float[Array, "*cells"]:
        """Eᵀ φ along an axis."""
        return self._along(axis, t, masses, transposed=True)

    def rows(self, axis: int, t: Float[Array, ""], cells: tuple[Array, ...]) -> Float[Array, "m n"]:
        """The rows of E along an axis that belong to given cells: where from these one step leads, and how likely."""
        exact = self.exact[axis]
        if exact is not None:
            return exact[cells[axis]]
        others = tuple(index for other, index in enumerate(cells) if other != axis)
        up, down = (
            jnp.broadcast_to(rate[others], (cells[axis].size, rate.shape[-1]))
            for rate in rates_along(self.process, self.box, axis, t)
        )
        at = jax.nn.one_hot(cells[axis], self.box.shape[axis], dtype=self.step.dtype)
        return solved(up, down, self.step, at, transposed=True)

    def _along(self, axis, t, values, *, transposed: bool):
        exact, lines = self.exact[axis], jnp.moveaxis(values, axis, -1)
        if exact is not None:
            moved = jnp.matmul(lines, exact if transposed else exact.T, precision=HIGHEST)
        else:
            up, down = rates_along(self.process, self.box, axis, t)
            moved = solved(up, down, self.step, lines, transposed=transposed)
        return jnp.moveaxis(moved, -1, axis)


def generator(process: Process, box: Box, step: Float[Array, ""]) -> Generator:
    """The steps of a process, with the dense matrices made."""

    def exact(axis):
        if not is_own(process, box, axis):
            return None
        up, down = _rates(process, box, axis, jnp.zeros((), box.lower.dtype), _one_line(box, axis))
        return exponential(up, down, step)

    return Generator(process, box, step, tuple(exact(axis) for axis in range(box.dim)))


def is_own(process: Process, box: Box, axis: int) -> bool:
    """Whether an axis's drift is a function of its own coordinate alone: finite where all others and the time are NaN.

    Whatever the parameters: those that are traced are one here. What compares or rounds drops a NaN, so a drift that does is
    taken to depend on all. Walls make every line another one.

    Example:
        >>> box = Box([-1.0, -1.0], [1.0, 1.0], (4, 4))
        >>> apart, vortex = Process(force=lambda t, x: -(x**3)), Process(force=lambda t, x: jnp.stack([-x[1], x[0]]))
        >>> [is_own(process, box, 0) for process in (apart, vortex)]
        [True, False]
    """
    if box.inside is not None:
        return False
    made_for = jax.ShapeDtypeStruct((box.dim,), box.lower.dtype)
    traced = jax.make_jaxpr(process.drift)(jax.ShapeDtypeStruct((), made_for.dtype), made_for)
    if _drops_nan(traced.jaxpr):
        return False
    with jax.ensure_compile_time_eval(), jax.debug_nans(False):
        constants = [
            jnp.ones(value.shape, value.dtype) if concrete(value) is None else value for value in traced.consts
        ]
        program = jaxpr_as_fun(ClosedJaxpr(traced.jaxpr, constants))
        is_traced = concrete(box.lower) is None or concrete(box.upper) is None
        corners = (jnp.zeros(box.dim), jnp.ones(box.dim)) if is_traced else (box.lower, box.upper)
        lower, upper = (jnp.asarray(corner, made_for.dtype) for corner in corners)

        def drift(face):
            others = jnp.where(jnp.arange(box.dim) == axis, face, jnp.nan)
            return program(jnp.full((), jnp.nan, face.dtype), others)[0][axis]

        return bool(jnp.all(jnp.isfinite(jax.vmap(drift)(_one_line(Box(lower, upper, box.shape), axis)))))


def _drops_nan(jaxpr) -> bool:
    """Whether it compares, or makes integers of numbers, anywhere."""
    for equation in jaxpr.eqns:
        name, to = equation.primitive.name, equation.params.get("new_dtype")
        if name in _COMPARISONS or (to is not None and not jnp.issubdtype(to, jnp.floating)):
            return True
        inner = [value for value in jax.tree.leaves(equation.params, is_leaf=_is_program) if _is_program(value)]
        if any(_drops_nan(getattr(program, "jaxpr", program)) for program in inner):
            return True
    return False


def _is_program(value) -> bool:
    return hasattr(value, "eqns") or hasattr(value, "jaxpr")


def rates_along(
    process: Process, box: Box, axis: int, t: Float[Array, ""]
) -> tuple[Float[Array, "*lines faces"], Float[Array, "*lines faces"]]:
    """(u, d): from a cell to the next along an axis, and back, for each face between two; zero through walls."""
    rates = _rates(process, box, axis, t, jnp.moveaxis(box.faces(axis), axis, -2))
    if box.inside is None:
        return rates
    inside = jnp.moveaxis(box.are_inside, axis, -1)
    is_open = inside[..., 1:] & inside[..., :-1]
    up, down = (jnp.where(is_open, rate, 0) for rate in rates)
    return up, down


def _rates(process: Process, box: Box, axis: int, t, faces: Float[Array, "*lines faces d"]):
    spacing = box.spacing[axis]
    drift = at_points(lambda x: evaluate(process.drift, t, x)[axis], faces)
    up, down = (bernoulli(sign * 2 * drift * spacing) / (2 * spacing**2) for sign in (-1, 1))
    return up, down


def _one_line(box: Box, axis: int) -> Float[Array, "faces d"]:
    """The faces along the first of an axis's lines."""
    centres = box.centres(axis)
    others = [box.centres(other)[0] for other in range(box.dim)]
    others[axis] = centres[:-1] + 0.5 * box.spacing[axis]
    return jnp.stack(jnp.broadcast_arrays(*others), axis=-1)


def bernoulli(z: Float[Array, "..."]) -> Float[Array, "..."]:
    """B(z) = z/(e^z − 1), 1 at zero; its derivatives are finite there.

    Example:
        >>> bernoulli(jnp.array([-200.0, 0.0, 200.0])).tolist()
        [200.0, 1.0, 0.0]
    """
    small = jnp.abs(z) < _SMALL
    safe = jnp.where(small, 1, z)
    positive = jnp.abs(safe)
    of_positive = positive * jnp.exp(-positive) / -jnp.expm1(-positive)
    return jnp.where(small, 1 - z / 2 + z**2 / 12, of_positive + jnp.maximum(-safe, 0))


def exponential(
    up: Float[Array, " faces"], down: Float[Array, " faces"], step: Float[Array, ""]
) -> Float[Array, "n n"]:
    """e^{dt L} for one line: a sum of positive terms of L + λ, so exact zeros apart it has no cancellation, and squarings.

    Example:
        >>> half = exponential(jnp.ones(3), jnp.ones(3), jnp.array(50.0))
        >>> bool(jnp.allclose(half, 0.25, atol=1e-5))
        True
    """
    n, dtype = up.size + 1, up.dtype
    leaving = jnp.pad(up, (0, 1)) + jnp.pad(down, (1, 0))
    most = step * jnp.max(leaving)
    squarings = jax.lax.stop_gradient(jnp.clip(jnp.ceil(jnp.log2(jnp.maximum(most, 1e-6))), 0, _SQUARINGS))
    part = 2.0**-squarings
    own = part * (most - step * leaving)
    jumps = jnp.diag(own) + part * step * (jnp.diag(up, 1) + jnp.diag(down, -1))
    total = term = jnp.eye(n, dtype=dtype)
    for power in range(1, _TERMS):
        term = jnp.matmul(term, jumps, precision=HIGHEST) / power
        total = total + term
    total = total * jnp.exp(-part * most)

    def square(number, matrix):
        return jax.lax.cond(
            number < squarings, lambda: jnp.matmul(matrix, matrix, precision=HIGHEST), lambda: matrix
        ), None

    numbers = jnp.arange(_SQUARINGS).astype(dtype)
    squared = jax.lax.scan(lambda matrix, number: square(number, matrix), total, numbers)[0]
    return squared / jnp.sum(squared, axis=1, keepdims=True)


def solved(
    up: Float[Array, "*lines faces"],
    down: Float[Array, "*lines faces"],
    step: Float[Array, ""],
    values: Float[Array, "*lines n"],
    *,
    transposed: bool,
) -> Float[Array, "*lines n"]:
    """(1 − dt L)⁻¹ ψ along lines, or the transpose's."""
    rest = [(0, 0)] * (up.ndim - 1)
    diagonal = 1 + step * (jnp.pad(up, [*rest, (0, 1)]) + jnp.pad(down, [*rest, (1, 0)]))
    below, above = (-step * down, -step * up) if not transposed else (-step * up, -step * down)
    below, above = jnp.pad(below, [*rest, (1, 0)]), jnp.pad(above, [*rest, (0, 1)])
    return tridiagonal_solve(below, diagonal, above, values)
