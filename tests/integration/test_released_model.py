"""What a run releases, at the coordinator and at its labs, over messages."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from client.alone import train_alone
from client.app import client_app
from client.choice import ALIGNED, ALONE, CORAL, OFFSET, OWN_VERSIONS, PERSONALISED, SHARED
from client.evaluation import calibrate, predict_in_units, second_half
from client.importance import permutation_importance
from client.judgement import judge
from client.keeping import judge_kept, keep, to_judge_path
from client.lab import Lab, split_lab
from client.own_report import own_report, report_path
from client.own_version import load_own_version, own_path
from client.prediction import remarks_on_model
from client.specimens import Specimens
from client.training import train_head
from client.uncertainty import spread_in_units
from client.verdict import HOLD, NO_DIFFERENCE
from common.errors import StateError
from common.federation import Federation
from common.intervals import GRID, Intervals, quantiles, score_counts, shrunk
from common.messages import RELEASE, ModelRequest, ReleaseRequest, Terms, message_to
from common.release import Release, load_release
from common.ridge import fit_ridge
from common.sealed import read_sealed
from server.page import coordinator_report
from server.release import left_out_errors, release_of
from server.results import write_page, write_result
from server.rounds import run_federation
from server.state import RunResult
from simulation.grid import InProcessGrid

FEDERATION = Federation.model_validate(
    {
        "name": "test",
        "targets": {
            "strength": {"unit": "MPa", "range": [0, 200]},
            "modulus": {"unit": "GPa", "range": [0, 50]},
        },
        "imaging": {"scale": "fit"},
        "backbone": {"name": "resnet18"},
        "head": {"hidden": [8]},
        "training": {"rounds": 1, "learning_rate": 0.01},
        "privacy": {"min_specimens": 4},
    }
)


def lab(name: str, size: int, folder: Path) -> Lab:
    generator = np.random.default_rng(size)
    features = generator.gamma(2.0, 0.2, (size, FEDERATION.num_features)).astype(np.float32)
    weights = np.random.default_rng(0).normal(size=(FEDERATION.num_features, 2))
    found = Specimens(
        lab=name,
        ids=tuple(f"{name}-{index}" for index in range(size)),
        features=features,
        targets=np.array([80.0, 20.0]) + features @ weights,
        groups=np.arange(size),
    )
    made = split_lab(found, FEDERATION, np.arange(size) % 3 == 0)
    return replace(made, model_path=folder / name / "model")


def run(folder: Path, federation: Federation = FEDERATION) -> tuple[RunResult, dict[str, Lab]]:
    sizes = {"a": 60, "b": 45, "c": 30}
    labs = {
        name: replace(lab(name, size, folder), federation=federation)
        for name, size in sizes.items()
    }
    for name in labs:
        (folder / name).mkdir(exist_ok=True)
    app = client_app(lambda context: labs[str(context.node_config["lab"])])
    grid = InProcessGrid(app, {name: {"lab": name} for name in labs})
    return run_federation(grid, federation), labs


def test_everyone_has_the_same_folder_and_each_lab_its_own_version(tmp_path: Path) -> None:
    result, labs = run(tmp_path)
    assert result.released == ("a", "b", "c")
    write_result(tmp_path / "run", FEDERATION, result)
    coordinators = read_sealed(tmp_path / "run" / "model")
    release = release_of(FEDERATION, result)
    told = release.provenance.calibration
    assert told is not None
    for made in labs.values():
        assert made.model_path is not None
        assert read_sealed(made.model_path) == coordinators
        released = load_release(made.model_path)
        own = load_own_version(made.model_path, released)
        judged = judge(made, release)
        expected, tried = judged.own, judged.used
        assert own is not None and own.chosen == expected.chosen
        features = made.held_out.features
        np.testing.assert_array_equal(own.predict(features), expected.predict(features))
        # intervals: of what was tried here, and of what the others told
        head, standardiser = result.head, result.standardiser
        shared = calibrate(head, standardiser, made.held_out, FEDERATION, None).counts.sum(axis=0)
        spread = spread_in_units(head, standardiser, features, FEDERATION)
        here = score_counts(np.abs(made.held_out.targets - tried) / spread)
        mixed = shrunk(here, told.counts.sum(axis=0) - shared)
        np.testing.assert_array_equal(own.intervals.quantile, Intervals.calibrated(mixed).quantile)
    # they belong to this very release, and to no other
    assert load_own_version(tmp_path / "a" / "model", replace(released, digest="")) is None
    path = own_path(tmp_path / "a" / "model")
    whole = path.read_bytes()
    for damaged in (whole[:-5], whole[:-3] + bytes([whole[-3] ^ 64]) + whole[-2:]):
        path.write_bytes(damaged)
        with pytest.raises(StateError, match="was cut or altered; remove it"):
            load_own_version(tmp_path / "a" / "model", load_release(tmp_path / "a" / "model"))


def test_a_lab_uses_what_was_chosen_for_each_target(tmp_path: Path) -> None:
    result, labs = run(tmp_path)
    release = release_of(FEDERATION, result)
    made = judge(labs["a"], release).own
    features = labs["a"].held_out.features
    by_version = made.versions.predictions(features)
    assert set(by_version) == {SHARED, *OWN_VERSIONS}
    own = replace(made, chosen=(OFFSET, PERSONALISED), offset=np.array([5.0, 0.0]))
    expected = np.stack([by_version[SHARED][:, 0] + 5.0, by_version[PERSONALISED][:, 1]], axis=1)
    np.testing.assert_allclose(own.predict(features), expected, rtol=1e-12)
    for version in (ALIGNED, CORAL):
        own = replace(made, chosen=(version, SHARED), offset=np.zeros(2))
        folder = tmp_path / version
        release.write(folder)
        own_path(folder).write_bytes(own.to_bytes(release.digest))
        kept = load_own_version(folder, load_release(folder))
        assert kept is not None and kept.chosen == (version, SHARED)
        np.testing.assert_allclose(kept.predict(features)[:, 0], by_version[version][:, 0])


def test_a_lab_stays_with_its_own_head_where_joining_is_clearly_worse(tmp_path: Path) -> None:
    data = FEDERATION.model_dump()
    data["training"]["rounds"] = 10
    federation = Federation.model_validate(data)
    sizes = {"a": 60, "b": 63, "c": 66}
    labs = {
        name: replace(lab(name, size, tmp_path), federation=federation)
        for name, size in sizes.items()
    }
    generator = np.random.default_rng(1)
    plane = generator.normal(size=(3, federation.num_features)).astype(np.float32)
    for name, made in labs.items():
        # what makes strong at two labs makes weak at the third
        sign = -1 if name == "c" else 1
        for part in (made.training, made.held_out):
            latent = generator.normal(size=(len(part), 3)).astype(np.float32)
            part.features[:] = latent @ plane
            strength, modulus = 100 + 20 * sign * latent[:, 0], 25 + 5 * latent[:, 1]
            part.targets[:] = np.column_stack([strength, modulus])
        (tmp_path / name).mkdir()
    app = client_app(lambda context: labs[str(context.node_config["lab"])])
    grid = InProcessGrid(app, {name: {"lab": name} for name in labs})
    result = run_federation(grid, federation)
    assert result.released == ("a", "b", "c")
    made, release = labs["c"], release_of(federation, result)
    judged = judge(made, release)
    assert [gain.verdict for gain in judged.gains] == [HOLD, NO_DIFFERENCE]
    assert judged.own.stays_alone.tolist() == [True, False]
    features, training = made.held_out.features, made.training
    alone = train_alone(federation, training.features, training.targets, "c")(features)
    np.testing.assert_array_equal(judged.used[:, 0], alone[:, 0])
    np.testing.assert_array_equal(judged.used[:, 1], judged.joined[:, 1])
    # it was kept, and is what the lab predicts by
    assert made.model_path is not None
    released = load_release(made.model_path)
    own = load_own_version(made.model_path, released)
    assert own is not None and own.chosen[0] == ALONE
    np.testing.assert_array_equal(own.predict(features)[:, 0], alone[:, 0])
    assert any(ALONE in remark for remark in remarks_on_model(released, own))
    # intervals of it are of this lab's scores alone
    spread = spread_in_units(result.head, result.standardiser, features, federation)
    here = score_counts(np.abs(made.held_out.targets - judged.used) / spread)
    np.testing.assert_array_equal(own.intervals.quantile[:, 0], quantiles(here)[:, 0])
    assert own.intervals.quantile[1, 1] != quantiles(here)[1, 1]
    report = own_report(made, release, judged)
    assert next(row.use for row in report.evidence.labs) == "own"
    listed = [one.predicted for one in report.specimens if one.target == "strength"]
    np.testing.assert_array_equal(listed, alone[:, 0])
    # and so is what it leans on
    leans = permutation_importance(own.predict, made.held_out, FEDERATION, repeats=10)
    deep = [row for row in report.evidence.importances if row.feature == "deep features"]
    assert [row.increase for row in deep] == leans.increase[0].tolist()
    assert any(f"strength, {ALONE}" in note for note in report.evidence.notes)


def test_an_own_version_that_does_not_fit_or_is_no_file_is_refused(tmp_path: Path) -> None:
    result, labs = run(tmp_path)
    release = release_of(FEDERATION, result)
    made = judge(labs["a"], release).own
    release.write(tmp_path / "model")
    released, path = load_release(tmp_path / "model"), own_path(tmp_path / "model")
    of_three = Intervals(quantile=np.ones((2, 3)))
    for wrong in (
        replace(made, chosen=(SHARED, "no such version")),
        replace(made, chosen=(SHARED,)),
        replace(made, chosen=(OFFSET, OFFSET), offset=np.zeros(5)),
        replace(made, chosen=(OFFSET, OFFSET), offset=np.full(2, np.nan)),
        replace(made, intervals=of_three),
    ):
        path.write_bytes(wrong.to_bytes(release.digest))
        with pytest.raises(StateError, match="was cut or altered; remove it"):
            load_own_version(tmp_path / "model", released)
    path.write_bytes(made.to_bytes(release.digest))
    bare = replace(released, novelty=None)
    with pytest.raises(StateError, match="was cut or altered; remove it"):
        load_own_version(tmp_path / "model", bare)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(StateError, match="was cut or altered; remove it"):
        load_own_version(tmp_path / "model", released)


def test_the_left_out_error_is_that_of_a_fit_to_the_others_specimens(tmp_path: Path) -> None:
    result, labs = run(tmp_path)
    assert result.products is not None
    basis, standardiser = result.products.basis, result.standardiser
    found = left_out_errors(result.products, standardiser, 4)
    others = [labs[name].training for name in ("a", "b")]
    x = np.concatenate([standardiser.features(of_lab.features) @ basis for of_lab in others])
    y = np.concatenate([standardiser.targets(of_lab.targets) for of_lab in others])
    sums = [result.products.of_labs[name] for name in ("a", "b")]
    penalty = fit_ridge(sums[0] + sums[1]).penalty
    own = labs["c"].training
    count, squared = found["c"]
    assert count.tolist() == [20.0, 20.0]
    for target in range(2):
        fit = Ridge(alpha=penalty[target]).fit(x.astype(np.float64), y[:, target])
        predicted = fit.predict((standardiser.features(own.features) @ basis).astype(np.float64))
        error = standardiser.in_units(predicted[:, None])[:, target] - own.targets[:, target]
        assert squared[target] == pytest.approx((error**2).sum(), rel=1e-3)
    assert left_out_errors(result.products, standardiser, 25)["c"][0].tolist() == [0.0, 0.0]


def test_the_card_has_the_errors_of_the_run(tmp_path: Path) -> None:
    result, labs = run(tmp_path)
    text = release_of(FEDERATION, result).files["card.md"].decode()
    errors = [
        np.abs(
            predict_in_units(result.head, result.standardiser, made.held_out.features)
            - made.held_out.targets
        )
        for made in labs.values()
    ]
    mae = np.concatenate(errors).mean(axis=0)
    assert f"| strength | 20 or more | {mae[0]:.3g} MPa |" in text
    assert "| a | 20 or more |" in text
    assert "proves nothing" in text


def under_other_names(result: RunResult, names: dict[str, str]) -> RunResult:
    """Return what the run would have come to, had labs other names."""
    assert result.products is not None
    products, evaluation = result.products, result.evaluation
    return replace(
        result,
        history=tuple(
            replace(record, labs=tuple(sorted(names[lab] for lab in record.labs)))
            for record in result.history
        ),
        num_examples={names[lab]: count for lab, count in result.num_examples.items()},
        named_in_card=tuple(names[lab] for lab in result.named_in_card),
        products=replace(
            products, of_labs={names[lab]: sums for lab, sums in products.of_labs.items()}
        ),
        evaluation=replace(
            evaluation, errors={names[lab]: sums for lab, sums in evaluation.errors.items()}
        ),
    )


def test_labs_that_do_not_want_to_be_named_are_not_and_their_order_tells_nothing(
    tmp_path: Path,
) -> None:
    result, labs = run(tmp_path)
    assert result.named_in_card == ("a", "b", "c") and result.unnamed == ()
    result = replace(result, named_in_card=("b",))
    release = release_of(FEDERATION, result)
    told = release.provenance
    assert told.labs == ("b", "unnamed lab 1", "unnamed lab 2")
    named_release = release_of(FEDERATION, replace(result, named_in_card=("a", "b", "c")))
    named = named_release.provenance
    rows = [np.hstack([one.num_examples[:, None], one.left_out_count, one.left_out_squared])
            for one in (told, named)]  # fmt: skip
    np.testing.assert_array_equal(rows[0][0], rows[1][1])
    of_both = sorted(rows[1][[0, 2]].tolist(), reverse=True)
    np.testing.assert_array_equal(rows[0][1:], of_both)
    assert of_both[0] != of_both[1]
    # whoever they are
    other = under_other_names(result, {"a": "zwickau", "b": "b", "c": "aue"})
    swapped = under_other_names(result, {"a": "aue", "b": "b", "c": "zwickau"})
    for again in (release_of(FEDERATION, other), release_of(FEDERATION, swapped)):
        assert again.files == release.files
    # nor do they take the name of one that calls itself so
    odd = under_other_names(result, {"a": "aue", "b": "unnamed lab 1", "c": "zwickau"})
    labs_then = release_of(FEDERATION, odd).provenance.labs
    assert labs_then == ("unnamed lab 1", "unnamed lab 2", "unnamed lab 3")
    # another lab's page knows no more; the coordinator's names all, and says so
    evidence = own_report(labs["b"], release, judge(labs["b"], release)).evidence
    assert {row.lab for row in evidence.left_out} == set(told.labs)
    silent = replace(labs["a"], name_in_card=False)
    notes = own_report(silent, release, judge(silent, release)).evidence.notes
    assert any(note.startswith("Your lab is one of the unnamed") for note in notes)
    assert not any(note.startswith("Your lab is") for note in evidence.notes)
    # one that has said so too late
    notes = own_report(silent, named_release, judge(silent, named_release)).evidence.notes
    assert any(note.startswith("The model's card names your lab, though") for note in notes)
    assert not any(note.startswith("Your lab is one of the unnamed") for note in notes)
    (note,) = [
        one for one in coordinator_report(FEDERATION, result).evidence.notes if "name" in one
    ]
    assert note.startswith("The released model does not name a, c, and this page does")


def test_a_labs_page_has_the_runs_curve_and_says_how_many_were_missing_and_not_who(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = FEDERATION.replace(training={"rounds": 3, "quorum": 0.5})
    asked: list[int] = []

    def busy_once(head: Any, features: Any, *others: Any) -> Any:
        asked.append(len(features))
        # the second time that it is asked, b has other things to do
        if len(features) == 30 and asked.count(30) == 2:
            raise RuntimeError("no time")
        return train_head(head, features, *others)

    monkeypatch.setattr("client.app.train_head", busy_once)
    result, labs = run(tmp_path, federation)
    history = result.history
    assert [record.failed for record in history] == [{}, {"b": "internal"}, {}]
    release = release_of(federation, result)
    rounds = own_report(labs["a"], release, judge(labs["a"], release)).evidence.rounds
    assert [one.server_round for one in rounds] == [1, 2, 3]
    assert [(one.num_missing, one.missing) for one in rounds] == [(0, {}), (1, {}), (0, {})]
    assert [f"{one.loss:.3g}" for one in rounds] == [f"{r.train_loss:.3g}" for r in history]
    pages = [(tmp_path / name / "report.html").read_text() for name in labs]
    for page in pages:
        assert "× number of labs missing in this round" in page
        assert "labs that gave no update" not in page and "internal" not in page
    report = coordinator_report(federation, result)
    assert [one.missing for one in report.evidence.rounds] == [{}, {"b": "internal"}, {}]
    # a loss that no sum holds, or that rounding makes infinite, keeps the model from nobody
    odd = replace(history[0], train_loss=1.7976e308), replace(history[1], train_loss=float("inf"))
    told = release_of(federation, replace(result, history=(*odd, history[2]))).provenance.training
    assert told is not None
    assert np.isnan(told.train_loss).tolist() == [True, True, False]


def test_of_one_round_no_empty_figure_stands_on_a_page(tmp_path: Path) -> None:
    run(tmp_path)
    page = (tmp_path / "a" / "report.html").read_text()
    assert "What it is worth to each lab" in page and "How training went" not in page


def test_each_lab_reads_of_its_own_specimens_and_the_coordinator_of_none(tmp_path: Path) -> None:
    result, labs = run(tmp_path)
    page = write_page(tmp_path, FEDERATION, result, judged=True).read_text()
    report = coordinator_report(FEDERATION, result, judged=True)
    for name, made in labs.items():
        own = (tmp_path / name / "report.html").read_text()
        for specimen in made.held_out.ids:
            assert specimen in own
            assert specimen not in page
        # what others have is not in it
        assert not [
            one for other in set(labs) - {name} for one in labs[other].held_out.ids if one in own
        ]
    assert {row.lab for row in report.evidence.labs} == set(labs)
    assert {row.lab for row in report.evidence.contributions} == set(labs)
    unjudged = coordinator_report(FEDERATION, result).evidence
    assert unjudged.contributions == ()
    assert any("--contributions" in note for note in unjudged.notes)


def test_the_coordinators_coverage_is_that_of_halves_tried_on_each_other(tmp_path: Path) -> None:
    result, labs = run(tmp_path)
    report = coordinator_report(FEDERATION, result)
    found = {(row.lab, row.target, row.level): row.coverage for row in report.evidence.calibration}
    sums = {
        name: calibrate(result.head, result.standardiser, made.held_out, FEDERATION, None).counts
        for name, made in labs.items()
    }
    everyone = np.sum(list(sums.values()), axis=0)
    covered, total = 0.0, 0.0
    for counts in sums.values():
        for half in (0, 1):
            quantile = quantiles(
                shrunk(counts[1 - half], everyone[1 - half] - counts[1 - half]), (0.9,)
            )[0, 0]
            edges = np.append(GRID, np.inf)
            covered += counts[half, 0, edges <= quantile].sum()
            total += counts[half, 0].sum()
    assert found[(None, "strength", 0.9)] == pytest.approx(covered / total)


def test_a_labs_report_compares_what_it_would_have_alone(tmp_path: Path) -> None:
    result, labs = run(tmp_path)
    made = labs["a"]
    release = release_of(FEDERATION, result)
    report = own_report(made, release, judge(made, release))
    (strength, modulus) = report.evidence.labs
    assert (strength.target, strength.num_specimens) == ("strength", len(made.held_out))
    shared = predict_in_units(result.head, result.standardiser, made.held_out.features)
    expected = np.abs(shared - made.held_out.targets).mean(axis=0)
    assert strength.together == pytest.approx(expected[0])
    assert modulus.together == pytest.approx(expected[1])
    alone = next(row for row in report.evidence.modes if not row.is_shared)
    assert alone.mae == pytest.approx(strength.alone)
    assert len(report.specimens) == 2 * len(made.held_out)
    assert all(one.lower < one.predicted < one.upper for one in report.specimens
               if one.lower is not None and one.upper is not None)  # fmt: skip


def test_a_labs_report_has_the_line_to_beat_and_whether_intervals_hold_there(
    tmp_path: Path,
) -> None:
    result, labs = run(tmp_path)
    made, release = labs["a"], release_of(FEDERATION, result)
    evidence = own_report(made, release, judge(made, release)).evidence
    line = [row for row in evidence.modes if row.is_line]
    errors = result.evaluation.baseline["a"]
    assert [row.mae for row in line] == [
        pytest.approx(errors.metrics(column)["mae"]) for column in (0, 1)
    ]
    assert {row.lab for row in evidence.left_out} == set(labs)
    # by hand, of the second target at 90 %: each half by the other's quantile and the other labs'
    tried = judge(made, release).used
    spread = spread_in_units(result.head, result.standardiser, made.held_out.features, FEDERATION)
    scores = np.abs(made.held_out.targets - tried) / spread
    others = sum(
        calibrate(
            result.head, result.standardiser, labs[name].held_out, FEDERATION, None
        ).counts.sum(axis=0)
        for name in ("b", "c")
    )
    second = second_half(made.held_out, FEDERATION.training.seed)
    held = []
    for half in (second, ~second):
        quantile = quantiles(shrunk(score_counts(scores[~half]), others), (0.9,))[0, 1]
        held += (scores[half, 1] <= quantile).tolist()
    (found,) = [row for row in evidence.calibration if row.target == "modulus" and row.level == 0.9]
    assert found.lab == "a" and found.num_specimens == len(made.held_out) == len(held)
    assert found.coverage == pytest.approx(np.mean(held))
    assert 0.0 < np.mean(held) < 1.0


def kept_at(made: Lab) -> tuple[bool, bool]:
    """Whether the lab's own version of the model that lies there is kept, and a report."""
    assert made.model_path is not None
    own = load_own_version(made.model_path, load_release(made.model_path))
    return own is not None, report_path(made.model_path).exists()


def request_of(release: Release) -> ReleaseRequest:
    model = release.model
    return ReleaseRequest(
        model=ModelRequest(
            terms=Terms.of(release.federation), head=model.head, standardiser=model.standardiser
        ),
        provenance=release.provenance,
        novelty=release.novelty,
        baseline=release.baseline,
    )


def test_a_lab_that_dies_while_it_judges_goes_on_at_its_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, labs = run(tmp_path)
    made, folder = labs["a"], tmp_path / "a" / "model"
    assert kept_at(made) == (True, True) and not to_judge_path(folder).exists()
    second = release_of(FEDERATION, replace(first, head={k: -a for k, a in first.head.items()}))

    class Killed(BaseException):
        pass

    def dies(*_: object) -> None:
        raise Killed

    keep(request_of(second), made, folder)
    with monkeypatch.context() as patched:
        patched.setattr("client.keeping.judge", dies)
        with pytest.raises(Killed):
            judge_kept(made, folder)
    # the own version that lies there is of the first model, and its report is gone
    assert load_release(folder).digest == second.digest and kept_at(made) == (False, False)
    judge_kept(made, folder)
    assert kept_at(made) == (True, True) and not to_judge_path(folder).exists()
    # asked again, and judged already
    keep(request_of(second), made, folder)
    assert not to_judge_path(folder).exists()


def test_what_is_judged_later_is_what_is_judged_at_once(tmp_path: Path) -> None:
    result, labs = run(tmp_path)
    folder, later = tmp_path / "a" / "model", tmp_path / "later" / "model"
    later.parent.mkdir()
    made = replace(labs["a"], model_path=later, judges_later=True)
    app = client_app(lambda context: made)
    request = request_of(release_of(FEDERATION, result)).to_record()
    grid = InProcessGrid(app, {"a": {"lab": "a"}})
    (node,) = grid.get_node_ids()
    (reply,) = grid.send_and_receive([message_to(node, RELEASE, request)])
    assert not reply.has_error()
    # what the coordinator waits for is there, and the rest is not
    assert kept_at(made) == (False, False)
    judge_kept(made, later)
    found, expected = (load_own_version(path, load_release(path)) for path in (later, folder))
    assert found is not None and expected is not None and found.chosen == expected.chosen
    np.testing.assert_array_equal(found.intervals.quantile, expected.intervals.quantile)
    features = made.held_out.features
    np.testing.assert_array_equal(found.predict(features), expected.predict(features))
    pages = [report_path(path).read_text() for path in (later, folder)]
    assert pages[0] == pages[1]


def test_what_is_no_release_of_this_model_is_not_judged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result, labs = run(tmp_path)
    made, folder = labs["a"], tmp_path / "a" / "model"
    report_path(folder).unlink()
    keep(request_of(release_of(FEDERATION, result)), made, folder)
    waits = to_judge_path(folder)
    whole = waits.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"\xff" * 40, b""):
        waits.write_bytes(damaged)
        judge_kept(made, folder)
        assert "not judged yet" in caplog.text and "was cut or altered; remove it" in caplog.text
        assert waits.exists() and not report_path(folder).exists()
        caplog.clear()
    # cut off before the model of it came
    other = release_of(FEDERATION, replace(result, head={k: -a for k, a in result.head.items()}))
    other.write(folder)
    waits.write_bytes(whole)
    judge_kept(made, folder)
    assert not waits.exists() and not report_path(folder).exists()
    assert "is of another model than" in caplog.text
    # a specimen more, and others are held out
    waits.write_bytes(whole)
    release_of(FEDERATION, result).write(folder)
    judge_kept(
        replace(made, held_out=made.held_out.take(np.arange(len(made.held_out)) > 0)), folder
    )
    assert not waits.exists() and not report_path(folder).exists()
    assert "not those that it trained on any more" in caplog.text


def test_what_cannot_be_written_beside_a_model_keeps_it_not_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise StateError("no room for it")

    monkeypatch.setattr("client.keeping.keep_own_version", full)
    # no file, and so not to be removed as one
    (tmp_path / "a" / "report.html").mkdir(parents=True)
    result, labs = run(tmp_path)
    assert result.released == ("a", "b", "c")
    assert "the report of an earlier model stays" in caplog.text
    assert "the model is kept, and not judged yet: no room for it" in caplog.text
    caplog.clear()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "model-to-judge").mkdir()
    keep(request_of(release_of(FEDERATION, result)), labs["a"], tmp_path / "full" / "model")
    assert "the model is kept, and cannot be judged" in caplog.text
    assert load_release(tmp_path / "full" / "model").federation == FEDERATION


def test_a_report_that_cannot_be_written_keeps_no_model_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result, labs = run(tmp_path)
    folder = tmp_path / "b" / "model"
    report_path(folder).unlink()
    keep(request_of(release_of(FEDERATION, result)), labs["b"], folder)
    report_path(folder).mkdir()
    judge_kept(labs["b"], folder)
    assert "the model is kept, and not judged yet" in caplog.text
    report_path(folder).rmdir()
    judge_kept(labs["b"], folder)
    assert kept_at(labs["b"]) == (True, True)
