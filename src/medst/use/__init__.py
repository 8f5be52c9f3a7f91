"""Use a model: pictures and texts in, embeddings, heat maps, progressions and timelines out."""

from medst.use.model import Model, load
from medst.use.outputs import Grounding, HeatMap, ImageEmbeddings, Progression, TextEmbeddings, Timeline
from medst.use.pictures import Picture, Source, read_picture, stored_picture
from medst.use.studies import Study, time_order

__all__ = [
    "Grounding",
    "HeatMap",
    "ImageEmbeddings",
    "Model",
    "Picture",
    "Progression",
    "Source",
    "Study",
    "TextEmbeddings",
    "Timeline",
    "load",
    "read_picture",
    "stored_picture",
    "time_order",
]
