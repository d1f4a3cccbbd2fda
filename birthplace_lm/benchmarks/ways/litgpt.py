"""litgpt (Lightning AI): its GPT in a plain loop, since its own trainer wants tokenizers and checkpoint folders.

It knows no learned positions and no dropout. It gets its own default, rotary positions on a quarter of every head (as
in Pythia), and is compared only where our model has no dropout either.
"""

from collections.abc import Sequence

from birthplace_lm.benchmarks.ways import UnavailableError
from birthplace_lm.benchmarks.ways.plain_loop import PlainLoop
from birthplace_lm.benchmarks.ways.sizes import Sizes
from birthplace_lm.layouts import Batch
from birthplace_lm.transformer import Transformer


def litgpt_loop(model: Transformer, batches: Sequence[Batch]) -> PlainLoop:
    """Their GPT of our model's sizes, sequential residuals, starting as they start it."""
    sizes = Sizes.of(model)
    if sizes.dropout:
        raise UnavailableError(f"it has no dropout and our model has {sizes.dropout}: compare with --dropout 0")
    if sizes.relu_squared:
        raise UnavailableError("it has no ReLU²: compare with a model with GELU, such as --model cs224n")
    try:
        from litgpt.config import Config
        from litgpt.model import GPT
    except ImportError:
        raise UnavailableError("litgpt is not installed: pip install 'birthplace-lm[training-peers]'") from None
    theirs = GPT(
        Config(
            block_size=sizes.block_size,
            vocab_size=sizes.vocabulary,
            padded_vocab_size=sizes.vocabulary,
            n_layer=sizes.n_layers,
            n_embd=sizes.d_model,
            n_head=sizes.n_heads,
            intermediate_size=sizes.hidden,
            bias=sizes.mlp_bias,
            attn_bias=True,
            parallel_residual=False,
        )
    )
    theirs.apply(theirs._init_weights)
    sizes.check(theirs)
    return PlainLoop(theirs, batches)
