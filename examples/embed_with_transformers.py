"""Embeddings of a cohort's images by an image model of transformers, such as RAD-DINO, for `medst evaluate --embeddings`.

python examples/embed_with_transformers.py microsoft/rad-dino COHORT rad-dino.parquet
medst evaluate all COHORT --embeddings rad-dino.parquet
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import polars as pl
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel

from medst.cohort.store import open_cohort
from medst.errors import MedstError

BATCH = 16


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="id on the Hugging Face hub, or a folder")
    parser.add_argument("cohort", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()

    cohort = open_cohort(given.cohort)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    processor = AutoImageProcessor.from_pretrained(given.model)
    model = AutoModel.from_pretrained(given.model).eval().to(device)
    vectors = []
    for start in range(0, len(cohort.images), BATCH):
        pictures = [Image.fromarray(square).convert("RGB") for square in cohort.images[start : start + BATCH]]
        inputs = processor(images=pictures, return_tensors="pt").to(device)
        vectors.append(model(**inputs).pooler_output.float().cpu().numpy())  # of Dinov2Model: the CLS token, normalised
    rows = np.concatenate(vectors)
    pl.DataFrame({"id": cohort.image_table["image_id"], "vector": rows.tolist()}).write_parquet(given.out)
    print(f"{len(rows)} images, vectors of {rows.shape[1]}: {given.out}")


if __name__ == "__main__":
    try:
        main()
    except (MedstError, OSError) as error:
        sys.exit(str(error).splitlines()[0])
