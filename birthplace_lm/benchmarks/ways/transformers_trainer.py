"""transformers (Hugging Face): its GPT-2 in its own Trainer.

At its best: scaled dot-product attention, the fused AdamW, no cache of keys, nothing saved, logged or reported, no
loader workers, and no mask of padding, which in a causal model only costs time when the padding stands behind the text.
"""

import time
from collections.abc import Sequence
from itertools import cycle, islice
from operator import itemgetter
from tempfile import TemporaryDirectory
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from birthplace_lm.benchmarks.ways import BETAS, CLIP, LR, WEIGHT_DECAY, UnavailableError
from birthplace_lm.benchmarks.ways.sizes import Sizes
from birthplace_lm.layouts import IGNORE, Batch
from birthplace_lm.transformer import Transformer


class Gpt2Trainer:
    """GPT-2 of our model's sizes; micro-batches are what their Trainer calls gradient accumulation."""

    def __init__(self, model: Transformer, batches: Sequence[Batch]):
        try:
            import accelerate  # noqa: F401  # their Trainer asks for it only when it is made
            from transformers import GPT2Config, GPT2LMHeadModel
        except ImportError:
            raise UnavailableError(
                "transformers or accelerate is not installed: pip install 'birthplace-lm[training-peers]'"
            ) from None
        self.micro_batches = {len(batch.inputs) for batch in batches}
        if len(self.micro_batches) > 1:
            raise ValueError(f"every batch must have as many micro-batches, not now {self.micro_batches}")
        sizes = Sizes.of(model)
        self.model = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=sizes.vocabulary, n_positions=sizes.block_size, n_embd=sizes.d_model, n_layer=sizes.n_layers,
                n_head=sizes.n_heads, n_inner=sizes.hidden,
                activation_function="relu2" if sizes.relu_squared else "gelu",
                resid_pdrop=sizes.dropout, embd_pdrop=sizes.dropout, attn_pdrop=sizes.dropout,
                bos_token_id=None, eos_token_id=None, tie_word_embeddings=False, use_cache=False,
                attn_implementation="sdpa",
            )
        )  # fmt: skip
        sizes.check(self.model)
        self.batches, self.loss = batches, float("nan")  # the mean loss of the last run

    def run(self, steps: int) -> tuple[float, int]:
        """(seconds, real characters) of some steps; setting up the Trainer is not counted, as a run does it once."""
        from transformers import PrinterCallback, Trainer

        batches = list(islice(cycle(self.batches), steps))
        parts = [
            {"input_ids": x, "labels": y}
            for batch in batches
            for x, y in zip(batch.inputs, batch.targets, strict=True)
        ]  # fmt: skip
        watch = _watch()
        with TemporaryDirectory() as folder:
            trainer = Trainer(
                model=self.model, args=self._arguments(folder, steps), train_dataset=parts,
                data_collator=itemgetter(0), compute_loss_func=_loss, callbacks=[watch],
            )  # fmt: skip
            trainer.remove_callback(PrinterCallback)
            self.loss = trainer.train().training_loss
        return watch.seconds, sum(batch.n_characters for batch in batches)

    def _arguments(self, folder: str, steps: int) -> Any:
        from transformers import TrainingArguments

        (micro_batches,) = self.micro_batches
        return TrainingArguments(
            output_dir=folder, max_steps=steps, per_device_train_batch_size=1,  # an item is a micro-batch already
            gradient_accumulation_steps=micro_batches, train_sampling_strategy="sequential",
            remove_unused_columns=False, optim="adamw_torch_fused", learning_rate=LR, lr_scheduler_type="constant",
            adam_beta1=BETAS[0], adam_beta2=BETAS[1], weight_decay=WEIGHT_DECAY, max_grad_norm=CLIP,
            logging_strategy="no", save_strategy="no", eval_strategy="no", report_to="none", disable_tqdm=True,
            logging_nan_inf_filter=False, dataloader_num_workers=0, dataloader_pin_memory=False, use_cpu=True,
        )  # fmt: skip


def _loss(outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int) -> Tensor:
    """Our loss: the micro-batch's share of the mean cross-entropy a target of the whole batch."""
    logits = outputs.logits.flatten(0, 1)  # (B·T, V)
    return F.cross_entropy(logits, labels.flatten(), ignore_index=IGNORE, reduction="sum") / num_items_in_batch


def _watch() -> Any:
    """A callback that keeps the seconds between the start and the end of training."""
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        seconds = 0.0

        def on_train_begin(self, *arguments: Any, **keywords: Any) -> None:
            self.begin = time.perf_counter()

        def on_train_end(self, *arguments: Any, **keywords: Any) -> None:
            self.seconds = time.perf_counter() - self.begin

    return Watch()
