"""The Flower ServerApp of the coordinator."""

from __future__ import annotations

from pathlib import Path

from flwr.app import ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp

from common.federation import load_federation
from common.messages import HEAD, LABS, RUN, STANDARDISER, head_record, standardiser_record
from server.results import write_result
from server.rounds import run_federation

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the federation whose file the run's configuration names; leave the result in the state.

    In the run's configuration, ``federation`` is the path of the federation file, or of the
    folder that holds it, and ``result`` the folder to write the model and ``result.json`` to, if
    any. Both are on the machine that runs this app.
    """
    federation = load_federation(Path(str(context.run_config.get("federation", "."))))
    result = run_federation(grid, federation)
    if folder := str(context.run_config.get("result", "")):
        write_result(Path(folder), federation, result)
    context.state[HEAD] = head_record(result.head)
    context.state[STANDARDISER] = standardiser_record(result.standardiser)
    context.state[RUN] = ConfigRecord({LABS: list(result.labs)})
