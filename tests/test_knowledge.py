"""The whole card of a run: complete, honest about what is not defined, and true to what the parts say."""

import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn import metrics

from birthplace_lm import knowledge, run_corpus, scoring
from birthplace_lm.asking import COSTLY, Asking, Inquiry, probabilities, question_about
from birthplace_lm.beam_search import beam_answers
from birthplace_lm.cli import evaluate
from birthplace_lm.composing import build
from birthplace_lm.corpus import Corpus, Question
from birthplace_lm.decoding import Answer, answer_questions
from birthplace_lm.evaluation import calibration, countries, crosswise, signals, temperature
from birthplace_lm.evaluation.calibration import calibration_card
from birthplace_lm.evaluation.crosswise import CrosswiseDetector, thresholds
from birthplace_lm.evaluation.detector import fit_detector
from birthplace_lm.evaluation.exact_match import read_predictions
from birthplace_lm.evaluation.fits import Told, fit_all
from birthplace_lm.evaluation.logistic import sigmoid
from birthplace_lm.evaluation.readings import _READ_AS, as_probabilities
from birthplace_lm.evaluation.resampling import halves
from birthplace_lm.evaluation.signals import Signals, answer_signals
from birthplace_lm.evaluation.temperature import LogitScaling
from birthplace_lm.knowledge import BEAM_WIDTH, _beam, _errors, _stored, knowledge_card
from birthplace_lm.knowledge_report import draw, in_six_lines
from birthplace_lm.prefix_tree import PlaceScores, score_places
from birthplace_lm.run_corpus import corpus_of, corpus_with_dev
from birthplace_lm.runs import RunFolder
from tests.test_stages import tiny_run

SECTIONS = (
    "asked chosen beam places stored fitted_on confidence detector probabilities signals_as_probabilities "
    "signals_not_read calibration thresholds risk_steps thresholds_hold unknown_names errors"
)

BRIEF = ("pretrain.epochs=1", "pretrain.batch_size=64", "finetune.epochs=1", "finetune.batch_size=32")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    data = ("data.people=120", "data.hold_out_people=12", "data.origin_correlation=0.5")
    return tiny_run(tmp_path_factory.mktemp("runs"), *data, *BRIEF)


@pytest.fixture(scope="module")
def card(run: RunFolder) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    text = (run.root / "knowledge.json").read_text(encoding="utf-8")
    card: dict[str, Any] = json.loads(text, parse_constant=refuse)
    return card


def measures(node: Any, where: str = "card") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every measure of a card: what has a value or the reason why not."""
    if isinstance(node, dict):
        if "value" in node:
            yield where, node
        for key, value in node.items():
            yield from measures(value, f"{where}.{key}")
    elif isinstance(node, list):
        for value in node:
            yield from measures(value, where)


def test_the_card_holds_every_section_and_says_of_whom(run: RunFolder, card: dict[str, Any]) -> None:
    assert list(card) == SECTIONS.split()
    assert card["asked"] == {
        "people": "dev", "questions": 18, "right": run.metrics()["dev"]["correct"], "left_out": 0,
    }  # fmt: skip
    corpus = corpus_of(run)
    assert sorted(card["places"]) == sorted({question.answer for question in corpus.train})
    wrong = sum(
        p != q.answer for p, q in zip(read_predictions(run.root / "predictions" / "dev.tsv"), corpus.dev, strict=True)
    )
    assert card["errors"]["wrong"] == wrong and "right country" in card["errors"]["types"]
    assert card["stored"]["weights"] == "pretrain" and card["stored"]["cloze"]["asked"] == 18
    strangers = card["stored"]["cloze_of_held_out_people"]
    assert strangers["asked"] == strangers["filled"]["total"] == 12 - sum(strangers["left_out"].values()) > 6


def test_unknown_people_are_asked_about_beside_known_ones(card: dict[str, Any]) -> None:
    families = card["unknown_names"]
    asked = {name: families[name]["asked"] for name in ("held out", "recombined", "gibberish")}
    assert asked == {"held out": 12, "recombined": 100, "gibberish": 100}
    assert set(families["recombined"]["signals"]) == set(card["confidence"]["signals"])
    assert "detector" in card["confidence"]["signals"] or card["confidence"]["left_out"]["detector"]
    assert families["held out"]["guessing"]["ideal"] == pytest.approx(0.5 / 4 + 0.5)
    assert families["swaps"]["known"]["flips_with_surname"]["total"] <= 18
    assert sum(row["value"] for row in families["swaps"]["recombined"]["decided_by"].values()) == pytest.approx(1)


def test_what_is_not_defined_says_why(run: RunFolder, card: dict[str, Any]) -> None:
    corpus = corpus_of(run)
    cards = {
        "the run's": card,
        "nine people's": knowledge_card(run, replace(corpus, dev=corpus.dev[:9]), Inquiry(unknown=9)),
        "nobody's": knowledge_card(run, replace(corpus, dev=(), unknown=()), Inquiry(unknown=0)),
        "nobody's, thorough": knowledge_card(run, replace(corpus, dev=(), unknown=()), Inquiry(True, unknown=0)),
    }
    for whose, one in cards.items():
        found = list(measures(one))
        assert len(found) > 50
        assert not [where for where, row in found if row["value"] is None and not row["why"]], whose
        lines = in_six_lines(one)
        assert len(lines) == 6 and not [line for line in lines if "\n" in line or "None" in line or "nan" in line]
    few, nobody, thorough = cards["nine people's"], cards["nobody's"], cards["nobody's, thorough"]
    for one in (nobody, thorough):
        assert [one[way] for way in ("chosen", "beam")] == 2 * [
            {"right": None, "share": one["beam"]["share"], "why": "nobody could be asked"}
        ]
        assert one["beam"]["share"]["why"] == "nobody could be asked"
    assert few["calibration"]["temperature"] is None and "9 questions" in few["calibration"]["why"]
    assert few["thresholds"] == {"0.05": None, "0.1": None, "0.2": None}
    assert "9 questions" in few["confidence"]["signals"]["sequence_log_probability"]["auroc"]["why"]
    assert "9 answers" in few["unknown_names"]["recombined"]["distance_to_train"]["total_variation"]["why"]
    assert nobody["asked"]["questions"] == nobody["errors"]["total"] == 0 and "not defined" in in_six_lines(nobody)[2]


def test_a_thorough_card_has_every_signal_and_else_the_same_figures(run: RunFolder, card: dict[str, Any]) -> None:
    corpus = corpus_of(run)
    thorough = knowledge_card(run, corpus, Inquiry(thorough=True))
    costly = {"margin_to_other_place", "place_probability", "place_negative_entropy", "dropout_agreement"}
    assert costly <= set(thorough["confidence"]["signals"]) and costly <= set(card["confidence"]["left_out"])
    assert {card["confidence"]["left_out"][name] for name in costly} == {COSTLY}
    for one in (card, thorough):
        assert set(one["signals_as_probabilities"]) == set(one["confidence"]["signals"])
    assert costly <= set(thorough["unknown_names"]["gibberish"]["signals"])
    asking = Asking(run, corpus)
    scores = score_places(asking.model, asking.tokenizer, [q.text for q in corpus.dev], asking.places, tolerance=0.0)
    right = sum(scores.places[i] == q.answer for i, q in zip(scores.best(), corpus.dev, strict=True))
    assert (thorough["chosen"]["right"], thorough["chosen"]["out_of_reach"]) == (right, 0)
    assert thorough["chosen"]["share"]["value"] == right / 18 and card["chosen"]["right"] is None
    beam = thorough["beam"]
    assert (
        f"answered right, {beam['right']} by a beam of 8, {right} when one of the {len(asking.places)} known places"
        in in_six_lines(thorough)[0]
    )
    for section in ("asked", "places", "stored", "probabilities", "calibration", "thresholds", "errors"):
        assert thorough[section] == card[section], section
    assert (card["beam"]["right"], card["beam"]["why"]) == (None, COSTLY) and "beam" not in in_six_lines(card)[0]
    for name, signal in card["confidence"]["signals"].items():
        assert name == "detector" or thorough["confidence"]["signals"][name] == signal


def test_of_real_places_a_gazetteer_tells_the_country_and_its_absence_is_told(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    asking = Asking(run, corpus_of(run))
    asking.world = None
    people = [Question(f"Where was Ada{i} Vik born?", place) for i, place in enumerate(["Paris", "Lyon", "Nowhere"])]
    card = _errors(asking, ["Lyon", "Lyon", "Lyon"], people, seed=0)
    assert (card["right_country"]["count"], card["right_country"]["total"]) == (2, 2)
    assert card["types"]["right country"]["count"] == 1  # of the third nobody knows where it lies
    monkeypatch.setitem(sys.modules, "pycountry", None)
    countries._gazetteers.cache_clear()
    card = _errors(asking, ["Lyon", "Lyon", "Lyon"], people, seed=0)
    assert "right country" not in card["types"]
    assert "pip install 'birthplace-lm[geography]'" in card["right_country"]["why"]


def test_a_beam_is_scored_as_greedy_answers_are_and_compared_with_them(run: RunFolder) -> None:
    asking = Asking(run, corpus_of(run))
    asked = [question.text for question in asking.corpus.dev]
    texts = [answer.text for answer in beam_answers(asking.model, asking.tokenizer, asked, BEAM_WIDTH)]
    people = [Question(text, texts[i] if i < 5 else "?") for i, text in enumerate(asked)]
    greedy = ["?" if i < 3 else text for i, text in enumerate(texts)]
    card = _beam(asking, people, greedy, thorough=True)
    share = card.pop("share")
    assert card == {"width": BEAM_WIDTH, "right": 5, "other_than_greedy": 3}
    assert (share["count"], share["total"]) == (5, 18)
    assert asking.answers(asked) != texts  # so that a card without a beam would be noticed


def test_people_are_asked_about_in_the_words_of_their_questions(run: RunFolder) -> None:
    """Also where these have another form, of which no name is known to be made up or taken apart."""
    corpus = corpus_of(run)
    texts = [f"Which place has {question.name}?" for question in corpus.dev]
    texts = [text for text in texts if run.tokenizer().knows(text)]
    said = answer_questions(run.load_model(), run.tokenizer(), texts)
    people = tuple(Question(text, answer.text) for text, answer in zip(texts, said, strict=True))
    card = knowledge_card(run, replace(corpus, dev=people, test=()))
    asked = {"people": "dev", "questions": len(texts), "right": len(texts), "left_out": 0}
    assert len(texts) > 10 and card["asked"] == asked
    assert card["unknown_names"]["swaps"]["known"]["flips_with_surname"]["total"] == 0
    assert card["unknown_names"]["recombined"]["asked"] > 0  # of the train people, who are asked about as ever


def test_a_document_is_sought_among_those_of_everybody(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One about "Jon S. Vik" is none about "Jon S", whether or not the former is asked about."""
    corpus = corpus_of(run)
    given: dict[str, set[str]] = {}
    for name, module in (("cloze", knowledge), ("error_types", knowledge), ("all_slices", scoring)):
        original = getattr(module, name)

        def spy(*told: Any, name: str = name, original: Any = original, **by_name: Any) -> Any:
            found = by_name.get("others", told[-1])
            given.setdefault(name, set(found) if isinstance(found, set) else set())
            return original(*told, **by_name)

        monkeypatch.setattr(module, name, spy)
    copied = RunFolder(shutil.copytree(run.root, tmp_path / "run"))
    scoring.evaluate(copied, corpus, [], Inquiry(unknown=0))
    everybody = {question.name for split in (corpus.train, corpus.dev, corpus.test) for question in split}
    assert given == {"cloze": everybody, "error_types": everybody, "all_slices": everybody} and len(everybody) > 20


def test_a_card_of_which_nothing_is_defined_leaves_no_older_picture(run: RunFolder, tmp_path: Path) -> None:
    corpus, signals = corpus_of(run), told(40)
    cards = [knowledge_card(run, replace(corpus, dev=corpus.dev[:3]))]
    cards.insert(0, cards[0] | fitted(*signals))
    (tmp_path / "mine.png").write_bytes(b"somebody's own")
    shown = {"auroc.png", "risk_coverage.png", "reliability.png", "signal_reliability.png"}
    for card, pictures in zip(cards, (shown, set()), strict=True):
        draw(tmp_path, card)
        assert {path.name for path in tmp_path.iterdir()} == {"mine.png", *pictures}


def test_what_no_guesser_could_have_said_has_no_chance_in_the_six_lines(card: dict[str, Any]) -> None:
    types = {"frequent place": {"count": 2, "expected": None}, "no known place": {"count": 1, "expected": 0.5}}
    lines = in_six_lines({**card, "errors": {**card["errors"], "types": types}})
    assert "2 frequent place, 1 no known place (0.5 by chance)" in lines[-1]


def test_names_that_the_model_cannot_be_asked_about_are_left_out_and_counted(run: RunFolder) -> None:
    corpus = corpus_of(run)
    strange = Question("Where was Яна Vik born?", "Askeborg")
    endless = Question(f"Where was {'Ada ' * 30}Vik born?", "Askeborg")
    more = replace(corpus, dev=(*corpus.dev, strange), unknown=(*corpus.unknown, strange, endless))
    card = knowledge_card(run, more, Inquiry(unknown=10))
    assert (card["asked"]["questions"], card["asked"]["left_out"]) == (18, 1)
    assert (card["unknown_names"]["held out"]["asked"], card["unknown_names"]["held out"]["left_out"]) == (12, 2)


def test_the_command_writes_the_card_again(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    before = json.loads((run.root / "knowledge.json").read_text())
    (run.root / "knowledge.json").unlink()
    evaluate.main([str(run.root)])
    assert json.loads((run.root / "knowledge.json").read_text()) == before
    assert capsys.readouterr().out.splitlines()[-6:] == in_six_lines(before)


def test_as_many_unknown_names_are_made_up_as_it_says(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run.root / "knowledge.json").read_text()
    for options, message in (
        (["--unknown", "-1"], "unknown=-1: choose 0 names or more to be made up"),
        (["--thorough", "--unscored", "1"], "unscored=1.0: places of that probability are left out, choose 0 or more"),
        (["--unscored", "0"], "--unscored says which places --thorough scores: give both"),
        (["--questions", "FILE", "--dev", "--at-most", "3"], "nothing else: leave away --at-most, --dev"),
        (["--out", "FILE"], "--out is where the answers to --questions go: give both"),
        (["--questions", "FILE", "--data", "FOLDER"], "--questions answers a file: leave one away"),
        (["--at-most", "0"], "--at-most: at least 1 question has to be asked, not 0"),
    ):
        with pytest.raises(SystemExit):
            evaluate.main([str(run.root), *options])
        assert message in capsys.readouterr().err
    assert (run.root / "knowledge.json").read_text() == before
    evaluate.main([str(run.root), "--unknown", "12"])
    families = json.loads((run.root / "knowledge.json").read_text())["unknown_names"]
    assert {families[name]["asked"] for name in ("recombined", "gibberish")} == {12}
    (run.root / "knowledge.json").write_text(before)


def test_the_help_says_how_much_stays_unscored(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        evaluate.main(["--help"])
    assert f"(default: {signals.UNSCORED}; 0: all are" in " ".join(capsys.readouterr().out.split())


def test_as_few_places_stay_unscored_as_it_says(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def watched(*given: Any, tolerance: float) -> PlaceScores:
        asked.append(tolerance)
        return score_places(*given, tolerance=tolerance)

    monkeypatch.setattr(signals, "score_places", watched)
    for inquiry in (Inquiry(thorough=True, unknown=10, unscored=0.0), Inquiry(thorough=True, unknown=10)):
        knowledge_card(run, corpus_of(run), inquiry)
    assert asked == [0.0, 0.2]


def test_tuning_runs_say_that_they_asked_train_people(tmp_path: Path) -> None:
    folder = tiny_run(tmp_path, "stages=[finetune,evaluate]", "held_out_share=0.5", "data.people=40", *BRIEF[2:])
    card = json.loads((folder.root / "knowledge.json").read_text())
    assert card["asked"]["people"] == card["calibration"]["fitted_on"] == "held-out train people"
    assert card["stored"]["weights"] == "finetune"  # nothing was pretrained


def told(n: int = 200, seed: int = 0) -> tuple[Signals, np.ndarray]:
    """Answers whose log-probability tells right from wrong, though it is too sure by far."""
    rng = np.random.default_rng(seed)
    right = rng.random(n) < 0.4
    sure = np.where(right, 1.5, -1.0) + 1.5 * rng.normal(size=n)
    answers = [Answer("Pau", float(-np.log1p(np.exp(-3 * s - 2))), True, 0.5, 0.5) for s in sure]
    return Signals(answers, answer_signals(answers) | {"noise": rng.normal(size=n)}, {}, None), right


def fitted(signals: Signals, right: np.ndarray, held_out: Told | None = None) -> dict[str, Any]:
    return fit_all(Told("dev", signals.values, probabilities(signals), right), signals.left_out, held_out).card


def test_a_sum_that_lacks_what_was_not_scored_is_read_as_no_probability() -> None:
    """As an order of answers it stays; the margin, which is exact, is read all the same."""
    signals, right = told()
    sure = np.linspace(0.1, 0.9, len(right))
    names = ("margin_to_other_place", "place_probability", "place_negative_entropy")
    signals = replace(signals, values=signals.values | {name: sure - (name == names[2]) for name in names})
    for left, lean in ((0.01, False), (0.012, True)):
        neglected = np.linspace(0, left, len(right))
        scores = PlaceScores(("Pau", "Cork"), np.zeros((len(right), 2)), neglected, np.full(len(right), -np.inf), 0)
        some = replace(signals, places=scores)
        card = fit_all(Told("dev", some.values, probabilities(some), right, some.not_read), {}).card
        not_read = set(names[1:]) if lean else set()
        assert set(card["signals_not_read"]) == not_read and set(names) < set(card["confidence"]["signals"])
        read = {*signals.values, "detector"} - {"noise"} - not_read
        assert set(card["signals_as_probabilities"]) == read
    assert "places with 0.6% of the probability in the mean and 1.2% at most" in card["signals_not_read"][names[1]]


def test_thresholds_and_calibration_mean_what_they_say() -> None:
    signals, right = told()
    card = fitted(signals, right)
    p = np.exp([answer.log_probability for answer in signals.answers])
    calibrated = LogitScaling(card["calibration"]["temperature"], card["calibration"]["bias"])(p)
    assert abs(calibrated.mean() - right.mean()) < 0.03 < abs(p.mean() - right.mean())
    for risk, threshold in card["thresholds"].items():
        given = calibrated >= threshold
        assert (~right[given]).mean() <= float(risk) and given.any()
        surer = np.sort(calibrated[~given])[::-1]  # a lower threshold would be wrong too often
        assert all((~right[calibrated >= lower]).mean() > float(risk) for lower in surer)
    assert set(card["confidence"]["signals"]) == {*signals.values, "detector"}
    assert card["detector"]["fitted_on"] == card["calibration"]["fitted_on"] == "dev"
    for step in card["risk_steps"]:
        given = calibrated >= step["threshold"]
        assert ((~right[given]).mean(), given.sum()) == (pytest.approx(step["risk"]), step["answered"])


def test_thresholds_are_judged_on_the_other_half() -> None:
    from birthplace_lm.evaluation.temperature import fit_logit_scaling

    signals, right = told()
    p = np.exp([answer.log_probability for answer in signals.answers])
    answered = wrong = 0
    for fit, asked in halves(right, seed=3):
        assert not set(fit) & set(asked) and len(fit) + len(asked) == len(right)
        assert abs(int(right[fit].sum()) - int(right[asked].sum())) <= 1
        scaling = fit_logit_scaling(p[fit], right[fit])
        sure, order = scaling(p[fit]), np.argsort(-p[fit])
        risks = np.cumsum(~right[fit][order]) / np.arange(1, len(fit) + 1)
        last = np.flatnonzero(risks <= 0.2 + 1e-9)[-1]
        given = scaling(p[asked]) >= sure[order][last]
        answered, wrong = answered + given.sum(), wrong + (given & ~right[asked]).sum()
    row = thresholds(p, right, seed=3)["0.2"]
    assert (row["answered"]["count"], row["wrong"]["count"], row["wrong"]["total"]) == (answered, wrong, answered)


def test_the_detector_of_a_half_has_seen_the_other_half_alone() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    signals, right = told()
    ours = CrosswiseDetector(signals.values, right, seed=1).own
    features = np.stack([signals.values[name] for name in signals.values if "first" not in name], axis=1)
    for fit, asked in halves(right, seed=1):
        scaler = StandardScaler().fit(features[fit])
        theirs = LogisticRegression(C=1.0, tol=1e-10).fit(scaler.transform(features[fit]), right[fit])
        np.testing.assert_allclose(
            ours[asked], theirs.predict_proba(scaler.transform(features[asked]))[:, 1], atol=1e-4
        )


def test_strangers_are_asked_of_both_detectors_by_turns() -> None:
    signals, right = told()
    strangers, _ = told(50, seed=3)
    detector = CrosswiseDetector(signals.values, right, seed=1)
    one, other = (
        fit_detector({name: value[fit] for name, value in signals.values.items()}, right[fit])(strangers.values)
        for fit, _ in halves(right, seed=1)
    )
    assert detector(strangers.values)[::2] == pytest.approx(one[::2])
    assert detector(strangers.values)[1::2] == pytest.approx(other[1::2])
    fits = fit_all(Told("dev", signals.values, probabilities(signals), right), {}, seed=1)
    assert fits.detected is not None
    assert fits.detected.own == pytest.approx(detector.own)
    assert fits.detected.of_others(strangers.values) == pytest.approx(detector(strangers.values))
    held_out = Told("held-out train people", signals.values, probabilities(signals), right)
    of_held_out = fit_all(Told("dev", strangers.values, probabilities(strangers), right[:50]), {}, held_out).detected
    assert of_held_out is not None
    assert of_held_out.of_others(strangers.values) == pytest.approx(of_held_out.own)


def test_no_label_comes_back_to_its_question_through_the_other_half(monkeypatch: pytest.MonkeyPatch) -> None:
    """Detector and calibration both are of the halves: what calibrates one half must not have its labels in it."""
    rng, n = np.random.default_rng(0), 80
    right = rng.permutation(n) < n // 2
    known = {f"s{i}": rng.normal(size=n) + 0.5 * right for i in range(5)}
    by_half = {len(part): halves(part) for part in (right, right[: n // 2])}
    for module in (crosswise, temperature):  # the same halves, whatever is right
        monkeypatch.setattr(module, "halves", lambda part, seed=0: by_half[len(part)])

    def calibrated(right: np.ndarray) -> np.ndarray:
        """All probabilities that are judged, as they are, scaled, and with a bias: of signals and of the detector."""
        judged: list[np.ndarray] = []
        monkeypatch.setattr(calibration, "probability_card", lambda p, *_: judged.append(p) or {})
        signal = {"sequence_log_probability": np.log(sigmoid(known["s0"])), **known}
        fit_all(Told("dev", signal, sigmoid(known["s0"]), right), {})
        assert len(judged) == 9
        return np.array(judged)

    for question in (0, 7, 50):
        other = right.copy()
        other[question] = ~right[question]
        before, after = calibrated(right), calibrated(other)
        np.testing.assert_array_equal(before[:, question], after[:, question])
        assert (before != after).any()


def test_strangers_that_are_like_the_known_are_not_told_from_them() -> None:
    """Forty known people and forty strangers with the same kind of noisy signals: AUROC ½ in the mean of many."""
    rng, found = np.random.default_rng(0), []
    for _ in range(200):
        right = rng.permutation(40) < 32
        known, strangers = ({f"s{i}": rng.normal(size=40) for i in range(8)} for _ in range(2))
        detector = CrosswiseDetector(known, right)
        found.append(metrics.roc_auc_score([1] * 40 + [0] * 40, [*detector.own, *detector(strangers)]))
    assert abs(np.mean(found) - 0.5) < 4 * np.std(found) / 200**0.5 < 0.03


def test_every_signal_is_read_as_a_probability_and_calibrated_on_the_same_people() -> None:
    signals, right = told(150, seed=1)
    others, others_right = told(300, seed=2)
    held_out = Told("held-out train people", others.values, probabilities(others), others_right)
    card = fitted(signals, right, held_out)
    assert set(card["signals_as_probabilities"]) == {*signals.values, "detector"} - {"noise"}
    assert card["signals_as_probabilities"]["sequence_log_probability"] == card["probabilities"]
    for name, read in (("log_probability_per_character", np.exp), ("first_character_probability", np.asarray)):
        theirs = calibration_card(read(signals.values[name]), right, read(others.values[name]), others_right)
        assert card["signals_as_probabilities"][name] == theirs
    crosswise = CrosswiseDetector(others.values, others_right).own
    own = fit_all(Told("dev", signals.values, probabilities(signals), right), {}, held_out).detected
    assert own is not None
    assert card["signals_as_probabilities"]["detector"] == calibration_card(own.own, right, crosswise, others_right)
    alone = fitted(signals, right)["signals_as_probabilities"]["sequence_log_probability"]
    assert alone == calibration_card(probabilities(signals), right)


@pytest.mark.parametrize("name", sorted(_READ_AS))
def test_a_reading_keeps_the_order_and_stays_a_probability(name: str) -> None:
    """Of a classifier over three places whose answer is the likeliest, by the definitions of the signals."""
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(3), 50)
    p.sort(axis=1)
    entropy = -(p * np.log(p)).sum(1)
    values = {
        "sequence_log_probability": np.log(p[:, 2]),
        "log_probability_per_character": np.log(p[:, 2]) / 4,
        "first_character_negative_entropy": -entropy,
        "place_negative_entropy": -entropy,
        "margin_to_other_place": np.log(p[:, 2] / p[:, 1]),
    }
    value = values.get(name, p[:, 2])
    read = as_probabilities({name: value})[name]
    expected = {
        "sequence_log_probability": p[:, 2],
        "log_probability_per_character": p[:, 2] ** 0.25,
        "first_character_negative_entropy": 1 / np.exp(entropy),
        "place_negative_entropy": 1 / np.exp(entropy),
        "margin_to_other_place": p[:, 2] / (p[:, 2] + p[:, 1]),
    }.get(name, p[:, 2])
    assert read == pytest.approx(expected)
    assert (np.argsort(read) == np.argsort(value)).all() and read.min() > 0 and read.max() < 1


def test_what_is_fitted_on_others_knows_no_answer_of_those_asked() -> None:
    """By scikit-learn: detector, scaling and threshold from the others alone, then applied."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    asked, right = told(150, seed=1)
    others, others_right = told(300, seed=2)
    held_out = Told("held-out train people", others.values, probabilities(others), others_right)
    card = fitted(asked, right, held_out)
    assert {card["detector"]["fitted_on"], card["calibration"]["fitted_on"]} == {held_out.whose}
    assert card["probabilities"]["fitted_on"] == "held-out questions"
    assert (card["calibration"]["questions"], card["probabilities"]["questions"]) == (300, 150)
    names = [name for name in asked.values if "first" not in name]
    before, after = (np.stack([signals.values[name] for name in names], axis=1) for signals in (others, asked))
    scaler = StandardScaler().fit(before)
    theirs = LogisticRegression(C=1.0, tol=1e-10).fit(scaler.transform(before), others_right)
    combined = theirs.predict_proba(scaler.transform(after))[:, 1]
    auroc = card["confidence"]["signals"]["detector"]["auroc"]["value"]
    assert auroc == pytest.approx(metrics.roc_auc_score(right, combined), abs=1e-3)
    scaling = LogitScaling(card["calibration"]["temperature"], card["calibration"]["bias"])
    brier = np.mean((scaling(probabilities(asked)) - right) ** 2)
    assert card["probabilities"]["calibrated"]["brier"]["value"] == pytest.approx(brier)
    for risk, row in card["thresholds_hold"].items():
        sure = scaling(held_out.probability)
        assert (~others_right[sure >= row["threshold"]]).mean() <= float(risk)
        given = scaling(probabilities(asked)) >= row["threshold"]
        found = (row["answered"]["count"], row["wrong"]["count"], row["answered"]["total"])
        assert found == (given.sum(), (given & ~right).sum(), 150)
    wrong = fitted(asked, ~right, held_out)  # other answers of those asked change no fit
    for part in ("detector", "calibration", "thresholds", "risk_steps"):
        assert wrong[part] == card[part]


def test_others_that_cannot_be_fitted_say_why() -> None:
    asked, right = told(150, seed=1)
    few, few_right = told(9)
    card = fitted(asked, right, Told("held-out train people", few.values, probabilities(few), few_right))
    assert "9 questions" in card["calibration"]["why"] and "9 questions" in card["detector"]["why"]
    assert all("9 questions" in row["why"] for row in card["thresholds_hold"].values())
    assert card["probabilities"]["raw"]["ece"]["value"] is not None


def test_too_few_others_say_so_of_every_signal() -> None:
    """Nobody at all, and so many that a detector can be fitted, but not two on halves."""
    asked, right = told(150, seed=1)
    nobody = Told("held-out train people", {}, np.empty(0), np.empty(0, dtype=bool))
    cards = fitted(asked, right, nobody)["signals_as_probabilities"]
    assert {card["calibration"]["why"] for card in cards.values()} == {
        "no scaling can be fitted: 0 questions: at least 10 are needed"
    }
    few, few_right = told(14, seed=5)
    cards = fitted(asked, right, Told("held-out train people", few.values, probabilities(few), few_right))
    detector = cards["signals_as_probabilities"].pop("detector")
    assert "of one half of the questions: " in detector["calibration"]["why"]
    assert "7 questions: at least 10" in detector["calibration"]["why"] and detector["calibrated"] is None
    assert all(card["calibrated"] for card in cards["signals_as_probabilities"].values())


def test_nobody_is_asked_and_others_are_fitted_on() -> None:
    others, right = told(150, seed=1)
    held_out = Told("held-out train people", others.values, probabilities(others), right)
    card = fit_all(Told("dev", {}, np.empty(0), np.empty(0, dtype=bool)), {}, held_out).card
    assert card["calibration"]["temperature"] is not None and card["detector"]["signals"]
    assert all(row["answered"]["total"] == 0 and row["threshold"] for row in card["thresholds_hold"].values())
    assert card["confidence"]["signals"]["detector"]["auroc"]["value"] is None


def test_a_run_that_held_out_train_people_is_asked_about_dev(
    tmp_path: Path, run: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With answers by which a part of the model's is right, dev's and those of the people held out."""
    folder = tiny_run(tmp_path, "held_out_share=0.4", "data.people=120", "data.hold_out_people=6", *BRIEF)
    whole, held_out = corpus_with_dev(folder)
    assert whole.dev == build(folder.config()["data"]).corpus().dev and len(whole.test) > 5
    assert {question.name for question in held_out}.isdisjoint(question.name for question in whole.train)
    asking = Asking(folder, whole)

    def right(questions: Sequence[Question]) -> tuple[Question, ...]:
        answers = asking.answers([question.text for question in questions])
        return tuple(
            replace(question, answer=answer) if number % 3 else question
            for number, (question, answer) in enumerate(zip(questions, answers, strict=True))
        )

    known = replace(whole, dev=right(whole.dev))
    monkeypatch.setattr(run_corpus, "corpus_with_dev", lambda *asked: (known, right(held_out)))
    before = {path: path.read_bytes() for path in folder.root.rglob("*.*") if path.is_file()}
    capsys.readouterr()
    evaluate.main([str(folder.root), "--dev", "--unknown", "12"])
    card, lines = json.loads((folder.root / "dev/knowledge.json").read_text()), capsys.readouterr().out.splitlines()
    assert lines == [*in_six_lines(card), f"everything is in {folder.root / 'dev'}"]
    n, m = len(whole.dev), len(held_out)
    assert card["asked"] == {"people": "dev", "questions": n, "right": n - -(-n // 3), "left_out": 0}
    others = {"people": "held-out train people", "questions": m, "right": m - -(-m // 3), "left_out": 0}
    assert card["fitted_on"] == others and card["calibration"]["questions"] == m
    assert card["detector"]["signals"] and card["calibration"]["temperature"] is not None
    assert {row["answered"]["total"] for row in card["thresholds_hold"].values()} == {n}
    assert card["probabilities"]["calibrated"] and "fitted on held-out train people" in lines[2] + lines[3]
    for split, questions in (("dev", whole.dev), ("test", whole.test)):
        rows = (folder.root / f"dev/predictions/{split}.jsonl").read_text(encoding="utf-8").splitlines()
        said = [json.loads(row)["prediction"] for row in rows]
        assert said == asking.answers([question.text for question in questions])
        assert len(read_predictions(folder.root / f"dev/predictions/{split}.tsv")) == len(questions)
    assert {path: path.read_bytes() for path in before} == before  # what was said of the people held out stays


def test_dev_is_not_asked_where_it_cannot_be(
    tmp_path: Path, run: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit):
        evaluate.main([str(run.root), "--dev"])
    assert "was trained with held_out_share=0: it is asked about dev without --dev" in capsys.readouterr().err
    folder = tiny_run(tmp_path, "held_out_share=0.4", "data.people=60", *BRIEF)
    whole, held_out = corpus_with_dev(folder)
    strange = replace(whole, test=(*whole.test, Question("Where was Яна Vik born?")))
    monkeypatch.setattr(run_corpus, "corpus_with_dev", lambda *asked: (strange, held_out))
    with pytest.raises(SystemExit):
        evaluate.main([str(folder.root), "--dev"])
    assert f"question {len(strange.test)} of test (birth_test_inputs.tsv)" in capsys.readouterr().err
    assert not (folder.root / "dev").exists()


def test_all_wrong_is_no_calibration_but_a_card() -> None:
    signals, right = told(40)
    card = fitted(signals, np.zeros_like(right))
    assert card["calibration"]["temperature"] is None and "all 40 answers are wrong" in card["calibration"]["why"]
    assert "of one half of the questions" in card["confidence"]["left_out"]["detector"]
    assert all(threshold is None for threshold in card["thresholds"].values())


def test_one_wrong_answer_is_in_one_half_and_the_reason_says_so() -> None:
    card = fitted(told(64)[0], np.arange(64) > 0)
    detector, threshold = card["confidence"]["left_out"]["detector"], card["thresholds_hold"]["0.1"]["why"]
    whys = [card["calibration"]["why"], detector, threshold]
    assert all(why.startswith("of one half of the questions: ") and "all 32 answers are right" in why for why in whys)


def test_what_a_model_without_dropout_cannot_say_is_not_left_out_for_its_cost(run: RunFolder) -> None:
    asking = Asking(run, corpus_of(run))
    texts = [question_about(name) for name in asking.known_names[:3]]
    assert asking.signals(texts, thorough=False).left_out["dropout_agreement"] == COSTLY
    asking.model.dropout.p = 0.0
    left_out = asking.signals(texts, thorough=False).left_out
    assert left_out["dropout_agreement"] == "the model was trained without dropout"
    assert left_out["place_probability"] == COSTLY


def test_a_run_that_began_with_anothers_weights_is_asked_as_these_were(run: RunFolder) -> None:
    asking = Asking(run, corpus_of(run))
    asking.folder = SimpleNamespace(stage=lambda name: SimpleNamespace(finished=False), final_stage=lambda: "finetune")
    policy = {"salient": 1.0, "isolated": 0.9, "before": 12, "after": 4}
    asking.config = {**asking.config, "corruption": policy, "pretrain": {"document_prefix": "Where was "}}
    people = asking.corpus.dev[:2]
    for source, window in (("A@12345678", (12, 4, "Where was ")), (None, (None, None, ""))):
        asking.config["init_from"] = source
        card = _stored(asking, people, np.array([True, False]), asking.corpus.train[:2])
        assert tuple(card["window"].values()) == window


def test_a_corpus_without_held_out_people_has_an_empty_family(run: RunFolder) -> None:
    corpus: Corpus = replace(corpus_of(run), unknown=(), unknown_documents=())
    card = knowledge_card(run, corpus, Inquiry(unknown=10))
    family = card["unknown_names"]["held out"]
    assert family["asked"] == 0 and family["known_place"]["why"] == "there are no unknown people"
    assert family["guessing"]["right"]["value"] is None and "ideal" not in family["guessing"]
