"""How a monitor takes its configuration while it runs, and what it says of each change.

Owns the order: read, judge, take, record, keep for the next start; never writes a line itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from monitor import config as configuration
from monitor import live
from monitor.config_file import ConfigError
from monitor.startup import Startup


@dataclass
class Steered(Startup):
    """The parts of a run, with the configuration that holds now."""

    config_problem: str = ""
    follower: live.Follower | None = None

    def changed_since_last_run(self) -> None:
        """A configuration other than that of the run before is an event."""
        members, problem = live.since_last_run(self.config.output_dir, self.config)
        if members is not None:
            self.pipeline.make("monitor_config", members)
        self._remember(problem)

    def _remember(self, *problems: str) -> None:
        for problem in (*problems, live.remember(self.config.output_dir, self.config)):
            if problem:
                self.voice.warning(problem)

    def begin_to_follow(self) -> None:
        """From now on changes of the files are looked for."""
        if self.options.sources is not None:
            self.follower = live.Follower(self.options.sources, self.voice.warning)

    def follow(self, now: float) -> None:
        """What the configuration files say once they have changed: taken as a whole, or not at all."""
        found = self.follower.look(now) if self.follower is not None else None
        if found is None:
            return
        before = self.config
        problem = str(found) if isinstance(found, ConfigError) else live.refusal(before, found)
        if problem and problem != self.config_problem:
            self.voice.warning(f"the changed configuration is not taken: {problem}")
            self.pipeline.make("monitor_config", {"config": {"old": configuration.digest(before), "refused": problem}})
        self.config_problem = problem
        if problem or isinstance(found, ConfigError) or found.config == before:
            return
        self.reconfigure(found.config)
        self.pipeline.make("monitor_config", {"config": live.change(before, found.config)})
        names = ", ".join(key.name for key in configuration.changed(before, found.config))
        self.voice.info(f"the changed configuration is taken: {names}")
        self._remember()
