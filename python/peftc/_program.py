"""Where the program is."""

import os
import shutil
import subprocess
import sys
import sysconfig
from typing import Iterator, List, Optional


def _places() -> Iterator[str]:
    """Folders that an installation may have put the program in, the likeliest first."""
    yield sysconfig.get_path("scripts")
    # `pip install --target DIR` and `--prefix DIR` put it beside the package.
    package = os.path.dirname(os.path.abspath(__file__))
    above = os.path.dirname(package)
    yield os.path.join(above, "bin")
    yield os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(above))), "bin")
    user = "nt_user" if os.name == "nt" else "posix_user"
    if user in sysconfig.get_scheme_names():
        yield sysconfig.get_path("scripts", scheme=user)


def find_program() -> str:
    """The path of ``peftc``: what ``PEFTC`` names, what was installed with this package, or else what the PATH knows."""
    named: Optional[str] = os.environ.get("PEFTC")
    if named:
        found = shutil.which(named)
        if found is None:
            raise FileNotFoundError(f"the environment variable PEFTC names {named!r}, and there is no such program")
        return found
    name = "peftc" + (sysconfig.get_config_var("EXE") or "")
    tried: List[str] = []
    for folder in _places():
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            return path
        tried.append(folder)
    found = shutil.which(name)
    if found is None:
        raise FileNotFoundError(
            f"{name} is neither in {', '.join(tried)} nor on the PATH; `pip install peftc` puts it beside {sys.executable}"
        )
    return found


def version() -> str:
    """The program's version."""
    said = subprocess.run([find_program(), "-V"], check=True, stdout=subprocess.PIPE, universal_newlines=True)
    return said.stdout.split()[-1]
