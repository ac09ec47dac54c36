"""The report: what each page can hold, and what it looks like in a browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import typing
from dataclasses import fields, is_dataclass, replace
from html import escape, unescape
from pathlib import Path

import numpy as np
import pytest

from common.report.blocks import Table
from common.report.content import (
    CalibrationRow,
    Contribution,
    CoordinatorReport,
    Evidence,
    Head,
    Importance,
    InsideShare,
    LabReport,
    LabRow,
    LeftOut,
    Matrix,
    ModeRow,
    OwnSpecimen,
    ParitySeries,
    PartialDependence,
    Report,
    SimulationReport,
    Target,
    TrainingRound,
)
from common.report.page import render, sections_of, write_report

LABS = (
    "aachen",
    "bristol_composites_institute_test_hall_2",
    "$x_{lab}$",
    "Доклад & <b>",
    "delft",
    "eindhoven",
    "ghent",
    "材料研究所",
)
TARGETS = (
    Target(name="tensile_strength", unit="MPa", low=0, high=3000),
    Target(name="youngs_modulus", unit="GPa", low=0, high=400),
    Target(name="void_content", unit="dimensionless", low=0, high=1),
)
SCALES = (600.0, 60.0, 0.05)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def lab_rows(rng: np.random.Generator, target: Target, scale: float) -> list[LabRow]:
    rows = []
    for place, lab in enumerate(LABS):
        alone = scale * rng.uniform(0.06, 0.12)
        gain = alone * (0.35 - 0.09 * place)
        half = alone * rng.uniform(0.05, 0.25)
        verdict: typing.Literal["join", "no difference", "hold"] = "no difference"
        if abs(gain) > half:
            verdict = "join" if gain > 0 else "hold"
        row = LabRow(
            lab=lab,
            target=target.name,
            num_specimens=int(rng.integers(20, 130)),
            alone=alone,
            together=alone - gain,
            joined=alone - gain * 1.05 if place % 2 else None,
            gain=gain,
            gain_low=gain - half,
            gain_high=gain + half,
            verdict=verdict,
            use=("shared", "own", "personalised", "with offset")[place % 4],
            specimens_worth=(17, 140, None)[place % 3],
            is_at_least=place % 3 == 1,
        )
        rows.append(row)
    return rows


def parity_of(
    rng: np.random.Generator, target: Target, scale: float, num_specimens: int
) -> list[ParitySeries]:
    series = []
    for lab in LABS:
        measured = scale * rng.normal(1, 0.2, num_specimens // len(LABS))
        for mode, noise in (("each lab alone", 0.12), ("together (federated)", 0.07)):
            predicted = measured + scale * rng.normal(0, noise, len(measured))
            half = scale * rng.uniform(0.08, 0.16, len(measured))
            one = ParitySeries(
                target=target.name,
                mode=mode,
                lab=lab,
                measured=measured,
                predicted=predicted,
                lower=predicted - half,
                upper=predicted + half,
                is_shared=noise < 0.1,
            )
            series.append(one)
    return series


def evidence() -> Evidence:
    """Make what eight labs, three targets and forty rounds give, from seeded numbers."""
    rng = np.random.default_rng(0)
    errors = rng.uniform(20, 90, (len(LABS) + 1, len(LABS)))
    errors[2, 3] = np.nan
    distances = np.abs(rng.normal(1, 0.5, (len(LABS), len(LABS))))
    features = ("deep features", "void_area_fraction", "fibre_orientation", "cure_temperature")
    pairs = list(zip(TARGETS, SCALES, strict=True))
    return Evidence(
        targets=TARGETS,
        modes=tuple(
            ModeRow(
                target=target.name,
                label=label,
                num_specimens=600,
                r2=r2,
                mae=scale * 0.06,
                rmse=scale * 0.08,
                is_shared=label.startswith("federated"),
            )
            for target, scale in pairs
            for label, r2 in (
                ("federated: weights shared", 0.861),
                ("centralised: data pooled", 0.872),
                ("local: each lab alone", 0.604),
                ("ridge, data pooled", -0.1),
            )
        ),
        labs=tuple(row for target, scale in pairs for row in lab_rows(rng, target, scale)),
        rounds=tuple(
            TrainingRound(
                server_round=step,
                loss=float(np.exp(-step / 12) + 0.05 * rng.uniform()),
                missing={LABS[1]: "slower than the deadline of 10 min"} if step % 7 == 3 else {},
            )
            for step in range(1, 41)
        ),
        calibration=tuple(
            CalibrationRow(
                target=target.name,
                level=level,
                coverage=float(rng.binomial(60, level - (0.15 if lab == "delft" else 0)) / 60),
                num_specimens=60 if lab else 480,
                mean_width=scale * 0.2 * level if lab != "ghent" else np.inf,
                lab=lab,
            )
            for target, scale in pairs
            for lab in (None, *LABS)
            for level in (0.8, 0.9)
        ),
        matrices=(
            Matrix(
                title="Error of each lab's own model at each lab",
                rows=(*LABS, "shared model"),
                columns=LABS,
                values=errors,
                unit="MPa",
                reading="A row is a model, a column the lab whose specimens it was tried on.",
                row_title="model of",
                column_title="tried on",
            ),
            Matrix(
                title="Distance between labs' images",
                rows=LABS,
                columns=LABS,
                values=(distances + distances.T) * (1 - np.eye(len(LABS))),
                reading="Dark: the two labs' images look unlike to the network.",
            ),
        ),
        contributions=tuple(
            Contribution(
                lab=lab, target="tensile_strength", value=0.15 - 0.03 * place, is_flagged=place > 5
            )
            for place, lab in enumerate(LABS)
        ),
        left_out=tuple(
            LeftOut(lab=lab, target="tensile_strength", without=55.0 + place, included=41.0)
            for place, lab in enumerate(LABS)
        ),
        importances=tuple(
            Importance(
                target=target.name, feature=name, increase=scale * 0.03 / (place + 1),
                spread=scale * 0.003,
            )
            for target, scale in pairs
            for place, name in enumerate(features)
        ),
        dependences=(
            PartialDependence(
                target="tensile_strength",
                feature="cure_temperature",
                unit="degC",
                x=np.linspace(120, 180, 25),
                y=600 + 40 * np.tanh(np.linspace(-2, 2, 25)),
            ),
        ),
        inside=tuple(
            InsideShare(lab=lab, share=0.95 - 0.02 * place, num_specimens=60)
            for place, lab in enumerate(LABS)
        ),
        notes=("ghent shared no metrics: it has fewer than 20 held-out specimens.",),
    )  # fmt: skip


def head() -> Head:
    return Head(
        title="Strength and stiffness of CFRP",
        federation="cfrp-strength",
        fingerprint="9f2c" * 16,
        version="crossply 0.1.0",
        date="26 November 2026",
        verdict="Over all labs the error of tensile_strength is 21 % smaller joined than alone; "
        "joining pays for aachen (35 % smaller), and makes no clear difference for delft.",
        excluded={"lab_9": "its update had another shape than the head"},
    )


def simulation_report(num_specimens: int = 600) -> SimulationReport:
    rng = np.random.default_rng(1)
    parity = [
        one
        for target, scale in zip(TARGETS, SCALES, strict=True)
        for one in parity_of(rng, target, scale, num_specimens)
    ]
    return SimulationReport(head=head(), evidence=evidence(), parity=tuple(parity))


def lab_report() -> LabReport:
    parity = [one for one in simulation_report(160).parity if one.lab == "aachen"]
    specimens = [
        OwnSpecimen(
            specimen=f"UD-{place:03d}",
            target=one.target,
            predicted=float(one.predicted[place]),
            measured=float(one.measured[place]) if place else None,
            lower=None if one.lower is None else float(one.lower[place]),
            upper=None if one.upper is None else float(one.upper[place]),
            is_inside=place != 3,
        )
        for one in parity
        if one.is_shared
        for place in range(len(one.measured))
    ]
    return LabReport(
        head=head(), lab="aachen", evidence=evidence(), parity=tuple(parity),
        specimens=tuple(specimens),
    )  # fmt: skip


def coordinator_report() -> CoordinatorReport:
    return CoordinatorReport(head=head(), evidence=evidence())


PAGES = [simulation_report, lab_report, coordinator_report]


def types_within(kind: object) -> set[type]:
    """Collect every class that a value of a type can hold."""
    found: set[type] = set()
    if is_dataclass(kind) and isinstance(kind, type):
        found.add(kind)
        hints = typing.get_type_hints(kind)
        for field in fields(kind):
            found |= types_within(hints[field.name])
    elif isinstance(kind, type) and not typing.get_args(kind):
        found.add(kind)
    for argument in typing.get_args(kind):
        found |= types_within(argument)
    return found


def test_the_coordinators_page_has_no_place_for_a_specimen() -> None:
    held = types_within(CoordinatorReport)
    assert {Matrix, LabRow, CalibrationRow} <= held
    assert not {ParitySeries, OwnSpecimen, bytes, object} & held
    assert {ParitySeries, OwnSpecimen} <= types_within(LabReport)
    with pytest.raises(TypeError, match="parity"):
        CoordinatorReport(head=head(), evidence=Evidence(), parity=())  # type: ignore[call-arg]


def test_what_is_missing_leaves_no_heading() -> None:
    page = render(CoordinatorReport(head=Head(title="a", federation="b"), evidence=Evidence()))
    assert re.findall("<h2[^>]*>(.*?)</h2>", page) == ["The words"]
    assert "<nav" not in page and "fingerprint" not in page
    whole = [section.anchor for section in sections_of(lab_report())]
    assert whole == [
        "worth", "certainty", "quality", "specimens", "why", "others", "training", "notes",
    ]  # fmt: skip


@pytest.mark.parametrize("name", [f.name for f in fields(Evidence) if f.name != "targets"])
def test_each_part_stands_alone(name: str) -> None:
    part = Evidence(targets=TARGETS, **{name: getattr(evidence(), name)})
    assert len(sections_of(CoordinatorReport(head=head(), evidence=part))) >= 1


def test_what_is_one_number_is_no_figure() -> None:
    target = Target(name="strength", unit="MPa")
    one = Importance(target="strength", feature="deep features", increase=4.25, spread=0.5)
    page = render(
        CoordinatorReport(head=head(), evidence=Evidence(targets=(target,), importances=(one,)))
    )
    assert "<svg" not in page
    assert re.search(r"deep features</t[hd]>\s*<td[^>]*>4.25</td>\s*<td[^>]*>0.50</td>", page)


def test_numbers_that_are_not_known_are_dashes() -> None:
    target = Target(name="strength", unit="MPa")
    nan = float("nan")
    part = Evidence(
        targets=(target,),
        labs=(LabRow(lab="a", target="strength", num_specimens=3, gain=nan, alone=nan),),
        calibration=(
            CalibrationRow(target="strength", level=0.9, coverage=nan, num_specimens=0),
        ),
        matrices=(Matrix(title="m", rows=("a",), columns=("b",), values=np.array([[nan]])),),
        rounds=(TrainingRound(server_round=1, loss=nan),),
        modes=(
            ModeRow(target="strength", label="x", num_specimens=0, r2=None, mae=nan, rmse=None),
        ),
    )  # fmt: skip
    page = render(CoordinatorReport(head=head(), evidence=part))
    assert ">nan" not in page.lower()
    assert page.count("–</td>") == 5


def training_of(*rounds: TrainingRound) -> str:
    """Return what a page says of training."""
    report = CoordinatorReport(
        head=Head(title="a", federation="b"), evidence=Evidence(rounds=rounds)
    )
    page = render(report)
    return page.split("How training went")[-1] if "How training went" in page else ""


def test_how_many_labs_were_missing_is_drawn_where_they_are_not_named() -> None:
    losses = [(1, 0.5, 0), (2, float("nan"), 12), (3, 0.3, 0), (4, 0.2, 1)]
    rounds = [TrainingRound(server_round=n, loss=loss, num_missing=m) for n, loss, m in losses]
    said = training_of(*rounds)
    assert "× number of labs missing in this round" in said and "<table" not in said
    assert "nan" not in said.lower()
    none = training_of(*(replace(one, num_missing=0) for one in rounds))
    assert "<svg" in none and "missing in this round" not in none


def test_of_one_round_or_of_no_loss_there_is_no_curve() -> None:
    one = TrainingRound(server_round=1, loss=0.5, missing={"aachen": "no reply"})
    said = training_of(one, replace(one, fold=1))
    assert "<svg" not in said and "labs that gave no update" in said
    silent = (TrainingRound(server_round=n, loss=float("nan"), num_missing=1) for n in (1, 2, 3))
    assert training_of(*silent) == ""


def test_it_is_said_whether_the_shared_model_beats_the_line() -> None:
    def rows(target: str, shared: float, line: float) -> tuple[ModeRow, ...]:
        return tuple(
            ModeRow(target=target, label="x", num_specimens=9, r2=0.5, mae=mae, rmse=mae, **kind)
            for mae, kind in ((shared, {"is_shared": True}), (line, {"is_line": True}))
        )

    modes = {name: rows(name, *maes) for name, maes in {"a": (1.0, 2.0), "b": (2.0, 1.0)}.items()}
    targets = tuple(Target(name=name, unit="MPa") for name in modes)

    def page(*names: str) -> str:
        shown = tuple(row for name in names for row in modes[name])
        return render(
            CoordinatorReport(head=head(), evidence=Evidence(targets=targets, modes=shown))
        )

    assert "it does for a, and does not for b." in page("a", "b")
    assert "it does not for b." in page("b") and "it does for a." in page("a")
    assert "line that it must beat" not in render(
        CoordinatorReport(head=head(), evidence=Evidence(targets=targets, modes=modes["a"][:1]))
    )


def test_names_are_text_and_never_markup_or_mathematics() -> None:
    page = render(simulation_report(80))
    assert "<b>" not in page
    assert "Доклад &amp; &lt;b&gt;" in page
    assert "$x_{lab}$</text>" in page
    assert "材料研究所</text>" in page


@pytest.mark.parametrize("make", PAGES)
def test_a_page_asks_for_nothing_from_elsewhere(make: typing.Callable[[], Report]) -> None:
    page = render(make())
    loaded = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", page)
    assert re.findall(r"(?:https?:)?//[a-z][^\s\"']*", loaded) == []
    assert not re.search(r"<(script|link|iframe|object|embed)\b|@import|\son\w+=", page)
    addresses = re.findall(r'(?:src|href)="([^"]*)"|url\(([^)]*)\)', page)
    assert addresses
    assert all((a or b).startswith("#") for a, b in addresses)


def test_a_page_is_the_same_each_time() -> None:
    assert render(simulation_report(80)) == render(simulation_report(80))


def test_eight_labs_and_600_specimens_make_a_small_file(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(path, simulation_report())
    assert 100_000 < path.stat().st_size < 1_500_000
    assert [child.name for child in tmp_path.iterdir()] == ["report.html"]


def test_what_would_be_left_out_in_silence_is_refused() -> None:
    row = LabRow(lab="a", target="hardness", num_specimens=3)
    with pytest.raises(ValueError, match="'hardness', which is not among"):
        Evidence(targets=TARGETS, labs=(row,))
    with pytest.raises(ValueError, match=r"shape \(1, 2\), \(1, 1\) was expected"):
        Matrix(title="m", rows=("a",), columns=("b",), values=np.ones((1, 2)))


MEASURE = """<script>
addEventListener("load", () => {
  const wide = [...document.querySelectorAll("body *")].filter((e) =>
    !e.closest(".scrolls table") && !e.closest("svg *") &&
    e.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5);
  const cut = [...document.querySelectorAll("svg text")].filter((t) => {
    const box = t.closest("svg").getBoundingClientRect(), own = t.getBoundingClientRect();
    return own.left < box.left - 2 || own.right > box.right + 2;
  });
  parent.postMessage(JSON.stringify({
    width: document.documentElement.clientWidth,
    scroll: document.documentElement.scrollWidth,
    wide: wide.map((e) => e.tagName + "." + e.className),
    cut: cut.map((t) => t.textContent),
    smallest: Math.min(...[...document.querySelectorAll("svg text")].map(
      (t) => t.getBoundingClientRect().height)),
  }), "*");
});
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("make", PAGES)
def test_nothing_is_cut_off_in_a_browser(
    make: typing.Callable[[], Report], width: int, tmp_path: Path
) -> None:
    found = measured_in_browser(render(make()), width, tmp_path)
    assert found["width"] == width
    assert found["scroll"] == width
    assert found["wide"] == []
    assert found["cut"] == []
    assert found["smallest"] >= 8


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_the_measure_finds_what_is_too_wide(tmp_path: Path) -> None:
    page = render(CoordinatorReport(head=head(), evidence=Evidence()))
    broken = page.replace("<main>", '<main><div style="width: 500px">x</div>')
    assert measured_in_browser(broken, 390, tmp_path)["wide"] == ["DIV."]


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_page_prints(tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", coordinator_report())
    browse(tmp_path, "--no-pdf-header-footer", f"--print-to-pdf={tmp_path / 'report.pdf'}")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")


def measured_in_browser(page: str, width: int, folder: Path) -> dict[str, typing.Any]:
    """Return what a script measures in a frame as wide as asked for; a window has a least width."""
    page = page.replace("script-src", "").replace("default-src 'none';", "")
    inner = page.replace("</body>", f"{MEASURE}</body>")
    frame = f'<iframe width="{width}" height="900" style="border: 0" srcdoc="{escape(inner)}">'
    listen = "<script>addEventListener('message', (e) => { document.title = e.data; });</script>"
    (folder / "report.html").write_text(
        f"<!DOCTYPE html><meta charset=utf-8><title></title>{listen}{frame}</iframe>"
    )
    dumped = browse(folder, "--virtual-time-budget=5000", "--dump-dom")
    title = re.search("<title>(.*?)</title>", dumped)
    assert title, dumped[:500]
    found: dict[str, typing.Any] = json.loads(unescape(title[1]))
    return found


def browse(folder: Path, *options: str) -> str:
    """Open the folder's report without a window, and return what is printed."""
    command = [
        str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
        f"--user-data-dir={folder / 'browser'}", "--window-size=1400,1000", *options,
        f"file://{folder / 'report.html'}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


def test_columns_of_which_nothing_is_known_are_left_out() -> None:
    table = Table(
        caption="",
        headings=("lab", "taking part", "gain", "together"),
        rows=(("a", "–", "–", "1.2"), ("b", "–", "–", "–")),
        num_text=2,
    ).without_empty_columns()
    assert table.headings == ("lab", "together")
    assert table.rows == (("a", "1.2"), ("b", "–"))
    assert [table.is_number(column) for column in range(2)] == [False, True]
