"""Compiles src/medst/cohort/jpeg_eighth.c while the package is built.

It is optional: without a compiler the package is built all the same, and `--decode fast` takes OpenCV's scaled decoding,
which gives the same pixels more slowly.
"""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = Path("src/medst/cohort/jpeg_eighth.c")


class CompileHook(BuildHookInterface):
    """Puts the compiled library beside its source, and into the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, or say why not."""
        if self.target_name != "wheel" or os.name != "posix":
            return
        compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        source = Path(self.root) / SOURCE
        library = source.with_name("_jpeg_eighth.so")
        fresh = library.with_suffix(f".{os.getpid()}.new")
        command = [str(compiler), "-O3", "-shared", "-fPIC", "-o", str(fresh), str(source)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            self.app.display_warning(f"{SOURCE.name} was not compiled ({error}); fast decoding will be slower.")
            return
        fresh.replace(library)
        build_data["artifacts"].append(str(SOURCE.with_name(library.name)))
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
