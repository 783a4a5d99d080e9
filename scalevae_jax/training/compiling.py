"""Seconds that go into compilation, apart from those of training."""

import jax

EVENTS = tuple(
    f"/jax/core/compile/{part}_duration" for part in ("jaxpr_trace", "jaxpr_to_mlir_module", "backend_compile")
)


class Compiling:
    """Adds up, while it is entered, what JAX says of its compilations (tracing, lowering, XLA or its cache)."""

    def __init__(self) -> None:
        self._seconds = 0.0

    def __enter__(self) -> "Compiling":
        jax.monitoring.register_event_duration_secs_listener(self._hear)
        return self

    def __exit__(self, *_) -> None:
        jax.monitoring.unregister_event_duration_listener(self._hear)

    def _hear(self, event: str, duration_secs: float, **_) -> None:
        if event in EVENTS:
            self._seconds += duration_secs

    def take(self) -> float:
        """Seconds since the last `take`."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds
