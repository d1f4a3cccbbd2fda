"""How firm an answer is: the share of networks thinned by dropout that would give it too.

Gal & Ghahramani 2016 (arXiv 1506.02142): such networks are draws of one that might have been learned as well. One
agrees when every character of the answer is its likeliest, knowing those before it; what it would say instead need not
be known. So all of an answer is read at once, and of those that differ in the first character only that.

Legend: B questions, R rows (a question in one sample), L its characters, T those of an answer.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from birthplace_lm.decoding import MAX_NEW_TOKENS, Answer, fork_cache, prompts_of, read_beginning
from birthplace_lm.like_lengths import like_lengths, of_one_length
from birthplace_lm.tokenizer import MASK_ID, PAD_ID, CharTokenizer
from birthplace_lm.transformer import Transformer, in_mode

_ROWS = 512  # read together at most


@torch.inference_mode()
def dropout_agreement(
    model: Transformer,
    tokenizer: CharTokenizer,
    questions: Sequence[str],
    answers: Sequence[Answer],
    samples: int = 10,
    seed: int = 0,
) -> np.ndarray:
    """The share of `samples` with dropout on that give the greedy answer, character for character: (B,), in [0, 1].

    Every character draws its own mask, as training does at every position, but for those that all questions begin with:
    they are drawn once for each sample of the questions that are read together. The same for the same seed, questions
    and thread count; torch's random state is left as it was. Raises ValueError for no sample, or for answers that are
    not one a question.
    """
    if samples < 1:
        raise ValueError(f"agreement of {samples} samples is not defined: draw one or more")
    if not questions:
        return np.zeros(0)
    prompts = prompts_of(model, tokenizer, questions)
    pairs = zip(prompts, answers, strict=True)
    said = [_characters(answer, tokenizer, model.max_length + 1 - len(prompt)) for prompt, answer in pairs]
    device = next(model.parameters()).device
    agreed = torch.zeros(len(questions), dtype=torch.float64, device=device)  # (B,)
    with torch.random.fork_rng(), in_mode(model, training=True):
        torch.manual_seed(seed)
        for alike in of_one_length(prompts, len(prompts)):
            for rows in torch.arange(samples * len(alike)).split(_ROWS):
                asked = [alike[row % len(alike)] for row in rows.tolist()]
                agrees = _agrees(
                    model,
                    torch.tensor([prompts[i] for i in asked], device=device),
                    pad_sequence([torch.tensor(said[i]) for i in asked], True, PAD_ID).to(device),
                    torch.tensor([len(said[i]) for i in asked], device=device),
                    (rows // len(alike)).tolist(),
                )
                agreed.index_add_(0, torch.tensor(asked, device=device), agrees.double())
    return (agreed / samples).cpu().numpy()


def _characters(answer: Answer, tokenizer: CharTokenizer, room: int) -> list[int]:
    """What greedy decoding fed back or would have, up to its end: one that found none is as long as there was room."""
    characters = tokenizer.encode(answer.text)
    if answer.finished:
        return [*characters, MASK_ID]
    return characters + [PAD_ID] * (min(room, MAX_NEW_TOKENS) - len(characters))


def _agrees(model: Transformer, prompts: Tensor, said: Tensor, lengths: Tensor, sample: Sequence[int]) -> Tensor:
    """Which rows say the same: prompts (R, L), said (R, T) of lengths (R,), the samples they are of -> (R,), bool."""
    offset = prompts.shape[1]
    cache, read = read_beginning(model, prompts, offset, sample)
    agrees = model(prompts[:, read:], cache, read, last=1)[:, 0].argmax(-1) == said[:, 0]  # (R,)
    going_on = (agrees & (lengths > 1)).nonzero()[:, 0]
    for chosen in like_lengths(lengths[going_on], _ROWS):
        rows = going_on[chosen]
        text = said[rows][:, : int(lengths[rows].max())]
        likeliest = model(text[:, :-1], fork_cache(cache, rows), offset).argmax(-1)
        behind = torch.arange(1, text.shape[1], device=text.device) >= lengths[rows, None]
        agrees[rows] = ((likeliest == text[:, 1:]) | behind).all(1)
    return agrees
