"""FAULTS §1, 27: a run of 200 rounds under random faults from a seed, and whether it held.

python -m benchmarks.nemesis [--rounds N] [--seed N] [--minutes N]

A coordinator and six labs, real processes over mutual TLS on loopback. Faults come one after the
other: processes killed, stopped and frozen, the network cut and slowed, states on disk altered and
cut, a full disk, a second coordinator, strangers at the port; and one lab turns hostile. Then the
four invariants of FAULTS are looked at:

I1  every round counted once, and what was released is what those rounds give;
I2  the release computed again from `result.json` and the labs' data, in one process, to the bit;
I3  nothing of a lab's data in what the coordinator wrote, and every lab's log unbroken;
I4  every process ended in time, and every lab that missed a round is named with a reason.

Memory of coordinator and labs is sampled all along. Exit code 1 if anything did not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks.invariants import (
    check_memory,
    check_privacy,
    check_reasons,
    check_replay,
    check_rounds,
)
from benchmarks.loopback import Consortium, Running, slow_training, until, warm_context
from benchmarks.small_labs import maker_of_small_labs
from common.logs import configure_logs

HONEST = ("aachen", "bremen", "celle", "dresden", "essen")
HOSTILE = "hannover"

GRACE, WAIT = "1 s", "2 min"
ENDS_WITHIN_S = 10.0

TURNS_HOSTILE = """
import client.gate, numpy
from common.messages import TRAIN
from common.records import HeldArray
honest, answered = client.gate.Gate.check_reply, []
def check_reply(self, message_type, content):
    checked = honest(self, message_type, content)
    if message_type == TRAIN:
        answered.append(1)
        if len(answered) > {rounds}:
            array = checked["arrays"]["0.weight"].numpy()
            array[0, 0] = numpy.nan
            checked["arrays"]["0.weight"] = HeldArray(array)
    return checked
client.gate.Gate.check_reply = check_reply
"""

FULL_DISK = """
import resource, server.checkpoint
save = server.checkpoint.Checkpoints.save
def limited(self, progress):
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
    save(self, progress)
server.checkpoint.Checkpoints.save = limited
"""


@dataclass
class Nemesis:
    """Keeps a run going and harms it.

    Attributes
    ----------
    site : Consortium
    chance : Random
    num_rounds : int
    """

    site: Consortium
    chance: random.Random
    num_rounds: int
    labs: dict[str, Running] = field(default_factory=dict)
    coordinator: Running | None = None
    done: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    memory: list[tuple[float, str, float]] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def begin(self) -> None:
        """Let the labs join, and start everybody."""
        self.site.through_a_proxy()
        self.site.joined(
            *HONEST,
            HOSTILE,
            rounds=self.num_rounds,
            quorum=0.6,
            round_deadline="5 s",
            strategy="fedadam",
        )
        self.start_coordinator()
        for name in (*HONEST, HOSTILE):
            self.start_lab(name)
        until(lambda: self.round() >= 1, "the first round is counted")

    def harm_until_finished(self, seconds: float) -> None:
        """Harm the run, one fault after the other, until it is over or the time is."""
        faults = self.faults()
        end = time.monotonic() + seconds
        while not self.is_finished():
            if time.monotonic() > end:
                self.broken.append(f"I4: not finished within {seconds:.0f} s")
                return
            fault = self.chance.choice(faults)
            self.done[fault.__name__.replace("_", " ")] += 1
            fault()
            self._sample_memory()
            self._rest(self.chance.uniform(0.2, 2.5))
            self._revive()

    def end(self) -> None:
        """Let what was away get the model, and see everybody home."""
        if self.is_finished():
            self._expect(self._coordinator(), 0, 60.0, "the coordinator")
            if self.site.result()["have_the_model"] != self.site.result()["labs"]:
                self._revive_labs()
                again = self.site.coordinator("--grace", "30 s")
                self._expect(again, 0, 60.0, "the coordinator that hands over the model")
        for name, lab in self.labs.items():
            # the hostile lab is out, and ends without a model
            self._expect(lab, 1 if name == HOSTILE else 0, 60.0, name)

    def faults(self) -> list[Callable[[], None]]:
        """Return the faults, those of a real life more than once."""
        return [
            self.kill_a_lab,
            self.kill_a_lab,
            self.kill_the_coordinator,
            self.kill_the_coordinator,
            self.stop_a_lab,
            self.stop_the_coordinator,
            self.freeze_a_lab,
            self.cut_all_connections,
            self.cut_the_network,
            self.slow_the_network,
            self.alter_the_newest_state,
            self.cut_the_newest_state,
            self.fill_the_disk,
            self.start_a_second_coordinator,
            self.send_rubbish_to_the_port,
        ]

    def kill_a_lab(self) -> None:
        """Kill it at once."""
        self.labs[self.any_lab()].kill()

    def kill_the_coordinator(self) -> None:
        """Kill it at once."""
        self._coordinator().kill()

    def stop_a_lab(self) -> None:
        """Tell it to stop: it ends in order."""
        name = self.any_lab()
        self.labs[name].send(signal.SIGTERM)
        self._expect(self.labs[name], 0, ENDS_WITHIN_S, f"{name} told to stop")

    def stop_the_coordinator(self) -> None:
        """Tell it to stop: it ends in order."""
        self._coordinator().send(signal.SIGTERM)
        self._expect(self._coordinator(), 0, ENDS_WITHIN_S, "the coordinator told to stop")

    def freeze_a_lab(self) -> None:
        """Stop it for seconds, as a laptop that sleeps."""
        lab = self.labs[self.any_lab()]
        lab.send(signal.SIGSTOP)
        self._rest(self.chance.uniform(0.5, 7.0))
        lab.send(signal.SIGCONT)

    def cut_all_connections(self) -> None:
        """Break each lab's connection; it may come back at once."""
        self._proxy().break_all()

    def cut_the_network(self) -> None:
        """Let nobody through for seconds."""
        self._proxy().cut.set()
        self._proxy().break_all()
        self._rest(self.chance.uniform(0.5, 4.0))
        self._proxy().cut.clear()

    def slow_the_network(self) -> None:
        """Let what labs send take longer for seconds."""
        self._proxy().pause_s = 0.02
        self._rest(self.chance.uniform(0.5, 3.0))
        self._proxy().pause_s = 0.0

    def alter_the_newest_state(self) -> None:
        """Flip a bit of the state on disk while nobody looks."""

        def flip(content: bytearray) -> None:
            content[self.chance.randrange(len(content))] ^= 1 << self.chance.randrange(8)

        self._harm_the_newest_state(flip)

    def cut_the_newest_state(self) -> None:
        """Take the end from the state on disk."""

        def cut(content: bytearray) -> None:
            del content[self.chance.randrange(len(content)) :]

        self._harm_the_newest_state(cut)

    def fill_the_disk(self) -> None:
        """Leave the coordinator no room for its next state: it ends by name."""
        self._coordinator().kill()
        if self.is_finished() or len(self._states()) < 1:
            return
        full = self._start(FULL_DISK)
        self._expect(full, 1, 90.0, "the coordinator without room")
        if "make room" not in full.text():
            self.broken.append("I4: a full disk was not named")

    def start_a_second_coordinator(self) -> None:
        """Start one that finds the folder in use, and ends."""
        second = self.site.start("server", "start", "--state", self.site.server)
        if not self._coordinator().ended():
            self._expect(second, 1, 30.0, "a second coordinator")

    def send_rubbish_to_the_port(self) -> None:
        """Speak no TLS: whoever does is out, and nobody notices."""
        try:
            with socket.create_connection(("127.0.0.1", self.site.port), timeout=2) as stranger:
                stranger.sendall(self.chance.randbytes(2000))
        except OSError:
            # nobody listens just now
            self.done["rubbish that nobody heard"] += 1

    def any_lab(self) -> str:
        """Return an honest lab."""
        return self.chance.choice(HONEST)

    def start_lab(self, name: str) -> None:
        """Start a lab, whose training takes long enough to be met by a fault."""
        before = slow_training(0.1)
        if name == HOSTILE:
            before += TURNS_HOSTILE.format(rounds=self.num_rounds // 4)
        self.labs[name] = self.site.lab(name, "--patience", "5 min", before=before)

    def start_coordinator(self) -> None:
        """Start the coordinator."""
        self.coordinator = self._start("")

    def round(self) -> int:
        """Return the last round that the coordinator has told of."""
        path = self.site.server / "status.json"
        return int(json.loads(path.read_text())["round"]) if path.exists() else 0

    def is_finished(self) -> bool:
        """Return whether there is a result."""
        return (self.site.server / "run" / "result.json").exists()

    def _start(self, before: str) -> Running:
        return self.site.coordinator("--grace", GRACE, "--wait", WAIT, before=before)

    def _coordinator(self) -> Running:
        assert self.coordinator is not None
        return self.coordinator

    def _proxy(self) -> Any:
        return self.site.proxy

    def _states(self) -> list[Path]:
        return sorted((self.site.server / "run").glob("*.checkpoint"))

    def _harm_the_newest_state(self, harm: Callable[[bytearray], None]) -> None:
        self._coordinator().kill()
        # with one state alone there would be none to go back to
        if len(self._states()) > 1 and not self.is_finished():
            newest = self._states()[-1]
            content = bytearray(newest.read_bytes())
            harm(content)
            newest.write_bytes(content)

    def _revive(self) -> None:
        if self._coordinator().ended() and not self.is_finished():
            self.start_coordinator()
        self._revive_labs()

    def _revive_labs(self) -> None:
        for name, lab in self.labs.items():
            has_model = (self.site.state(name) / "model" / "model.safetensors").exists()
            if lab.ended() and name != HOSTILE and not has_model:
                self.start_lab(name)

    def _rest(self, seconds: float) -> None:
        time.sleep(seconds)

    def _expect(self, running: Running, code: int, seconds: float, who: str) -> None:
        """Note it where a process does not end in time, or not as it should."""
        try:
            found = running.exit_code(seconds)
        except AssertionError:
            self.broken.append(f"I4: {who} did not end within {seconds:.0f} s")
            running.kill()
            return
        # a process that a fault before this one has killed is no news
        if found not in (code, -signal.SIGKILL):
            tail = " | ".join(running.text().strip().splitlines()[-2:])
            self.broken.append(f"I4: {who} ended with {found}, not {code}: {tail}")

    def _sample_memory(self) -> None:
        now = time.monotonic() - self.began
        for role, running in (("coordinator", self.coordinator), *self.labs.items()):
            try:
                process = psutil.Process(running.process.pid if running else None)
                self.memory.append((now, role, process.memory_info().rss / 1e6))
            except psutil.Error:
                continue


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, harm, look, and print what was done and what held."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=8.0, help="for the faults; 9 at most")
    options = parser.parse_args(arguments)
    configure_logs(as_json=False)
    with tempfile.TemporaryDirectory(prefix="crossply-") as name:
        folder = Path(name)
        os.environ["CROSSPLY_CACHE"] = str(folder / "features")
        site = Consortium(folder, maker_of_small_labs(folder), warm_context())
        nemesis = Nemesis(site, random.Random(options.seed), options.rounds)
        try:
            nemesis.begin()
            nemesis.harm_until_finished(60 * min(options.minutes, 9.0))
            nemesis.end()
            broken, memory = _look(nemesis)
        finally:
            site.close()
    _print(nemesis, options.seed, broken, memory)
    if broken:
        raise SystemExit(1)


def _look(nemesis: Nemesis) -> tuple[list[str], list[list[str]]]:
    site, broken = nemesis.site, list(nemesis.broken)
    grown, memory = check_memory(nemesis.memory, ("coordinator", *HONEST))
    broken += grown
    if nemesis.is_finished():
        broken += check_rounds(site, HONEST, nemesis.num_rounds) + check_replay(site)
        broken += check_privacy(site, (*HONEST, HOSTILE)) + check_reasons(site, HOSTILE)
    return broken, memory


def _print(
    nemesis: Nemesis, seed: int, broken: Sequence[str], memory: Sequence[Sequence[str]]
) -> None:
    console = Console(width=100)
    took = time.monotonic() - nemesis.began
    title = f"{nemesis.num_rounds} rounds, {len(HONEST) + 1} labs, seed {seed}, {took:.0f} s"
    table = Table("fault", "times", title=title, box=SIMPLE_HEAD)
    for fault, times in sorted(nemesis.done.items()):
        table.add_row(fault, str(times))
    console.print(table)
    peaks = Table("peak memory, MB", "first third", "last third", title="resident", box=SIMPLE_HEAD)
    for row in memory:
        peaks.add_row(*row)
    console.print(peaks)
    verdict = Table("invariant", "", box=SIMPLE_HEAD)
    for name in ("I1", "I2", "I3", "I4", "memory"):
        said = [line.partition(": ")[2] for line in broken if line.startswith(name)]
        verdict.add_row(name, "; ".join(said) or "held")
    console.print(verdict)


if __name__ == "__main__":
    main()
