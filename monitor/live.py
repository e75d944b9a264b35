"""The configuration while the monitor runs: noticing that its files changed, and judging whether the change can be taken.

Owns the watch over the files and the moment at which they are read; never applies a value.
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

from watchdog import events as happened
from watchdog.observers import Observer
from watchdog.observers.api import ObservedWatch

from monitor import config
from monitor.config import Loaded, Sources
from monitor.config_file import ConfigError
from monitor.config_keys import KEYS, Config, Key
from monitor.instance import write_file
from monitor.voice import Voice

STABLE_S = 0.3
"""The files must have rested so long before they are read: an editor may be writing still."""
GAP_S = 2.0
"""So long when one is empty or gone: many programs write a file anew, or take it away before they put another there."""
LOOK_S = 10.0
"""Each so many seconds the files are looked at without being told: a network file system tells of nothing."""
_PAUSE_S = 0.1
_MOST_LINKS = 40  # as the kernel follows (MAXSYMLINKS)
_KINDS = (
    happened.FileCreatedEvent, happened.FileModifiedEvent, happened.FileClosedEvent, happened.FileMovedEvent,
    happened.FileDeletedEvent, happened.DirCreatedEvent, happened.DirMovedEvent, happened.DirDeletedEvent,
)  # fmt: skip

Signature = tuple[tuple[object, ...], ...]


class _Bell(happened.FileSystemEventHandler):
    """What watchdog calls, in its thread."""

    rung = False

    def on_any_event(self, _event: happened.FileSystemEvent) -> None:
        """Something happened in a directory that is watched."""
        self.rung = True


class Follower:
    """Follows the files of `sources`. For one thread but for the bell; `say` hears why watching does not work."""

    def __init__(self, sources: Sources, say: Callable[[str], None]) -> None:
        self._sources, self._say = sources, say
        self._bell = _Bell()
        self._observer = Observer()
        self._watches: dict[Path, ObservedWatch] = {}
        self._settled: Signature | None = None
        self._seen: Signature | None = None
        self._since = self._earliest = self._next = 0.0
        try:
            self._observer.start()
        except OSError as error:  # fs.inotify.max_user_instances, mostly
            self._deaf(error)
        self._watch()

    def look(self, now: float) -> Loaded | ConfigError | None:
        """Call often. When the files have changed and rest again: what they say now, or why it cannot be read.

        `now`: time.monotonic(). The first look reads them in any case: they may have changed since they were loaded.
        """
        if now < self._earliest or (now < self._next and not self._bell.rung):
            return None
        self._bell.rung = False
        self._earliest, self._next = now + _PAUSE_S, now + LOOK_S
        signature = self._signature()
        if signature == self._settled:
            self._seen = signature
            return None
        if signature != self._seen:
            self._seen, self._since = signature, now
        patience = STABLE_S if all(len(entry) > 2 and entry[3] for entry in signature) else GAP_S
        if self._settled is not None and now - self._since < patience:
            self._next = self._earliest
            return None
        try:
            found: Loaded | ConfigError = config.read(self._sources)
        except ConfigError as error:
            found = error
        if self._signature() != signature:
            self._next = self._earliest
            return None
        self._settled = signature
        self._watch()
        return found

    def again(self) -> None:
        """The next look reads the files even if they have not changed: so a refusal is said again."""
        self._settled, self._next = None, 0.0

    def close(self) -> None:
        """Ends the watching threads."""
        if self._observer.is_alive():
            self._observer.stop()
            self._observer.join()

    def _signature(self) -> Signature:
        """Changes whenever the files' names, identity or content may have. (name, errno) of what cannot be looked at."""
        try:
            return tuple(_look(path) for path in self._sources.files())
        except ConfigError as error:
            return ((str(error),),)

    def _deaf(self, error: OSError) -> None:
        reason = os.strerror(error.errno) if error.errno else str(error)
        self._say(f"changes of the configuration are seen only each {LOOK_S:.0f} s: watching fails: {reason}")

    def _watch(self) -> None:
        """Watches the directories in which a name on the way to one of the files stands."""
        if not self._observer.is_alive():
            return
        wanted = _directories(self._sources)
        for path in [path for path in self._watches if path not in wanted]:
            self._observer.unschedule(self._watches.pop(path))
        for path in sorted(wanted - self._watches.keys()):
            try:
                self._watches[path] = self._observer.schedule(self._bell, str(path), event_filter=list(_KINDS))
            except OSError as error:
                self._deaf(error)


def _look(path: Path) -> tuple[object, ...]:
    try:
        about = os.stat(path)
    except OSError as error:
        return str(path), error.errno
    return (
        *(str(path), about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns),
        *(about.st_mode, about.st_uid),
    )


def _directories(sources: Sources) -> set[Path]:
    """Where to watch: the directory of each file, and of each symbolic link that leads to one."""
    try:
        names = sources.files()
    except ConfigError:
        names = (sources.main,) if sources.main else ()
    found = {sources.drop_ins.parent, sources.drop_ins}
    for path in (*names, sources.drop_ins):
        for _ in range(_MOST_LINKS):
            found |= {path.parent, path.parent.resolve()}
            links = [place for place in (path, *path.parents) if place.is_symlink()]
            if not links:
                break
            link = links[0]
            found.add(link.parent)
            path = link.parent / link.readlink() / path.relative_to(link)
    return {path for path in found if path.is_dir() and not stat.S_ISLNK(path.lstat().st_mode)}


def refusal(before: Config, found: Loaded) -> str:
    """Why a running monitor with the configuration `before` cannot take the one that was found; "" when it can."""
    keys = config.changed(before, found.config)
    if before.locked and keys:
        return f"{_names(keys)}: the configuration is locked, and changes only at a restart"
    fixed = [key for key in keys if not key.live]
    if not fixed:
        return ""
    place = found.places.get(fixed[0].name)
    where = f"{place}: " if place else ""
    rest = "; nothing of the change is taken" if len(keys) > len(fixed) else ""
    return f"{where}{_names(fixed)}: can only change at a restart{rest}"


def changes(sources: Sources, now: Config, voice: Voice) -> Callable[[], Config | None]:
    """A function to be called often: the configuration to take from then on, when there is another one. For the shipper,
    which says what it cannot take and goes on; the collector records it."""
    follower, present = Follower(sources, voice.warning), [now]

    def look() -> Config | None:
        found = follower.look(time.monotonic())
        if found is None:
            return None
        problem = str(found) if isinstance(found, ConfigError) else refusal(present[0], found)
        if problem:
            voice.warning(f"the changed configuration is not taken: {problem}")
        if problem or isinstance(found, ConfigError) or found.config == present[0]:
            return None
        keys, present[0] = config.changed(present[0], found.config), found.config
        voice.level = found.config.log_level
        voice.info(f"the changed configuration is taken: {_names(keys)}")
        return found.config

    return look


def _names(keys: list[Key]) -> str:
    return ", ".join(key.name for key in keys)


def change(before: Config, after: Config) -> dict[str, str | list[str]]:
    """`ebpf.config` of the monitor_config document of a change that was taken; never a value.

    Where only secrets changed the digests are equal: they are not part of them.
    """
    names = sorted(key.name for key in config.changed(before, after))
    return {"old": config.digest(before), "new": config.digest(after), "keys": names}


# ---- from one run to the next ----------------------------------------------------------------------------------------


def since_last_run(output_dir: Path, now: Config) -> tuple[dict[str, object] | None, str]:
    """(members of the monitor_config document for what changed since the run before, or None; what did not work)."""
    kept, values = output_dir / "config.last.json", _flat(now)
    try:
        before = json.loads(kept.read_bytes())
        last, old = before["values"], before["digest"]
        names = sorted(name for name in {*last, *values} if last.get(name) != values.get(name))
    except FileNotFoundError:
        return None, ""
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return None, f"cannot compare with the configuration before ({kept}): {error}"
    digest = config.digest(now)
    return ({"config": {"old": old, "new": digest, "keys": names}} if old != digest else None), ""


def remember(output_dir: Path, now: Config) -> str:
    """Keeps the configuration, without secrets, for the next start to compare with; what did not work."""
    kept = output_dir / "config.last.json"
    try:
        output_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
        write_file(kept, json.dumps({"digest": config.digest(now), "values": _flat(now)}).encode())
    except OSError as error:
        return f"cannot keep {kept}: {error.strerror}"
    return ""


def _flat(now: Config) -> dict[str, object]:
    """Value by dotted key; secrets hidden."""
    document = config.effective(now)
    section = document.pop("es_config")
    document |= {f"es_config.{name}": value for name, value in section.items()}
    return {key.name: document[key.name] for key in KEYS}
