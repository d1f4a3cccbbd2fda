"""birthplace-bench attention, peers and facts: single layers, and the table of the variants."""

import argparse
from typing import Any

from birthplace_lm.cli.bench_parts import config, in_words, machine, model_of, printed, variants


def attention(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Every variant's layer against vanilla's: figures, and their table."""
    from birthplace_lm.benchmarks import attention
    from birthplace_lm.composing import build

    names = dict.fromkeys([attention.BASELINE, *variants(options)])
    factories = {name: build(config("attention", name)) for name in names}
    size = attention.Size(tokens=options.tokens)
    rows = attention.compare(factories, options.lengths, options.repetitions, options.patience, size)
    print(f"{'T':>5} {'attention':30} {'µs a token':>10} {'ratio':>7} {'counted':>8} {'in time':>8} {'over it':>8}")
    shown = printed(
        rows,
        lambda row: (
            f"{row['length']:5} {row['attention']:30} {row['microseconds_a_token']:10.1f} {row['ratio']:7.2f} "
            f"{row['arithmetic_ratio']:8.2f} {row['arithmetic_time_ratio']:8.2f} {row['over_arithmetic_time']:8.2f}"
        ),
    )
    return {**machine(), "attention": shown}, attention.markdown(shown)


def peers(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Our layers against those of x-transformers with the same weights: figures, and their table."""
    from birthplace_lm.benchmarks import peers
    from birthplace_lm.composing import ConfigError

    try:
        import x_transformers  # noqa: F401
    except ImportError:
        raise ConfigError("x-transformers is not installed: pip install 'birthplace-lm[peers]'") from None
    print(f"{'variant':16} {'difference':>11} {'in float64':>11} {'ours / theirs':>14}")
    shown = printed(
        peers.compare(options.repetitions),
        lambda row: (
            f"{row['variant']:16} {row['difference_float32']:11.1e} {row['difference_float64']:11.1e} "
            f"{row['ratio']:14.2f}   ({', '.join(f'{way} {ms:.0f} ms' for way, ms in row['milliseconds'].items())})"
        ),
    )
    return {**machine(), "peers": shown}, peers.markdown(shown)


def facts(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """The table of birthplace_lm/attention/README.md, written there."""
    from birthplace_lm.benchmarks import facts
    from birthplace_lm.world import World

    where = options.folder or facts.folder()
    models = {name: model_of(name, "cs224n") for name in variants(argparse.Namespace(attention=None))}
    chosen = {name: models[name] for name in variants(options)}
    before = facts.read(where / "facts.json")
    documents = World(people=2937).corpus().documents if "speed" in options.only else ()
    made = facts.regenerate(chosen, options.only, before, documents, options.lookup, options.repetitions, in_words())
    rows = {name: made.get(name, before.get(name, {})) for name in models}
    facts.write(rows, where)
    print(facts.table(rows), end="")
    return {"attention": rows}, facts.table(rows)
