"""A network for n particles in space that commutes with what leaves their energy as it is, after Satorras et al.

    N(t, R x) = R N(t, x)   for rotations, reflections and renumberings R,     N(t, x + shift) = N(t, x),     Σ_i N_i = 0

    m_ij = φ_m(h_i, h_j, log(1 + |r_i − r_j|²))        messages between particles, from h_i = e(t) + b(c) at first
    r_i  ← r_i + mean_j (r_i − r_j) φ_r(m_ij)          N: how far all layers together move them, less how far their centre
    h_i  ← h_i + φ_h(h_i, mean_j m_ij)

φ_r = 0 at first. Nothing is divided by a distance, so particles may coincide; the logarithm keeps forces between distant
ones from growing as powers of their distance.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, DTypeLike, Float, Key

from .._doors.checks import as_dtype, check_count, check_key
from .._doors.show import shown
from .._maths.centred import helmert
from .._maths.small import matmul
from .context import AbstractNetwork, Embedding
from .layers import as_point_for, zero_last_layer


def centred_basis(num_particles: int, *, dtype: DTypeLike | None = None) -> Float[Array, "n m"]:
    """B of shape (n, n − 1), with BᵀB = I and BBᵀ = I − 11ᵀ/n: coordinates of n particles whose centre is the origin.

        B_ik = 1/√(k(k + 1)) for i ≤ k,     B_ik = −k/√(k(k + 1)) for i = k + 1,     0 for i > k + 1      (Helmert's matrix)

    Positions in space are r = B z, (n, s), of coordinates z = Bᵀ r, (n − 1, s): of the same distances and volume.

    Args:
        num_particles: n ≥ 2.
        dtype: JAX's default if left out.

    Raises:
        ValueError: `num_particles` not an integer ≥ 2; a dtype that is neither float32 nor float64.

    Example:
        >>> centred_basis(2).round(3)
        Array([[ 0.707],
               [-0.707]], dtype=float32)
        >>> positions = centred_basis(3) @ jnp.arange(4.0).reshape(2, 2)
        >>> bool(jnp.allclose(positions.sum(0), 0, atol=1e-6))
        True
    """
    return jnp.asarray(helmert(_check_particles(num_particles)), as_dtype(dtype))


class ParticleNetwork(AbstractNetwork):
    """N(t, x; c) of n particles in space of s dimensions, which turns, is mirrored and renumbered with them.

    Its origin is that of the unit problem, in which a correction lives: the user's, if the protocol is given a noise scale.

    Args:
        key: of the initial weights.
        num_particles: n ≥ 2.
        space_dim: s; x has the positions one after the other, x.reshape(n, s), and N likewise.
        centred: x and N have (n − 1)s coordinates instead, of positions whose centre is the origin, which are
            centred_basis(n) @ x.reshape(n − 1, s): for energies that do not change when all particles are moved, whose density
            has no finite mass otherwise.
        context_dim: of the vector c that tells members of a family of energies apart, as a temperature; none if 0.
        width: of messages, of h_i, and of the one hidden layer of φ_m, φ_r and φ_h.
        depth: of layers, each of which lets every two particles exchange messages once.
        dtype: of the weights; JAX's default if left out.

    Raises:
        ValueError: `num_particles` not an integer ≥ 2; `space_dim`, `width` or `depth` not one ≥ 1, `context_dim` not one ≥ 0;
            a dtype that is neither float32 nor float64; when called, an x or a context of another shape or dtype than the
            network is made for.

    Example:
        >>> network = ParticleNetwork(jax.random.key(0), 4, 2, centred=True)
        >>> network
        ParticleNetwork(num_particles=4, space_dim=2, dim=6, width=64, depth=2)
        >>> network(0.5, jnp.arange(6.0)).tolist()
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.0]

    Source: Satorras, Hoogeboom & Welling, *E(n) Equivariant Graph Neural Networks*, arXiv 2102.09844, eqs. 3–6.
    """

    embedding: Embedding
    layers: tuple["MessagePassing", ...]
    num_particles: int = eqx.field(static=True)
    space_dim: int = eqx.field(static=True)
    centred: bool = eqx.field(static=True)

    def __init__(
        self,
        key: Key[Array, ""],
        num_particles: int,
        space_dim: int,
        *,
        centred: bool = False,
        context_dim: int = 0,
        width: int = 64,
        depth: int = 2,
        dtype: DTypeLike | None = None,
    ):
        check_key("key", key)
        self.num_particles, self.space_dim = _check_particles(num_particles), check_count("space_dim", space_dim)
        self.centred = bool(centred)
        width, depth, dtype = check_count("width", width), check_count("depth", depth), as_dtype(dtype)
        key_time, *keys = jax.random.split(key, depth + 1)
        self.embedding = Embedding(key_time, jax.random.fold_in(key, depth + 1), width, context_dim, dtype)
        self.layers = tuple(
            MessagePassing(key, width, dtype, is_last=number == depth) for number, key in enumerate(keys, 1)
        )

    def __repr__(self):
        context = {"context_dim": self.embedding.context_dim} if self.embedding.context_dim else {}
        sizes = {"dim": self.dim, **context, "width": self.embedding.of_time.width_size, "depth": len(self.layers)}
        return shown("ParticleNetwork", num_particles=self.num_particles, space_dim=self.space_dim, **sizes)

    @property
    def dim(self) -> int:
        """The dimension d of x and of N: n s, or (n − 1)s if centred."""
        return (self.num_particles - self.centred) * self.space_dim

    def __call__(self, t: ArrayLike, x: ArrayLike, context: ArrayLike | None = None) -> Float[Array, " d"]:
        made_for = jax.ShapeDtypeStruct((self.dim,), self.embedding.of_time.layers[-1].weight.dtype)
        t, x = as_point_for(made_for, t, x)
        start = self._positions(x)
        embedded = self.embedding(t, self.embedding.as_context(context))
        features = jnp.broadcast_to(embedded[None], (len(start), embedded.size))
        moved = jnp.zeros_like(start)
        for layer in self.layers:
            features, step = layer(features, start + moved)
            moved = moved + step
        return self._coordinates(moved)

    def _positions(self, x: Float[Array, " d"]) -> Float[Array, "n s"]:
        rows = x.reshape(-1, self.space_dim)
        return matmul(centred_basis(self.num_particles, dtype=x.dtype), rows) if self.centred else rows

    def _coordinates(self, moved: Float[Array, "n s"]) -> Float[Array, " d"]:
        """Of how far the particles move, without how far their centre does."""
        if self.centred:
            return matmul(centred_basis(self.num_particles, dtype=moved.dtype).T, moved).reshape(-1)
        return (moved - jnp.mean(moved, 0, keepdims=True)).reshape(-1)


class MessagePassing(eqx.Module):
    """One layer: the next features h_i and the step of r_i. The last layer leaves the features as they are.

    The first of the two layers of φ_m is A_r h_i + A_s h_j + A_d log(1 + |r_i − r_j|²), of which A_r h and A_s h are computed
    once a particle.
    """

    of_receiver: eqx.nn.Linear
    of_sender: eqx.nn.Linear
    of_distance: eqx.nn.Linear
    to_message: eqx.nn.Linear
    to_step: eqx.nn.MLP
    to_features: eqx.nn.MLP | None

    def __init__(self, key: Key[Array, ""], width: int, dtype: np.dtype, *, is_last: bool):
        keys = iter(jax.random.split(key, 6))
        self.of_receiver = eqx.nn.Linear(width, width, dtype=dtype, key=next(keys))
        self.of_sender = eqx.nn.Linear(width, width, use_bias=False, dtype=dtype, key=next(keys))
        self.of_distance = eqx.nn.Linear("scalar", width, use_bias=False, dtype=dtype, key=next(keys))
        self.to_message = eqx.nn.Linear(width, width, dtype=dtype, key=next(keys))
        to_step = eqx.nn.MLP(width, "scalar", width, 1, jax.nn.silu, dtype=dtype, key=next(keys))
        self.to_step = zero_last_layer(to_step)
        to_features = eqx.nn.MLP(2 * width, width, width, 1, jax.nn.silu, dtype=dtype, key=next(keys))
        self.to_features = None if is_last else to_features

    def __call__(
        self, features: Float[Array, "n width"], positions: Float[Array, "n s"]
    ) -> tuple[Float[Array, "n width"], Float[Array, "n s"]]:
        apart = positions[:, None] - positions[None]
        distance = jnp.log1p(jnp.sum(apart**2, -1))
        of_pair = jax.vmap(self.of_receiver)(features)[:, None] + jax.vmap(self.of_sender)(features)[None]
        of_pair = of_pair + _of_pairs(self.of_distance)(distance)
        messages = jax.nn.silu(_of_pairs(self.to_message)(jax.nn.silu(of_pair)))
        step = jnp.mean(apart * _of_pairs(self.to_step)(messages)[..., None], 1)
        if self.to_features is None:
            return features, step
        heard = jnp.concatenate([features, jnp.mean(messages, 1)], 1)
        return features + jax.vmap(self.to_features)(heard), step


def _of_pairs(function: Callable) -> Callable:
    return jax.vmap(jax.vmap(function))


def _check_particles(num_particles: int) -> int:
    if check_count("num_particles", num_particles) < 2:
        raise ValueError("num_particles is 1; pass an integer >= 2")
    return int(num_particles)
