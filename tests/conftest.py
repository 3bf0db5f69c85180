"""Strictness for every test: 64 bits available, no silent promotion of ranks or dtypes, annotations checked at run time."""

import jax

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

from jaxtyping import install_import_hook  # noqa: E402

with install_import_hook("pidjax", "beartype.beartype"):
    import pidjax  # noqa: F401
