"""Causal attention, interchangeable: one file a variant, no variant knows another.

The contract, which the tests hold every file of this folder to:

    Variant(d_model, n_heads, block_size, dropout, positions, <its own knobs>)
    forward(x: (B, T, D), cache: dict[str, Tensor] | None = None) -> (B, T, D)

- position i of the output depends on positions <= i of x only;
- the variant owns its projections, and initialises what must differ from the model's N(0, 0.02);
- `cache` holds what earlier calls left behind, and x continues from there: the outputs of many short calls with one
  cache are those of one long call without; what it holds has the batch as its first dimension, so that rows can be
  dropped from it;
- it may say `forks = True`, and then finds in a `LayerMemory` with a `trunk` only what came behind that: many rows go
  on from few without a copy of what they share. It then keeps its keys and values as `k` and `v`, (B, G, S, K) each;
- `max_length` is the longest sequence it can see;
- `weights` is a submodule through which the attention weights (B, H, T, S) pass: a forward hook on it reads them, on
  every call. Where a layer gets by without them, it computes them only while such a hook is registered. The last
  column is the newest position; a layer that lets go of old ones has fewer columns, for those it still keeps.

Legend: B batch, T time (new positions), S all positions so far, D width, H heads, K = D/H.
"""
