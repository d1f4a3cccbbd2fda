"""birthplace-ask: where was somebody born, and how sure is the model of it."""

import argparse
from pathlib import Path


def main(arguments: list[str] | None = None) -> None:
    """Answer "Where was NAME born?" with the place and the probability that the model gives to exactly that answer."""
    parser = argparse.ArgumentParser(prog="birthplace-ask", description=main.__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    parser.add_argument("names", nargs="+", metavar="NAME", help="a person's name, as in the documents")
    options = parser.parse_args(arguments)

    from birthplace_lm.cli.errors import in_plain_words
    from birthplace_lm.decoding import answer_questions
    from birthplace_lm.runs import RunFolder

    with in_plain_words():
        folder = RunFolder(options.run)
        model, tokenizer = folder.load_model(), folder.tokenizer()
        answers = answer_questions(model, tokenizer, [f"Where was {name} born?" for name in options.names])
        width = max(map(len, options.names))
        for name, answer in zip(options.names, answers, strict=True):
            print(f"{name:{width}}  {answer.text}  {answer.probability:.1%}")


if __name__ == "__main__":
    main()
