"""``crossply lab join``: what an invite asks for, and the lab's yes to it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

if TYPE_CHECKING:
    from common.federation import Federation

State: TypeAlias = Annotated[
    Path,
    typer.Option(
        "--state",
        envvar="CROSSPLY_LAB_STATE",
        help="The lab's state folder: its key, its policy, the log of what left.",
    ),
]

DEFAULT_STATE = Path("crossply-lab")

SHORTEST_FINGERPRINT = 12


def join(
    invite: Annotated[Path, typer.Argument(metavar="FILE", help="The invite.")],
    data: Annotated[
        Path, typer.Option(metavar="DIR", help="The lab's folder, which holds lab.toml.")
    ],
    state: State = DEFAULT_STATE,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; needs --fingerprint.")] = False,
    fingerprint: Annotated[
        str | None,
        typer.Option(
            metavar="HEX", help="Of the agreement, as the coordinator told it; 12 digits or more."
        ),
    ] = None,
) -> None:
    """Join a federation: see the agreement, say yes, and enrol. The key is made here."""
    from common.errors import ConfigurationError
    from common.tls13 import require_tls13

    require_tls13()
    from client import joining
    from client.dataset import load_dataset
    from common.invite import read_invite

    found = read_invite(invite)
    federation = joining.agreement_of(found)
    if yes and fingerprint is None:
        raise ConfigurationError(
            "--yes needs --fingerprint: ask the coordinator for it by another way than the invite"
        )
    if fingerprint is not None:
        _check_fingerprint(fingerprint, found.fingerprint)
    joining.check_folders(data, state)
    # an invite is good once: it is not used up for data that cannot take part
    load_dataset(data, federation)
    _show(federation, found.lab, found.address, found.fingerprint)
    if not yes and not typer.confirm("Join under this agreement?"):
        typer.echo("Nothing was sent.")
        raise typer.Exit(1)
    joining.join(found, data, state)
    typer.echo(f"{found.lab} has joined {federation.name}; its key and policy are in {state}.")
    where = "" if state == DEFAULT_STATE else f" --state {state}"
    typer.echo(f"Next: crossply lab doctor{where}; then crossply lab start{where}")


def _check_fingerprint(given: str, of_invite: str) -> None:
    from client.findings import printable
    from common.errors import ConfigurationError

    digits = given.lower()
    if len(digits) < SHORTEST_FINGERPRINT:
        raise ConfigurationError(
            f"--fingerprint needs {SHORTEST_FINGERPRINT} digits or more, not {len(digits)}"
        )
    if not of_invite.startswith(digits):
        raise ConfigurationError(
            f"the invite's agreement has the fingerprint {of_invite[: len(digits)]}, not "
            f"{printable(digits)}; ask the coordinator which is right"
        )


def _show(federation: Federation, lab: str, address: str, fingerprint: str) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from client.findings import printable
    from client.leaving import leaves

    console = Console(highlight=False)
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for name, value in _rows(federation):
        table.add_row(name, escape(printable(value)))
    leaving = Table.grid(padding=(0, 1, 0, 0))
    privacy = federation.privacy
    for sentence in leaves(privacy.min_specimens, cross_evaluation=privacy.cross_evaluation):
        leaving.add_row("-", escape(sentence))
    title, whom, where = (escape(printable(text)) for text in (federation.name, lab, address))
    console.print(f"\n[bold]{title}[/] asks {whom} to take part, at {where}\n")
    console.print(table)
    console.print("\n[bold]leaves your lab[/]")
    console.print(leaving)
    console.print(f"\nFingerprint of the agreement: [bold]{fingerprint[:12]}[/]{fingerprint[12:]}")
    console.print("Compare it with what the coordinator tells you by another way.\n")


def _rows(federation: Federation) -> list[tuple[str, str]]:
    from client.leaving import NEVER

    targets = [
        f"{name} in {target.unit}, {target.range[0]:g} to {target.range[1]:g}"
        for name, target in federation.targets.items()
    ]
    covariates = [f"{name} in {c.unit}" for name, c in federation.covariates.items()]
    imaging, training = federation.imaging, federation.training
    scale = f", {imaging.um_per_px:g} µm per pixel" if imaging.um_per_px else ""
    return [
        ("predicts", "; ".join(targets)),
        ("process variables", "; ".join(covariates) or "none"),
        ("micrographs", f"scale {imaging.scale}{scale}, tiles of {imaging.tile_px} pixels"),
        ("network", f"{federation.backbone.name}, frozen, run on your machine"),
        (
            "training",
            f"{training.strategy}, {training.rounds} rounds, a quorum of {training.quorum:.0%}, "
            f"{training.round_deadline} a round at most",
        ),
        ("licence of the model", federation.release.licence or "none is stated"),
        ("never leaves it", f"{NEVER}; and no code comes in"),
        (
            "names your lab",
            "the card of the released model, which all labs get and may hand on with it, unless "
            "name_in_card = false stands in policy.toml in the state folder when you start",
        ),
        ("you decide", "policy.toml in the state folder: what may leave, and how often"),
    ]
