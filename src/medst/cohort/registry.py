"""The data sets that `medst prepare` reads. To add one, write its module and list it here."""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from medst.cohort.options import Options

if TYPE_CHECKING:
    from medst.cohort.writer import Writer


class Reader(Protocol):
    """What the module of a data set provides."""

    def describe(self, raw: Path, options: Options) -> dict[str, Any]:
        """Return the fields of cohort.json that identify the input: dataset_version, source and possibly others.

        Raises:
            MedstError: the folder, or a file that every preparation needs, is missing or unusable.
        """

    def write_cohort(self, writer: "Writer", raw: Path, options: Options) -> dict[str, Any]:
        """Read the raw data, write the cohort and return the content of cohort.json.

        Raises:
            MedstError: the data can't be used.
        """


@dataclass(frozen=True)
class Dataset:
    """A data set that can be prepared.

    Attributes:
        module: name of its `Reader` in `medst.cohort`.
        options: fields of `Options` that apply to it.
    """

    module: str
    options: tuple[str, ...]

    def reader(self) -> Reader:
        """Import the module."""
        return cast(Reader, import_module(f"medst.cohort.{self.module}"))

    @property
    def flags(self) -> str:
        """The command line's flags for `options`."""
        return ", ".join(f"--{name.replace('_', '-')}" for name in self.options)


DATASETS = {
    "mimic-cxr": Dataset("mimic_cxr", ("reports", "frontal", "text", "decode")),
    "chexpert-plus": Dataset("chexpert_plus", ("images", "frontal", "text", "decode", "intensity")),
    "open-i": Dataset("open_i", ("images", "frontal", "text", "decode", "intensity", "views")),
    "table": Dataset(
        "table", ("images", "frontal", "text", "decode", "intensity", "labels", "separator", "date_format")
    ),
    "ms-cxr-t": Dataset("ms_cxr_t", ("images", "decode")),
    "rsna": Dataset("rsna", ("images", "intensity")),
    "covidx": Dataset("covidx", ("images", "decode", "split")),
}
"""Every data set by its name on the command line."""
