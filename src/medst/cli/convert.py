"""`medst convert`."""

from medst.cli.arguments import Checkpoint, Out
from medst.errors import MedstError


def convert(checkpoint: Checkpoint, out: Out, /, tokenizer: str | None = None) -> None:
    """Turn a released Med-ST or MGCA checkpoint into a model folder.

    Args:
        checkpoint: file of the released checkpoint.
        out: folder to write.
        tokenizer: folder with Bio_ClinicalBERT's vocab.txt, or its hub id; the checkpoint's own folder if not given.
    """
    if checkpoint.is_dir():
        raise MedstError(f"{checkpoint} is a folder; `medst export` writes a model folder as a checkpoint.")
    if not checkpoint.exists():
        raise MedstError(f"{checkpoint}: no such file or folder.")
    from medst import weights

    weights.convert(checkpoint, out, tokenizer=tokenizer)
    print(out)
