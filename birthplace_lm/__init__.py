"""birthplace_lm: what facts a small language model stores in pretraining, and which attention gets them out again.

The files stand in the order in which the data goes through them; each imports only those above it.

    corpus, world, sources   people: biographies and questions, from files or invented
    tokenizer, corruption/   text to characters' ids, and to training sequences with a span taken out
    batches, datamodules     which examples, in which order; what Lightning is served
    positions/, attention/   interchangeable parts, one file a variant
    transformer, decoding    characters to logits, questions to answers
    optimization, schedules  parameter groups, Muon, learning rates
    lightning_modules, callbacks                how a model learns, and what is seen of it
    history, loggers, storage, checkpoints      what is kept of it: figures, mirrors, weights, where to go on
    evaluation/              predictions to figures
    composing, provenance, runs       configurations to objects, and the run folder
    figures, scoring         a run folder to pictures and a table
    jobs, stages             a run before it begins; pretrain -> finetune -> evaluate
    cli/                     one file a command
"""

__version__ = "0.1.0"
