"""Where a result comes from: the processor by its name, since figures of two processors do not compare."""

from pathlib import Path

import pytest

from birthplace_lm import provenance


def test_the_kernel_tells_the_processors_name(tmp_path: Path) -> None:
    told = tmp_path / "cpuinfo"
    told.write_text("processor\t: 0\nmodel\t\t: 17\nmodel name\t: Some Maker(R) 9: fast\n\nmodel name\t: another\n")
    assert provenance._processor(told) == "Some Maker(R) 9: fast"


@pytest.mark.parametrize("text", [None, "", "processor : 0\n", "model name :\n"])
def test_elsewhere_python_says_what_it_knows(text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = tmp_path / "cpuinfo"
    if text is not None:
        told.write_text(text)
    monkeypatch.setattr(provenance.platform, "processor", lambda: "")
    monkeypatch.setattr(provenance.platform, "machine", lambda: "arm64")
    assert provenance._processor(told) == "arm64"


def test_a_result_says_what_it_was_computed_on() -> None:
    hardware = provenance.provenance("some data")["hardware"]
    assert hardware["processor"] and hardware["instructions"] and hardware["threads"] >= 1
