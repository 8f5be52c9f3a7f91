"""`medst phantom`."""

from typing import TYPE_CHECKING, Any

from tyro.extras import literal_type_from_choices

from medst.cli.arguments import Out
from medst.cli.counts import count_phrase
from medst_phantom import OTHER_TREES

if TYPE_CHECKING:
    TreeName = str
else:
    TreeName = literal_type_from_choices(("mimic-cxr", *OTHER_TREES, "all"))


def phantom(
    out: Out,
    /,
    patients: int = 1000,
    seed: int = 0,
    workers: int = 0,
    test_share: float = 0.2,
    valid_share: float = 0.1,
    trees: tuple[TreeName, ...] = ("mimic-cxr",),
) -> None:
    """Write synthetic patients in the raw layouts of MIMIC-CXR-JPG and MS-CXR-T, or of other data sets.

    Args:
        out: folder to write; a stopped phantom resumes.
        patients: number of patients per data set.
        seed: the same seed writes the same bytes with any number of workers.
        workers: processes; 0 means one per core.
        test_share: share of the patients in the test split of mimic-cxr.
        valid_share: share of the patients in the validation split of mimic-cxr.
        trees: data sets to write: mimic-cxr to OUT/mimic-cxr-jpg and OUT/ms-cxr-t, any other one to OUT/NAME.
    """
    from medst.progress import Display
    from medst_phantom.mimic import write_phantom
    from medst_phantom.others import write_tree

    wanted = ("mimic-cxr", *OTHER_TREES) if "all" in trees else tuple(dict.fromkeys(trees))
    common: dict[str, Any] = {"patients": patients, "seed": seed, "workers": workers}
    lines = []
    with Display(list(wanted)) as display:
        for name in wanted:
            progress = display.stage(name)
            if name == "mimic-cxr":
                shares: dict[str, Any] = {"test_share": test_share, "valid_share": valid_share}
                lines.append(f"{out}: " + count_phrase(write_phantom(out, **common, **shares, progress=progress)))
            else:
                lines.append(
                    f"{out / name}: " + count_phrase(write_tree(name, out / name, **common, progress=progress))
                )
    print("\n".join(lines))
