"""`train --profile`: where the time of a training step goes."""

from collections.abc import Callable
from pathlib import Path

import jax

from scalevae_jax.runtime import console

FOLDER = "profile"
SKIPPED, TRACED = 10, 5  # dispatches


class Profiler:
    """Traces five dispatches of this life of a run, after the first ten, which compile; none without a folder."""

    def __init__(self, folder: Path | None):
        self._folder, self._seen, self._on = folder, 0, False

    def after_dispatch(self, land: Callable[[], None]) -> None:
        """Another one was given to the device; `land` waits for all of them."""
        if self._folder is None:
            return
        self._seen += 1
        if self._seen in (SKIPPED, SKIPPED + TRACED):
            land()
            if self._on:
                self.close()
            else:
                jax.profiler.start_trace(self._folder, create_perfetto_trace=True)
                self._on = True

    def close(self) -> None:
        """End a trace that is on, and say where it is."""
        if self._on:
            jax.profiler.stop_trace()
            self._on = False
            console.log(
                f"profile: {min(self._seen - SKIPPED, TRACED)} dispatches are in {self._folder}; open the "
                "perfetto_trace.json.gz in it at https://ui.perfetto.dev, or the folder with XProf"
            )
        elif self._folder is not None and self._seen < SKIPPED:
            console.warn(f"profile: the run ended before its {SKIPPED}th dispatch; nothing was traced")
