"""A report of a search and a reproduction: what is in it, that it opens alone, and that no name is taken for markup."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from ladder_search.errors import StudyFolderError
from ladder_search.models.ladder import LadderConfig
from ladder_search.pictures import canvas
from ladder_search.pictures.intervals import intervals
from ladder_search.record.folder import StudyFolder
from ladder_search.record.trial import TrialRecord
from ladder_search.report.document import Search, escaped, write_report
from ladder_search.report.rows import cells, header, sentences
from ladder_search.reproduction.contenders import Contender, Outcome
from ladder_search.reproduction.reproduction import Reproduction
from ladder_search.reproduction.table import table, table_json
from ladder_search.studies import STUDIES, Study, find_study

HOSTILE = "<script>alert(1)</script>|[a](javascript:b)*_`&lt;"


def reproduction(name: str = "mnist-100-full", *, search: str = "first", dropped: str = "") -> Reproduction:
    study = find_study(name)
    settings = study.trial().as_mapping()
    errors = [[0.0103, 0.0111, 0.0104, 0.0108], [0.0098, None, 0.0101, 0.0099]]
    contenders = [
        Contender(
            name="t0007" if place else "published",
            settings=settings,
            search=search if place else None,
            outcomes=tuple(Outcome(seed=1001 + i, test_error=e) for i, e in enumerate(reached)),
            dropped=dropped if place else "",
        )
        for place, reached in enumerate(errors)
    ]
    return Reproduction(
        study=name,
        epochs=study.training.epochs,
        seeds=(1001, 1002, 1003, 1004),
        device="cpu",
        data_digest="d" * 64,
        contenders=tuple(contenders),
    ).with_table()


def search(root: Path, name: str = "a search", trial: str = "", *, pictures: bool = True) -> Search:
    folder = StudyFolder(root / name)
    description = {
        "settings": {"study": "digits-100", "overrides": {"model": {"combinator": trial}}},
        "store": "",
        "provenance": {"git_sha": "abc", "version_torch": "2.13", "host_cpu": None},
    }
    folder.create(description)
    folder.write_trial(
        TrialRecord(
            key="t0001",
            number=1,
            name=trial,
            state="COMPLETE",
            reason="",
            params={"model/lr": 0.002},
            settings={},
            epochs=({"epoch": 75},),
            validation_error=0.05,
            seconds=3.0,
            checkpoint=None,
        )
    )
    if pictures:
        with canvas.style():
            canvas.save(canvas.words("title", "words"), folder.pictures, "learning-curves")
    return Search(folder=folder, description=folder.description())


class Page(HTMLParser):
    """The elements of a page, its links and sources, and its cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.cells: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] in ("td", "th"):
            self.cells[-1] += data.strip().replace("\u00a0", " ")


def test_the_structure_of_a_report(tmp_path: Path) -> None:
    written = write_report(tmp_path / "report", [search(tmp_path)], [reproduction()])
    assert [path.name for path in written] == ["report.md", "report.html"]
    markdown, html = (path.read_text() for path in written)
    headings = re.findall(r"^#+ .*$", markdown, re.MULTILINE)
    assert headings == [
        "# Report",
        "## Reproductions",
        "### Published, re-run and found",
        "## Search a search",
        "### Learning curves",
        "### Provenance",
    ]
    page = Page(html)
    headings = list(header(table([reproduction()])))
    assert page.cells[: len(headings)] == headings and headings[4] == "test error"
    assert {"mnist-100-full", "found t0007", "t0001", "3 of 4"} <= set(page.cells)
    assert [cell for cell in page.cells if cell == table([reproduction()])[0].verdict] == ["not enough seeds"] * 2
    assert "1 of 4 seeds diverged (1002)" in html and "git" in html and "abc" in html
    assert "Welch" in markdown and "Holm" in markdown


def reached(study: Study, *errors: list[float]) -> Reproduction:
    found = reproduction("digits-100")
    contenders = [
        replace(contender, outcomes=tuple(Outcome(seed=1001 + i, test_error=e) for i, e in enumerate(own)))
        for contender, own in zip(found.contenders, errors, strict=True)
    ]
    return replace(found, study=study.name, contenders=tuple(contenders), tables=()).with_table()


@pytest.fixture
def music(judged_by: Callable[..., Study], monkeypatch: pytest.MonkeyPatch) -> Reproduction:
    study = judged_by("nll")
    monkeypatch.setitem(STUDIES, study.name, study)
    return reached(study, [8.44, 8.47, 8.45, 8.46], [8.31, 8.35, 8.32, 8.34])


def test_rows_of_other_measures(music: Reproduction, judged_by: Callable[..., Study]) -> None:
    rows = table([music, reproduction()])
    assert header(rows[:2])[4] == "test NLL" and header(rows)[4] == "test NLL / error"
    rerun, found = map(cells, rows[:2])
    # The deviation of 8.44, 8.45, 8.46, 8.47 is 0.0129; Student's quantile for 3 degrees of freedom is 3.182446.
    assert rerun[1:6] == (
        "8.450 nats per step ± 0.030 (unverified)", "re-run", "4", "8.455 nats per step ± 0.013",
        "8.434 .. 8.476 nats per step",
    )  # fmt: skip
    assert found[6].startswith("−0.125 nats, p = ") and found[6].endswith(": better")
    worse = cells(replace(rows[1], difference=0.04, p_difference=None, comparison="worse"))
    assert worse[6] == "+0.040 nats: worse"
    assert not [cell for cell in (*rerun, *found) if "%" in cell or "points" in cell]
    assert table_json(rows)["rows"][0]["measure"] == "nll"
    said = " ".join(sentences(rows[:2], [music]))
    assert "found by the search first, in the order of their validation NLLs." in said


def test_a_report_of_several_measures(
    music: Reproduction, judged_by: Callable[..., Study], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    video = judged_by("prediction_error")
    monkeypatch.setitem(STUDIES, video.name, video)
    both = [music, reached(video, [0.0015, 0.00152], [0.00148, 0.0015])]
    of_music = search(tmp_path, "of music")
    of_music.description["settings"] |= {"study": "toy-nll", "overrides": {}}
    written = write_report(tmp_path / "report", [of_music], both)[0].read_text().replace("\u00a0", " ")
    assert "NLLs of searches are validation NLLs." in written
    assert "Test NLLs and prediction errors at the end of the schedule" in written
    assert "| test NLL / prediction error |" in written and "| 151.0 x 1e-5 ± 1.4 |" in written
    assert "| NLL |" in written and "| 0.050 nats per step |" in written  # the search's leaderboard
    assert not re.search(r"(?<!95)(?<! 5)(?<! 2\.5) %", written)
    with canvas.style():
        picture = intervals("Reproductions", table([*both, reproduction()]))
        picture.figure.canvas.draw()
    titles = [ax.get_title(loc="left") for ax in picture.figure.axes]
    units = ["toy-nll (NLL, nats per step)", "toy-prediction_error (prediction error, x 1e-5)", "mnist-100-full"]
    assert titles == units
    assert picture.figure.get_supxlabel().startswith("test NLL / prediction error / error: dots are seeds")
    assert {"%" in tick.get_text() for tick in picture.figure.axes[0].get_xticklabels()} == {False}
    (published,) = [x for *_, x, _, text in picture.texts if "published 150.1" in text]
    assert published == pytest.approx(150.1e-5)
    assert {"%" in tick.get_text() for tick in picture.figure.axes[2].get_xticklabels()} == {True}
    low, high = picture.figure.axes[0].get_xlim()
    assert low < 8.31 < 8.48 < high < 8.6


def test_a_search_that_was_judged_otherwise_than_its_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def by_combinator(model: LadderConfig) -> tuple[str, ...]:
        return ("error",) if model.combinator == "gauss" else ("nll",)

    monkeypatch.setattr(LadderConfig, "measures", property(by_combinator), raising=False)
    one = search(tmp_path)
    changes = {"model": {"combinator": "vanilla"}, "stop": {"failure_error": 2.0}}
    one.description["settings"]["overrides"] = changes
    written = write_report(tmp_path / "report", [one], [])[0].read_text().replace("\u00a0", " ")
    assert "| 0.050 nats per step |" in written and "NLLs of searches" in written


def test_the_page_opens_alone(tmp_path: Path) -> None:
    write_report(tmp_path / "report", [search(tmp_path)], [reproduction()])
    page = Page((tmp_path / "report" / "report.html").read_text())
    pictures = [address for address in page.addresses if address.startswith("data:image/png;base64,")]
    beside = [address for address in page.addresses if address not in pictures]
    assert len(pictures) == page.tags.count("img") == 2 and "script" not in page.tags and "link" not in page.tags
    assert beside == ["pictures/reproductions.html", "pictures/01-a-search-learning-curves.html"]
    for address in beside:
        interactive = (tmp_path / "report" / address).read_text()
        assert not re.search(r'(src|href)="(?!#|data:)', interactive)


def test_names_are_no_markup(tmp_path: Path) -> None:
    hostile = search(tmp_path, "x" + HOSTILE.replace("/", ""), "t" + HOSTILE)
    write_report(tmp_path / "report", [hostile], [reproduction(search=HOSTILE)])
    page = Page((tmp_path / "report" / "report.html").read_text())
    assert not {"script", "em", "code"} & set(page.tags)
    assert not [address for address in page.addresses if address.startswith("javascript")]
    assert any(cell.startswith("t<script>alert(1)</script>") for cell in page.cells), "the trial, as it is called"
    interactive = (tmp_path / "report" / "pictures" / "reproductions.html").read_text()
    assert "<script>alert" not in interactive


@pytest.mark.parametrize(
    "text", [HOSTILE, "# a", "- a", "1. a", "1.06 %", "-0.5", "a | b", "> a", "a\n\nb", "$x$ **b**"]
)
def test_escaped_text_is_shown_as_it_is(text: str) -> None:
    shown = MarkdownIt("commonmark", {"html": False}).render(escaped(text))
    parsed = Page("")
    parsed.feed(shown)
    assert parsed.tags == ["p"], shown
    plain = re.sub(r"</?p>", "", shown).strip()
    assert plain.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&") == " ".join(text.split())


def test_a_report_replaces_a_report_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_report(out, [], [reproduction()])
    write_report(out, [search(tmp_path, pictures=False)], [])
    assert "has drawn no pictures" in (out / "report.md").read_text()
    (out / "thesis.tex").write_text("")
    with pytest.raises(StudyFolderError, match=r"holds 'thesis\.tex'"):
        write_report(out, [], [reproduction()])
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyFolderError, match="must be writable"):
        write_report(tmp_path / "file", [], [reproduction()])


def test_the_picture_of_reproductions(tmp_path: Path) -> None:
    two = [reproduction(dropped="worse than published"), replace(reproduction("digits-100"), seeds=(1001,))]
    with canvas.style():
        picture = intervals("Reproductions", table(two))
        files = canvas.save(picture, tmp_path, "reproductions")
    assert [path.stat().st_size > 5000 for path in files] == [True, True]
    titles = [ax.get_title(loc="left") for ax in picture.figure.axes]
    assert titles == ["mnist-100-full", "digits-100"]
    labels = [[label.get_text() for label in ax.get_yticklabels()] for ax in picture.figure.axes]
    assert labels == [["published", "re-run", "found t0007"], ["re-run", "found t0007"]]
    assert sum("one seed" in text for *_, text in picture.texts) == 2 * (4 + 3)
