"""Learn from chest X-rays and their reports over space (views) and time (a patient's studies).

    import medst
    model = medst.load("path, hub id or released checkpoint")
    images = model.encode_image("frontal.jpg", "lateral.dcm")
    model.similarity(images, ["The effusion has resolved."])

Nothing heavy is imported before it is asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medst.use import Model, Picture, Study, load

__version__ = "0.1.0"
NUMERICS = 2
"""Version of the computed numbers. Raise it with every change after which the same weights embed differently, the same
seed trains differently, or a benchmark measures differently, beyond rounding. Cached features, results and ablations of
another version are then never taken for results of this one."""
__all__ = ["NUMERICS", "Model", "Picture", "Study", "__version__", "load"]


def __getattr__(name: str) -> Any:
    if name in ("Model", "Picture", "Study", "load"):
        from medst import use

        return getattr(use, name)
    raise AttributeError(f"module 'medst' has no attribute '{name}'")
