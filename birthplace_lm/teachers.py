"""Finished runs that another run learns from or starts from: which may, and what they are called in its settings."""

from collections.abc import Sequence
from operator import itemgetter
from typing import Any

from birthplace_lm.architecture import ARCHITECTURE, check_same_architecture
from birthplace_lm.composing import ConfigError
from birthplace_lm.corpus import Corpus, Question, sha256_of
from birthplace_lm.decoding import answer_questions
from birthplace_lm.runs import STAGES, RunFolder
from birthplace_lm.self_training import PseudoLabels, unlabelled
from birthplace_lm.sources import sha256_of_corpus
from birthplace_lm.tokenizer import CharTokenizer
from birthplace_lm.transformer import Transformer
from birthplace_lm.wordings import QUESTION


def with_teachers(settings: dict[str, Any], group: str) -> tuple[dict[str, Any], list[RunFolder]]:
    """The settings with the teachers' weights for their names, not where they lie, and the teachers in that order.

    `group` is what they teach by: "distillation" what they expect as pretrained models, "self_training" what they
    answer at their end. Raises ConfigError where there is none, for one that is named twice, whose vote would count
    twice, and for one that answers and has not come to its end.
    """
    recipe = settings["pretrain"].get(group)
    if not recipe:
        return settings, []
    if not isinstance(recipe["runs"], list) or not recipe["runs"]:
        raise ConfigError(f"pretrain.{group}.runs is a list of one or more finished runs, not {recipe['runs']!r}")
    runs = [RunFolder(root) for root in recipe["runs"]]
    if group == "self_training":
        _check_ended(runs)
    sums = [_sha256(run, group) for run in runs]
    for i, (run, total) in enumerate(zip(runs, sums, strict=True)):
        if total in sums[:i]:
            raise ConfigError(
                f"pretrain.{group}.runs: {run.root} has the weights of {runs[sums.index(total)].root}, and what "
                "it says would count twice: name each run once"
            )
    named = sorted(((f"{run.name}@{total[:8]}", run) for run, total in zip(runs, sums, strict=True)), key=itemgetter(0))
    of_group = {**recipe, "runs": [name for name, _ in named]}
    return {**settings, "pretrain": {**settings["pretrain"], group: of_group}}, [run for _, run in named]


def _check_ended(runs: Sequence[RunFolder]) -> None:
    for run in runs:
        wanted = run.stages_wanted(run.config())
        lacking = [stage for stage in STAGES if stage in wanted and not run.stage(stage).finished]
        if lacking:
            raise ConfigError(
                f"{run.root} has not finished {', '.join(lacking)}, so its answers are not those it ends with: give "
                "its command again, which goes on where it stopped"
            )


def _sha256(run: RunFolder, group: str) -> str:
    run.config()  # raises where there is no run, before its weights are asked for
    return run.starting_weights_sha256() if group == "distillation" else sha256_of(run.stage(run.final_stage()).weights)


def pseudo_labels(
    choose: PseudoLabels,
    runs: Sequence[RunFolder],
    corpus: Corpus,
    tokenizer: CharTokenizer,
    block_size: int,
    longest: int,
    wordings: Sequence[str] = (QUESTION,),
) -> tuple[Question, ...]:
    """What finished runs answer about everybody that a document is about and no train question, where they agree.

    Names and answers that do not fit the block with their two sentinels are left out, in whichever of the `wordings`
    they will be asked. `longest` is how many characters the student sees, some attentions one less than the block.
    Machines round alike where they are alike: several processes of one run that begins have to be. Raises what
    `teacher` raises.
    """
    sha256 = sha256_of_corpus(corpus)
    asked = [text for text in unlabelled(corpus.documents, corpus.train) if len(text) + 1 < block_size]
    models = (teacher(run, sha256, tokenizer, longest, run.final_stage()) for run in runs)
    told = choose(asked, [answer_questions(model, tokenizer, asked) for model in models])
    around = max(len(wording) for wording in (QUESTION, *wordings)) - len("{name}")
    return tuple(q for q in told if around + len(q.name) + len(q.answer or "") + 2 <= block_size)


def teacher(
    run: RunFolder, sha256: str, tokenizer: CharTokenizer, longest: int, stage: str | None = None
) -> Transformer:
    """The pretrained model of a run that knows no more than its student may know, and the same characters.

    `sha256` sums the student's corpus, `longest` is how many characters it sees; `stage` names another model of the
    run. Raises ConfigError.
    """
    if run.data_fingerprint() != sha256:
        raise ConfigError(
            f"{run.root} was trained on other people or another split of them, so it could tell what is held out "
            "here: name runs with the same data and held_out_share"
        )
    model = run.load_model(stage or ("pretrain" if run.stage("pretrain").finished else None))
    if run.tokenizer().fingerprint != tokenizer.fingerprint or model.max_length < longest:
        raise ConfigError(
            f"{run.root} has another vocabulary, or sees {model.max_length} characters where this model sees "
            f"{longest}: name runs made like this one"
        )
    return model


def with_start(settings: dict[str, Any], source: RunFolder, chosen: Sequence[str]) -> dict[str, Any]:
    """The settings with the weights' name for their place, and with what of the source's goes with its weights.

    That is the architecture, and where no pretraining follows also how its documents were shown, by which it is asked
    later. Raises ConfigError where another architecture was `chosen`.
    """
    found = source.config()
    if set(ARCHITECTURE) & set(chosen):
        check_same_architecture(settings, found, source.root)
    # what is started from, not where it lies: a moved folder is the same, a retrained one is not
    settings = {**settings, "init_from": f"{source.name}@{source.starting_weights_sha256()[:8]}"}
    groups = list(ARCHITECTURE)
    if "pretrain" not in settings["stages"]:
        groups.append("corruption")
        prefix = found["pretrain"].get("document_prefix", "")
        settings["pretrain"] = {**settings["pretrain"], "document_prefix": prefix}
    choices = {key: option for key, option in settings["choices"].items() if key not in groups}
    choices |= {key: option for key, option in found["choices"].items() if key in groups}
    return {**settings, **{key: found[key] for key in groups}, "choices": choices}


def check_start(source: RunFolder, sha256: str, holds_out: bool) -> None:
    """Raise ConfigError for weights that may know the answers a run asks for, or people whom it holds out.

    `sha256` sums the run's corpus. Weights that never saw a question may go on with any split of the questions, as long
    as everybody's biography may be known.
    """
    asked = may_know_answers(source)
    if (asked or holds_out) and source.data_fingerprint() != sha256:
        learnt = "learnt from questions about other people" if asked else "read about other people"
        raise ConfigError(
            f"{source.root} has {learnt}, or another split of them, so it may know what is asked for here: name the "
            "data that it was made from, the same held_out_share and hold_out_people (most shortly its experiment=), "
            "or start from a pretraining without questions and without a list of answers (corruption.gazetteer)"
        )


def may_know_answers(source: RunFolder) -> bool:
    """Whether the weights to start from saw questions, or came from weights or teachers that may have.

    Or were asked for the train answers wherever a document has one: which they are tells about whom one asks.
    """
    found = source.config()
    recipe = found["pretrain"]
    told = recipe["question_share"] != 0 or found["init_from"] or recipe.get("distillation")
    corruption = found.get("corruption") or {}
    of_answers = corruption.get("known", "answers") != "recurring"
    if str(corruption.get("_target_")).startswith("birthplace_lm.corruption.salient_spans."):
        told = told or (of_answers and corruption.get("gazetteer", 1) > 0)  # what is not said may be more than 0
    return bool(told) or not source.stage("pretrain").finished
