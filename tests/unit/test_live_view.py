"""What a simulation draws on a terminal, and what it does not draw elsewhere."""

import io

from rich.console import Console

from common.round_log import RoundLine
from simulation.live_view import LiveView


def line(server_round: int, loss: float | None, fold: int = 0) -> RoundLine:
    return RoundLine(
        fold=fold,
        server_round=server_round,
        train_loss=loss,
        labs=("aachen", "bremen"),
        failed={"celle\x1b[2J": "no reply in time"} if server_round == 3 else {},
        quarantined={"dresden": "0.weight is not finite " * 9} if server_round == 3 else {},
        out=(),
        seconds=0.25,
    )


def drawn(view: LiveView, width: int, *, encoding: str = "utf-8") -> list[str]:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    Console(file=file, force_terminal=True, width=width, color_system=None).print(view)
    file.seek(0)
    return file.read().splitlines()


def test_the_round_that_counted_is_shown_with_its_labs() -> None:
    view = LiveView(Console(file=io.StringIO(), force_terminal=True))
    view.step("random_forest", 1, 5)
    view.step("federated", 3, 200)
    for number, loss in enumerate((0.8, 0.4, 0.2), start=1):
        view.round(line(number, loss))
    bars, forest, loss_line, labs_line = drawn(view, 120)
    assert "random forest" in bars and "1/5" in bars
    assert "federated" in forest and "3/200" in forest
    assert loss_line.split("  ") == ["round 3, fold 1", "loss 0.2 █▃▁", "4 rounds/s"]
    assert labs_line.startswith("labs 2 of 4  missing 1: celle?[2J (no reply in time)  quaran")


def test_it_fits_an_eighty_column_terminal() -> None:
    view = LiveView(Console(file=io.StringIO(), force_terminal=True))
    view.step("federated", 99_999, 100_000)
    for number in range(1, 101):
        view.round(line(number % 4, 1 / number))
    for width in (80, 120):
        lines = drawn(view, width)
        assert len(lines) == 3 and max(map(len, lines)) <= width, lines
        assert "99999/100000" in lines[0] and lines[0].endswith("left")
        assert lines[1].endswith("rounds/s")


def test_a_curve_begins_anew_with_each_fold_and_may_lack_losses() -> None:
    view = LiveView(Console(file=io.StringIO(), force_terminal=True))
    view.round(line(1, 0.5))
    view.round(line(1, None, fold=1))
    assert drawn(view, 80)[-2] == "round 1, fold 2  4 rounds/s"


def test_no_sign_is_drawn_that_the_terminal_does_not_have() -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    console = Console(file=file, force_terminal=True, width=100)
    view = LiveView(console)
    view.round(line(1, 0.5))
    console.print(view)
    file.seek(0)
    assert "loss 0.5" in file.read()


def test_elsewhere_it_says_what_it_is_told_to_say_and_no_more() -> None:
    file = io.StringIO()
    with LiveView(Console(file=file, width=100)) as view:
        view.count("micrographs", 3)()
        view.step("federated", 1, 2)
        view.round(line(1, 0.5))
        view.say("Engine: [batched]")
    assert file.getvalue() == "Engine: [batched]\n"
