"""Attention weights recorded, drawn and told on a page: what every variant shows, and what no name can break."""

import json
import re
import warnings
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from matplotlib.image import imread
from torch import Tensor, nn

from birthplace_lm.architecture import build_model
from birthplace_lm.attention.heads import listened_to
from birthplace_lm.attention_figure import draw, png
from birthplace_lm.attention_maps import Reading, UnreadableError, about_the_weights, read, record_weights
from birthplace_lm.attention_page import TEMPLATE, content_of, page, script_safe
from birthplace_lm.cli.attention import as_question, file_stem, main
from birthplace_lm.corpus import Question
from birthplace_lm.decoding import Answer, answer_questions
from birthplace_lm.runs import RunFolder, write_json
from birthplace_lm.storage import save_weights
from birthplace_lm.tokenizer import MASK, CharTokenizer
from birthplace_lm.transformer import Transformer
from tests.helpers import VARIANTS, option, roughened, small_corpus, tiny, tokenizer_of

HOSTILE = "</script><img src=x onerror=alert(1)><!--DATA--> & \"'$x$ {{}} \\u003c"


def tokens(length: int) -> Tensor:
    return torch.randint(0, 20, (length,), generator=torch.Generator().manual_seed(1))


def shares(n_layers: int, n_heads: int, length: int) -> list[Tensor]:
    """Random causal weights whose rows sum to 1."""
    scores = torch.randn(n_layers, n_heads, length, length, generator=torch.Generator().manual_seed(2))
    hidden = torch.ones(length, length).triu(1).bool()
    return list(scores.masked_fill(hidden, -torch.inf).softmax(-1))


def reading(name: str = "Ada Vik", place: str = "Pau", n_layers: int = 2, n_heads: int = 3) -> Reading:
    question = Question(f"Where was {name} born?")
    text = f"{question.text}{MASK}{place}"
    return Reading(question, Answer(place, -0.25, True), text, shares(n_layers, n_heads, len(text)))


def nobody_listens(model: Transformer) -> bool:
    return not any(listened_to(module) for module in model.modules())


# ------------------------------------------------------------------------------------------------------------ recording


@pytest.mark.parametrize("attention", VARIANTS)
def test_the_weights_of_any_variant_are_recorded_without_a_trace(attention: str) -> None:
    model = roughened(tiny(attention, dropout=0.5)).train()
    recorded = record_weights(model, tokens(20))
    assert model.training and nobody_listens(model) and len(recorded) == 2
    for block, weights in zip(model.blocks, recorded, strict=True):
        assert weights.shape == (block.attention.n_heads, 20, 20) and torch.equal(weights, weights.tril())
        assert weights.dtype == torch.float32 and not weights.requires_grad
    again = record_weights(model, tokens(20))  # without dropout, hence the same
    assert all(torch.equal(one, other) for one, other in zip(recorded, again, strict=True))


def test_recorded_weights_are_the_equations() -> None:
    """softmax(QKᵀ/√K) of the first layer, from its own queries and keys."""
    model = roughened(tiny("vanilla")).eval()
    block = model.blocks[0]
    x = block.attention_norm(model.characters(tokens(9)) + model.positions(torch.arange(9)))
    q, k = (part.unflatten(1, (4, 4)).transpose(0, 1) for part in block.attention.query_key_value(x).split(16, 1)[:2])
    scores = torch.einsum("htk,hsk->hts", q, k) / 2  # √K = 2
    expected = scores.masked_fill(torch.ones(9, 9).triu(1).bool(), -torch.inf).softmax(-1)
    torch.testing.assert_close(record_weights(model, tokens(9))[0], expected)


def test_hooks_are_gone_after_an_error() -> None:
    model = tiny().train()
    with pytest.raises(ValueError, match="a sequence of 25 characters"):
        record_weights(model, tokens(25))
    assert model.training and nobody_listens(model)


def test_a_layer_without_weights_is_named() -> None:
    class Silent(nn.Module):
        """Adds nothing, and has nothing to listen to."""

    model = tiny()
    model.blocks[1].attention = Silent()
    with pytest.raises(UnreadableError, match="layer 2 is a Silent, which has no submodule `weights`"):
        record_weights(model, tokens(5))
    assert nobody_listens(model)


def test_weights_that_are_not_finite_are_refused() -> None:
    model = tiny()
    with torch.no_grad():
        model.blocks[1].attention.query_key_value.weight.fill_(torch.nan)
    with pytest.raises(UnreadableError, match="layer 2 has attention weights that are not finite"):
        record_weights(model, tokens(5))


def readable(block_size: int = 48) -> tuple[Transformer, CharTokenizer]:
    tokenizer = tokenizer_of(small_corpus())
    return roughened(tiny(vocabulary_size=len(tokenizer), block_size=block_size)).eval(), tokenizer


def test_a_reading_spans_question_name_and_answer() -> None:
    model, tokenizer = readable()
    found = read(model, tokenizer, "Where was Ada Vik born?")
    (answer,) = answer_questions(model, tokenizer, ["Where was Ada Vik born?"])
    assert found.answer == answer and found.text == f"Where was Ada Vik born?{MASK}{answer.text}"
    assert found.text[found.asking] == MASK and [found.text[i] for i in found.name_span] == list("Ada Vik")
    assert "".join(found.text[i] for i in found.answer_span) == answer.text
    (expected, _), (weights, _) = record_weights(model, torch.tensor(tokenizer.encode(found.text))), found.weights
    assert torch.equal(weights, expected)
    assert read(model, tokenizer, "born?").name_span == range(0)
    for name in ("a", "Where", "was"):  # which stand in the question before the name, too
        assert read(model, tokenizer, f"Where was {name} born?").name_span == range(10, 10 + len(name))


def test_what_does_not_fit_is_refused_or_was_never_read() -> None:
    question = "Where was Ada Vik born?"
    model, tokenizer = readable(block_size=len(question) + 3)
    assert len(read(model, tokenizer, question).text) <= model.max_length
    with pytest.raises(UnreadableError, match="has 27 characters with its ⁇, this model sees at most 26"):
        read(model, tokenizer, "Where was Ada W Vik born??")


def test_the_text_says_what_a_weight_is() -> None:
    assert "sum to 1" in about_the_weights(shares(2, 3, 9))
    for name, said in (("differential", "A negative weight"), ("talking_heads", "not shares of one whole")):
        weights = record_weights(roughened(tiny(name)), tokens(20))
        assert said in about_the_weights(weights)
    assert f"lie between {min(float(layer.min()) for layer in weights):.2f} and" in about_the_weights(weights)
    assert "A negative" not in about_the_weights([2 * layer for layer in shares(2, 3, 9)])
    assert "sum to between 2.00 and 2.00" in about_the_weights([2 * layer for layer in shares(2, 3, 9)])


# -------------------------------------------------------------------------------------------------------------- picture


def test_a_picture_has_a_map_a_head_with_the_characters_on_both_axes() -> None:
    found = reading()
    figure = draw(found)
    *maps, bar = figure.axes
    assert [axes.get_title() for axes in maps] == [f"layer {i}, head {j}" for i in (1, 2) for j in (1, 2, 3)]
    assert bar.get_title() == "weight"
    characters = list(found.text.replace(" ", "·"))
    for axes, weights in zip(maps, torch.cat(found.weights), strict=True):
        for ticks in (axes.get_xticklabels(), axes.get_yticklabels()):
            assert [tick.get_text() for tick in ticks] == characters
        shown = torch.as_tensor(axes.images[0].get_array().filled(torch.nan))
        torch.testing.assert_close(shown.nan_to_num().square(), weights)
        assert shown.isnan().equal(torch.ones_like(weights).triu(1).bool())
        (frame,) = axes.patches
        assert frame.get_y() + 0.5 == found.asking and frame.get_width() == len(characters)
        colours = [tick.get_color() for tick in axes.get_xticklabels()]
        marked = [colours[i] for span in (found.name_span, found.answer_span) for i in span]
        assert len(set(marked)) == 2 and colours[0] not in marked
    assert "Where was Ada Vik born? → Pau   77.9%" in [text.get_text() for text in figure.texts]


def test_layers_may_have_different_numbers_of_heads() -> None:
    found = reading()
    found.weights[1] = found.weights[1][:1]
    titles = [axes.get_title() for axes in draw(found).axes[:-1]]
    assert titles == ["layer 1, head 1", "layer 1, head 2", "layer 1, head 3", "layer 2, head 1"]
    assert [len(heads) for heads in told(page(found, "a run"))["weights"]] == [3, 1]
    assert "they sum to 1" in about_the_weights(found.weights)


def test_a_picture_of_negative_weights_has_its_zero_in_the_middle() -> None:
    found = reading()
    found.weights[0][:, 5, 2] = -0.3
    limits = [axes.images[0].get_clim() for axes in draw(found).axes[:-1]]
    assert set(limits) == {(-1.0, 1.0)}


def test_any_name_can_be_drawn(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # not even of a character that the font lacks
        (tmp_path / "a.png").write_bytes(
            png(draw(reading(name=r"$\frac{x$ 李 Ada", place="\nPau", n_layers=1, n_heads=1)))
        )
    assert imread(tmp_path / "a.png").std() > 0.05


# ----------------------------------------------------------------------------------------------------------------- page


class Elements(HTMLParser):
    """The tags of a page with their attributes, and the text inside each kind of tag."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, tuple[tuple[str, str | None], ...]]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(attributes)))

    def handle_data(self, text: str) -> None:
        if self.tags:
            self.texts.setdefault(self.tags[-1][0], []).append(text)


def told(text: str) -> dict:  # type: ignore[type-arg]
    """What the script of a page reads."""
    (inside,) = re.findall(r'<script id="data" type="application/json">(.*?)</script>', text, re.DOTALL)
    return json.loads(inside)


def test_a_page_tells_all_weights_and_where_things_stand() -> None:
    found = reading()
    data = told(page(found, "a run, finetune"))
    assert data == content_of(found) and "".join(data["characters"]) == found.text
    assert (data["asking"], data["name"], data["answer"]) == (23, [10, 17], [24, 27])
    for layer, weights in zip(data["weights"], found.weights, strict=True):
        assert [[len(row) for row in head] for head in layer] == [list(range(1, len(found.text) + 1))] * 3
        last = torch.tensor([head[-1] for head in layer]) / data["scale"]
        torch.testing.assert_close(last, weights[:, -1], atol=5.1e-5, rtol=0)


@pytest.mark.parametrize("where", ["name", "place", "source"])
def test_markup_in_a_name_stays_text(where: str) -> None:
    plain = Elements(page(reading(), "a run"))
    changed = {"name": "Ada Vik", "place": "Pau", "source": "a run", where: HOSTILE}
    found = reading(changed["name"], changed["place"])
    text = page(found, changed["source"])
    assert Elements(text).tags == plain.tags
    assert told(text)["characters"] == list(found.text)
    shown = "".join("".join(texts) for texts in Elements(text).texts.values())
    assert HOSTILE in shown


def test_data_cannot_end_the_element_it_stands_in() -> None:
    text = script_safe({HOSTILE: [HOSTILE, "\u2028"]})
    assert not set("<>&\u2028") & set(text) and json.loads(text) == {HOSTILE: [HOSTILE, "\u2028"]}


def test_a_page_stands_alone() -> None:
    text = page(reading(), "a run")
    assert not re.search(r"https?:|//[a-z]|@import|url\(", text.replace("// ", ""))
    assert not [tag for tag, attributes in Elements(text).tags if {"src", "href"} & {name for name, _ in attributes}]
    assert "default-src 'none'" in text and "prefers-color-scheme: dark" in text
    assert set(re.findall(r"<!--[A-Z]+-->", TEMPLATE.read_text("utf-8"))) and not re.findall(r"<!--[A-Z]+-->", text)


def test_the_page_says_what_its_weights_are() -> None:
    found = reading()
    assert "they sum to 1" in page(found, "a run")
    found.weights[0][0, 5, 2] -= 0.7
    assert "not shares of one whole" in page(found, "a run") and "they sum to 1" not in page(found, "a run")


# -------------------------------------------------------------------------------------------------------------- command


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run that was never trained, with two finished stages of different weights."""
    tokenizer = tokenizer_of(small_corpus())
    config = {
        "model": option("model", "cs224n", n_layers=1, n_heads=2, d_model=16, block_size=64),
        "attention": option("attention", "vanilla"),
        "positions": option("positions", "learned"),
    }
    folder = RunFolder(tmp_path_factory.mktemp("runs") / "a run")
    folder.create(config, tokenizer)
    torch.manual_seed(0)
    for name in ("pretrain", "finetune"):
        save_weights(folder.stage(name).weights, roughened(build_model(config, len(tokenizer))), {})
        write_json(folder.stage(name).root / "stage.json", {"steps": 1})
    return folder


def test_the_command_writes_a_picture_and_a_page_a_question(
    run_folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(run_folder.root), "Ada Vik", "Where was Bo Lund born?"])
    out = run_folder.root / "attention"
    assert sorted(path.name for path in out.iterdir()) == [
        f"finetune-{name}.{ending}" for name in ("Ada-Vik", "Bo-Lund") for ending in ("html", "png")
    ]
    answers = answer_questions(
        run_folder.load_model(), run_folder.tokenizer(), ["Where was Ada Vik born?", "Where was Bo Lund born?"]
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"Where was Ada Vik born?  {answers[0].text}  {answers[0].probability:.1%}"
    assert [line.strip() for line in lines[1:3]] == [str(out / f"finetune-Ada-Vik.{end}") for end in ("png", "html")]
    text = (out / "finetune-Bo-Lund.html").read_text("utf-8")
    assert "".join(told(text)["characters"]) == f"Where was Bo Lund born?{MASK}{answers[1].text}"
    assert "a run, finetune, VanillaAttention" in text
    assert imread(out / "finetune-Bo-Lund.png").std() > 0.05


def test_the_stage_and_the_folder_can_be_chosen(run_folder: RunFolder, tmp_path: Path) -> None:
    main([str(run_folder.root), "Ada Vik", "--stage", "pretrain", "--out", str(tmp_path / "new" / "folder")])
    text = (tmp_path / "new" / "folder" / "pretrain-Ada-Vik.html").read_text("utf-8")
    (answer,) = answer_questions(run_folder.load_model("pretrain"), run_folder.tokenizer(), ["Where was Ada Vik born?"])
    assert "".join(told(text)["characters"]).endswith(f"born?{MASK}{answer.text}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["Ada Vik", "--stage", "finetune_only"], "has no finished stage 'finetune_only', but pretrain, finetune"),
        (["Ada Vik", "--stage", ".."], "has no finished stage '..'"),
        (["A" * 60], "has 77 characters with its ⁇, this model sees at most 64"),
        (["Ada Ørn"], "character 'Ø' .* is not among the"),
    ],
)
def test_mistakes_are_told_in_plain_words(
    run_folder: RunFolder, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([str(run_folder.root), *arguments])
    assert stopped.value.code == 2 and re.search(f"error: .*{message}", capsys.readouterr().err)


def test_a_folder_that_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([str(tmp_path), "Ada Vik"])
    assert stopped.value.code == 2 and "is no run folder" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_name_alone_is_the_question_about_it() -> None:
    assert as_question("Ada Vik") == as_question("Where was Ada Vik born?") == "Where was Ada Vik born?"
    assert as_question("Who is Ada Vik?") == "Who is Ada Vik?"


def test_every_question_has_a_file_of_its_own_that_a_disk_can_hold() -> None:
    names = [
        "Ada Vik",
        "Ada-Vik",
        "Ada/Vik",
        "../Ada Vik",
        "Ada  Vik",
        "Łódź Ørn",
        "李" * 200,
        "李" * 201,
        "?",
        HOSTILE,
    ]
    stems = [file_stem(as_question(name)) for name in names]
    assert len(set(stems)) == len(names) and stems[0] == "Ada-Vik" and stems[5] == "Łódź-Ørn"
    assert all(re.fullmatch(r"[\w-]+", stem) and len(stem.encode()) < 200 for stem in stems)
