"""birthplace-ask on a small run folder, with and without what is known of the run on held-out people."""

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from birthplace_lm.cli import ask
from birthplace_lm.decoding import Answer, answer_questions
from birthplace_lm.prefix_tree import score_places
from birthplace_lm.runs import RunFolder, write_json
from birthplace_lm.storage import save_weights
from tests.helpers import option, roughened, small_corpus, tiny, tokenizer_of

PLACES = ["Pau", "Oslo", "Łódź"]
NAMES = ["Ada Vik", "Bo Lund"]
SCALING = {"temperature": 2.0, "bias": 0.5}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run that never trained: all that answering needs, with weights that are random but say something."""
    folder, tokenizer = RunFolder(tmp_path_factory.mktemp("run")), tokenizer_of(small_corpus())
    size = {"n_layers": 2, "n_heads": 4, "d_model": 16, "block_size": 64, "dropout": 0.0}
    parts = {"attention": option("attention", "vanilla"), "positions": option("positions", "learned")}
    folder.create({"model": option("model", "cs224n", **size), **parts}, tokenizer)
    model = roughened(tiny(vocabulary_size=len(tokenizer), **size))
    save_weights(folder.stage("finetune").weights, model, {"stage": "finetune"})
    write_json(folder.stage("finetune").root / "stage.json", {"steps": 1})
    return folder


@pytest.fixture
def knowledge(finished: RunFolder) -> Any:
    """Writes what is known of the run; it is gone after the test."""
    path = finished.root / "knowledge.json"
    yield lambda **known: write_json(path, known)
    path.unlink(missing_ok=True)


def step(risk: float, threshold: float, answered: int = 10) -> dict[str, float]:
    return {"risk": risk, "threshold": threshold, "answered": answered}


def free_answers(folder: RunFolder) -> list[Answer]:
    return answer_questions(folder.load_model(), folder.tokenizer(), [f"Where was {name} born?" for name in NAMES])


def asked(folder: RunFolder, capsys: pytest.CaptureFixture[str], *options: str) -> list[str]:
    ask.main([str(folder.root), *NAMES, *options])
    return capsys.readouterr().out.splitlines()


def refused(folder: RunFolder, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        ask.main([str(folder.root), *arguments])
    said = capsys.readouterr()
    assert stopped.value.code == 2 and not said.out
    return said.err


def calibrated(answer: Answer) -> float:
    """σ(logit(p)/T + b), written out."""
    logit = math.log(answer.probability) - math.log(1 - answer.probability)
    return 1 / (1 + math.exp(-(logit / 2.0 + 0.5)))


def test_place_and_probability(finished: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    expected = [f"{n:7}  {a.text}  {a.probability:.1%}" for n, a in zip(NAMES, free_answers(finished), strict=True)]
    assert asked(finished, capsys) == expected


@pytest.mark.parametrize("options", [["--places"], ["--abstain-above", "0.1"]])
def test_what_is_not_known_yet_is_refused_with_the_command_that_finds_out(
    options: list[str], finished: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(finished, capsys, "Ada Vik", *options)
    assert said.startswith(f"error: {options[0]} needs") and f"birthplace-evaluate {finished.root} writes" in said


def test_known_and_guess(finished: RunFolder, knowledge: Any, capsys: pytest.CaptureFixture[str]) -> None:
    sure = [calibrated(answer) for answer in free_answers(finished)]
    assert abs(sure[0] - sure[1]) > 0.002  # else this test could not part them
    knowledge(calibration=SCALING, risk_steps=[step(0.07, sum(sure) / 2), step(0.15, 0.0)])
    for line, own in zip(asked(finished, capsys), sure, strict=True):
        assert line.endswith(f"calibrated {own:.1%}: {'known' if own > sum(sure) / 2 else 'guess'}")
    for risk, known in (("0.069", 0), ("0.07", 1), ("0.1499", 1), ("0.15", 2), ("0.99", 2)):
        lines = asked(finished, capsys, "--abstain-above", risk)
        assert sum(line.endswith("known") for line in lines) == known, risk


@pytest.mark.parametrize("risk", ["-0.1", "1", "10", "nan"])
def test_a_risk_that_is_no_share_is_refused(
    risk: str, finished: RunFolder, knowledge: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    knowledge(calibration=SCALING, risk_steps=[step(0.1, 0.0)])
    said = refused(finished, capsys, "Ada Vik", "--abstain-above", risk)
    assert f"--abstain-above {float(risk):g} is no share of wrong answers: choose 0 or more, below 1" in said


def test_it_declines_where_too_many_were_wrong(
    finished: RunFolder, knowledge: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    texts, sure = [answer.text for answer in free_answers(finished)], [calibrated(a) for a in free_answers(finished)]
    bound = sum(sure) / 2
    knowledge(calibration=SCALING, risk_steps=[step(0.0, 0.0, answered=9), step(0.1, bound)])  # nine are too few
    for line, text, own in zip(asked(finished, capsys, "--abstain-above", "0.1"), texts, sure, strict=True):
        given = line[9:].startswith(f"{text}  ")
        held_back = line[9:].startswith("–  ") and f"below {bound:.1%}, from where on at most 10% of the" in line
        assert (given, held_back) == (own > bound, own < bound)
    for risk, words in (("0.05", "5%"), ("0.025", "2.5%")):
        for line in asked(finished, capsys, "--abstain-above", risk):
            assert line[9:].startswith("–  ")
            assert line.endswith(f"however sure, more than {words} of the answers were wrong, or there were not ten")


def test_a_card_of_an_older_version_says_so(
    finished: RunFolder, knowledge: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    knowledge(calibration=SCALING, thresholds={"0.1": 0.0})
    ask.main([str(finished.root), *NAMES])
    said = capsys.readouterr()
    assert "calibrated" not in said.out and f"birthplace-evaluate {finished.root} tells known from guess" in said.err
    assert "knowledge.json is of an older version" in refused(finished, capsys, "Ada Vik", "--abstain-above", "0.1")


def test_a_card_of_other_weights_tells_nothing(
    finished: RunFolder, knowledge: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run was judged after pretraining, then finetuned: the probabilities are others now."""
    knowledge(calibration=SCALING, risk_steps=[step(0.1, 0.0)], thresholds={}, places=PLACES)
    told = asked(finished, capsys)
    assert all("calibrated" in line for line in told)
    finished.update_metrics(scored=["pretrain"])
    try:
        ask.main([str(finished.root), *NAMES])
        said = capsys.readouterr()
        assert not any("calibrated" in line for line in said.out.splitlines()) and "trained further" in said.err
        assert "does not hold it yet" in refused(finished, capsys, "Ada Vik", "--abstain-above", "0.1")
        finished.update_metrics(scored=["finetune"])
        assert asked(finished, capsys) == told
    finally:
        (finished.root / "metrics.json").unlink()


def test_choosing_among_places(finished: RunFolder, knowledge: Any, capsys: pytest.CaptureFixture[str]) -> None:
    knowledge(calibration=SCALING, risk_steps=[step(0.1, 0.0)], places=PLACES)
    questions = [f"Where was {name} born?" for name in NAMES]
    scores = score_places(finished.load_model(), finished.tokenizer(), questions, PLACES, tolerance=0).log_probability
    expected = [
        f"{n:7}  {PLACES[row.argmax()]}  {math.exp(row.max()):.1%}" for n, row in zip(NAMES, scores, strict=True)
    ]
    assert asked(finished, capsys, "--places") == expected
    said = refused(finished, capsys, "Ada Vik", "--places", "--abstain-above", "0.1")
    assert "do not go together" in said


def test_a_calibration_that_is_not_defined_says_why(
    finished: RunFolder, knowledge: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    knowledge(calibration={"temperature": None, "bias": None, "why": "all 40 answers were wrong"}, risk_steps=None)
    assert "calibrated" not in asked(finished, capsys)[0]
    assert "(all 40 answers were wrong)" in refused(finished, capsys, "Ada Vik", "--abstain-above", "0.1")


@pytest.mark.parametrize(
    "card",
    [
        {"calibration": None},
        {"calibration": {"temperature": 1.0}, "risk_steps": [step(0.1, 0.0)]},
        {"calibration": {"temperature": "warm", "bias": 0.0}, "risk_steps": [step(0.1, 0.0)]},
        {"calibration": SCALING, "risk_steps": [{}]},
        {"places": 3},
    ],
)
def test_a_card_that_nobody_writes_is_told_with_its_path(
    card: dict[str, Any], finished: RunFolder, knowledge: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    knowledge(**card)
    assert "knowledge.json is no card that birthplace-evaluate writes" in refused(finished, capsys, "Ada Vik")


@pytest.mark.parametrize(
    ("name", "message"), [("Zoë", "character 'Z'"), ("Ada" * 30, "characters with its ⁇, this model sees at most 64")]
)
def test_a_name_that_cannot_be_asked_about(
    name: str, message: str, finished: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(finished, capsys, name)


def test_help_needs_no_torch() -> None:
    program = (
        "import sys\nfrom birthplace_lm.cli import ask\n"
        "try:\n    ask.main(['--help'])\nexcept SystemExit:\n    sys.exit('torch' in sys.modules)\n"
    )
    root = Path(__file__).resolve().parents[1]
    subprocess.run([sys.executable, "-c", program], cwd=root, check=True, capture_output=True)
