"""Self-attention as a layer."""

import equinox as eqx
from jaxtyping import Array, Float


class SelfAttention(eqx.Module):
    """g(z) = softmax(Q(z) K(z)ᵀ / √d) V(z) W, for a level of tokens: (tokens, width).

    **Arguments:** `attention`: an `eqx.nn.MultiheadAttention` whose query, key and value sizes are the
    level's width, without dropout.

    **Example:**
    ```python
    attention = eqx.nn.MultiheadAttention(2, 16, key=jax.random.key(0))
    tokenwise = eqx.filter_vmap(eqx.nn.LayerNorm(16))
    layer = Residual(Composed(tokenwise, SelfAttention(attention)))
    ```

    **Source:** Vaswani et al. 2017.
    """

    attention: eqx.nn.MultiheadAttention

    def __call__(self, z: Float[Array, "tokens width"]) -> Float[Array, "tokens out"]:
        return self.attention(z, z, z)
