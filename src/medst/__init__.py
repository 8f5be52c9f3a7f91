"""Learn from chest X-rays and their reports over space (views) and time (a patient's studies).

    import medst
    model = medst.load("path, hub id or released checkpoint")

Nothing heavy is imported before it is asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medst.weights import Loaded, load

__version__ = "0.1.0"
__all__ = ["Loaded", "__version__", "load"]


def __getattr__(name: str) -> Any:
    if name in ("Loaded", "load"):
        from medst import weights

        return getattr(weights, name)
    raise AttributeError(f"module 'medst' has no attribute '{name}'")
