"""birthplace_lm: what facts a small language model stores in pretraining, and which attention gets them out again.

The files stand in the order in which the data goes through them; each imports only those above it.

    replacing                files that are whole at any moment
    corpus, people, world, sources   people: biographies and questions, from files or invented
    array_cache, mapped_texts, mapped_files     a million people: files as arrays that are made once and mapped
    tokenizer, token_store, corruption/         text to characters' ids, and to sequences with a span taken out
    wordings, batches, layouts, datamodules     questions in other words; which examples, in which order and layout
    layer_memory, positions/, attention/        what a layer keeps; interchangeable parts, one file a variant
    transformer, decoding, beam_search          characters to logits, questions to answers
    like_lengths, radix_tree, prefix_tree       the likeliest of known places
    adaptation/, optimization, torch_optimizers, schedules        what learns; parameter groups, Muon, learning rates
    gradients, cuda_graphs, finiteness          a batch's gradient, on a processor and on a GPU
    distillation             what finished models expect, as something to learn
    lightning_modules, callbacks                how a model learns, and what is seen of it
    history, loggers, storage, stopping, checkpoints   what is kept of it: figures, mirrors, weights, where to go on
    evaluation/              predictions and signals to measures with intervals
    self_training            what finished runs answer, as questions to learn
    exploration/             what one attention layer can be made to do by hand
    benchmarks/              how fast, and at what cost
    composing, setting_names      configurations to objects, and which settings there are
    provenance, identity, runs, teachers        what tells runs apart, the run folder, who may teach
    figures, attention_maps, attention_figure, attention_page     a run folder to pictures
    asking, knowledge, knowledge_figures, knowledge_report        what a run knows, and whether it knows that it knows
    scoring                  a run folder to a table
    run_corpus, jobs, stages   the people of a run; a run before it begins; pretrain -> finetune -> evaluate
    report/                  many run folders to tables, pictures and one page
    cli/                     one file a command
"""

__version__ = "0.1.0"
