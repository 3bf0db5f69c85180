"""What the user chooses about the process: potential, force, gauge, start, horizon and noise scale.

The controlled process, in the user's units, is

    dx = ( f(t, x) + u ) dt + σ dW  on [0, T],   x(0) = x₀,
    at the least cost  E[ ∫ ( |u|²/2σ² + V(t, x) ) dt + ∫ A(t, x)ᵀ∘dx ],
    V = ½ (x−ν)ᵀβ(x−ν) + V₁ᵀx + V₀,    f = f₁x + f₀,    A = A₁x + A₀,

with coefficients constant on each piece of [0, T].
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._doors.checks import as_floating, check_count, check_positive_definite, check_single
from .._doors.show import brief, shown
from .._maths.maps import Map, dense
from .bridge import Affine


class GaussianStart(eqx.Module):
    """The start N(mean, covariance) of the reference. The end law is exact; the law of x(0) is the start's times ψ(0, ·)/Z."""

    mean: Float[Array, " d"]
    covariance: Map

    def __init__(self, mean, covariance):
        self.mean, self.covariance = as_floating("mean", mean), as_floating("covariance", covariance)
        dim = self.mean.size
        if self.mean.ndim != 1 or dim == 0 or self.covariance.shape not in ((), (dim,), (dim, dim)):
            raise ValueError(
                f"mean has shape {self.mean.shape} and covariance {self.covariance.shape}; pass shape (d,) and a scalar, a "
                "(d,) diagonal or a (d, d) matrix"
            )
        check_positive_definite("covariance", dense(self.covariance, dim)[None])

    def __repr__(self):
        return shown("GaussianStart", mean=self.mean, covariance=self.covariance)


class Protocol(eqx.Module):
    """Potential, force and gauge, constant on each of P pieces, with start and units.

    Made by `harmonic`, `piecewise` and `from_function`. Every leaf may be differentiated and learned.

    Attributes:
        beta: β, shape (P,), (P, d) or (P, d, d).
        centre: ν, shape (P, d).
        force, gauge: pairs of f₁ or A₁, shaped as β may be, and f₀ or A₀, shape (P, d).
        linear, constant: V₁, shape (P, d), and V₀, shape (P,).
        edges: the P + 1 ends of the pieces, from 0 to the horizon.
        start: x₀, shape (d,), or a `GaussianStart`.
        noise_scale: σ; None where the problem is rescaled.
    """

    beta: Float[Array, "P *map"]
    centre: Float[Array, "P d"] | None
    force: Affine | None
    gauge: Affine | None
    linear: Float[Array, "P d"] | None
    constant: Float[Array, " P"] | None
    edges: Float[Array, " ends"]
    start: Float[Array, " d"] | GaussianStart | None
    noise_scale: Float[Array, ""] | None

    def __repr__(self):
        if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(self)):
            return shown("Protocol", **{"beta": self.beta, "edges": self.edges})
        one = self.num_pieces == 1
        fields = {"beta": self.beta, "centre": self.centre, "linear": self.linear, "constant": self.constant}
        facts = {name: leaf[0] if one else leaf for name, leaf in fields.items() if leaf is not None}
        for name, field in (("force", self.force), ("gauge", self.gauge)):
            if field is not None:
                matrix, vector = (brief(leaf[0] if one else leaf) for leaf in field)
                facts[name] = f"({matrix}, {vector})"
        ends = {"start": self.start, "noise_scale": self.noise_scale}
        facts |= {name: value for name, value in ends.items() if value is not None}
        return shown("Protocol", **facts, horizon=self.horizon, pieces=self.num_pieces)

    @property
    def horizon(self) -> Float[Array, ""]:
        return self.edges[-1]

    @property
    def num_pieces(self) -> int:
        return self.beta.shape[0]

    def refine(self, factor: int = 2) -> "Protocol":
        """The same protocol with each piece cut into equal parts: more to learn, the same process.

        Raises:
            ValueError: a factor below one.
        """
        factor = check_count("factor", factor)
        fractions = jnp.arange(factor, dtype=self.edges.dtype) / factor
        starts = self.edges[:-1, None] + jnp.diff(self.edges)[:, None] * fractions[None]
        fields = (self.beta, self.centre, self.force, self.gauge, self.linear, self.constant)
        beta, centre, force, gauge, linear, constant = jax.tree.map(
            lambda leaf: jnp.repeat(leaf, factor, axis=0), fields
        )
        edges = jnp.append(starts.ravel(), self.edges[-1])
        return Protocol(beta, centre, force, gauge, linear, constant, edges, self.start, self.noise_scale)

    def check_dimension(self, dim: int, of: str = "the target") -> None:
        """Raise if a coefficient or the start is of another dimension."""
        check_single("the protocol", self.edges, 1)
        for name, shape in self.shapes():
            if any(size != dim for size in shape):
                is_map = name in ("beta", "the matrix of force", "the matrix of gauge", "the covariance of start")
                forms = f"a scalar, a ({dim},) diagonal or a ({dim}, {dim}) matrix" if is_map else f"shape ({dim},)"
                raise ValueError(f"{name} has shape {shape} but {of} has dimension {dim}; pass {forms}")

    def shapes(self) -> list[tuple[str, tuple[int, ...]]]:
        """The shapes of the coefficients on one piece, and of the start, by name."""
        named: list[tuple[str, Any]] = [("beta", self.beta), ("centre", self.centre)]
        for name, pair in (("force", self.force), ("gauge", self.gauge)):
            named += [] if pair is None else zip((f"the matrix of {name}", f"the vector of {name}"), pair, strict=True)
        shapes = [(name, leaf.shape[1:]) for name, leaf in [*named, ("linear", self.linear)] if leaf is not None]
        start: list[tuple[str, Any]] = [("start", self.start)]
        if isinstance(self.start, GaussianStart):
            start = [("the mean of start", self.start.mean), ("the covariance of start", self.start.covariance)]
        return shapes + [(name, leaf.shape) for name, leaf in start if leaf is not None]
