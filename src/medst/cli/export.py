"""`medst export`."""

from medst.cli.arguments import Model, Out
from medst.errors import MedstError


def export(model: Model, out: Out, /) -> None:
    """Write a model folder as a released Med-ST or MGCA checkpoint.

    Args:
        model: folder of a model that was converted from a released checkpoint, or trained with recipe paper.
        out: file to write.
    """
    if model.is_file():
        raise MedstError(f"{model} is a file; `medst convert` turns a released checkpoint into a model folder.")
    if not model.exists():
        raise MedstError(f"{model}: no such file or folder.")
    from medst import weights

    weights.export(model, out)
    print(out)
