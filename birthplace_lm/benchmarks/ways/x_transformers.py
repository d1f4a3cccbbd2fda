"""x-transformers (Phil Wang): its TransformerWrapper and Decoder in a plain loop."""

from collections.abc import Sequence

from birthplace_lm.benchmarks.ways import UnavailableError
from birthplace_lm.benchmarks.ways.plain_loop import PlainLoop
from birthplace_lm.benchmarks.ways.sizes import Sizes
from birthplace_lm.layouts import Batch
from birthplace_lm.transformer import Transformer


def x_transformers_loop(model: Transformer, batches: Sequence[Batch]) -> PlainLoop:
    """Their decoder of our model's sizes, with learned positions and flash attention; its projections have no bias."""
    try:
        from x_transformers import Decoder, TransformerWrapper
    except ImportError:
        raise UnavailableError("x-transformers is not installed: pip install 'birthplace-lm[peers]'") from None
    sizes = Sizes.of(model)
    decoder = Decoder(
        dim=sizes.d_model,
        depth=sizes.n_layers,
        heads=sizes.n_heads,
        attn_dim_head=sizes.d_model // sizes.n_heads,
        attn_flash=True,
        attn_dropout=sizes.dropout,
        attn_sublayer_dropout=sizes.dropout,
        ff_mult=sizes.hidden / sizes.d_model,
        ff_relu_squared=sizes.relu_squared,
        ff_no_bias=not sizes.mlp_bias,
        ff_sublayer_dropout=sizes.dropout,
    )
    theirs = TransformerWrapper(
        num_tokens=sizes.vocabulary, max_seq_len=sizes.block_size, attn_layers=decoder, emb_dropout=sizes.dropout
    )
    sizes.check(theirs)
    return PlainLoop(theirs, batches)
