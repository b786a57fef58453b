#!/usr/bin/env bash
# Builds a wheel, installs it into a fresh environment and tries it there, outside of the checkout:
#     tests/python/wheel.sh [MATURIN [PROFILE]]
# Without a profile it is that of a release. The package's types are checked too where mypy is there.
set -euo pipefail
cd "$(dirname "$0")/../.."
maturin="${1:-maturin}" profile="${2:-release}" root="$PWD"
here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT
"$maturin" build --profile "$profile" --out "$here/wheels" --compatibility linux
python3 -m venv "$here/venv"
"$here/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-index "$here"/wheels/peftc-*.whl
cp "$root/tests/python/test_package.py" "$here/"
cd "$here"
# Nothing of the checkout or of another installation is found.
env -u PYTHONPATH -u PEFTC PATH="$here/venv/bin:/usr/bin:/bin" python - <<'PYTHON'
import os, sys, peftc
program = peftc.find_program()
assert program == os.path.join(sys.prefix, "bin", "peftc"), program
print(peftc.version(), os.path.getsize(program) >> 20, "MiB")
PYTHON
sed -i "s|^ROOT = .*|ROOT = \"$root\"|" test_package.py
env -u PYTHONPATH -u PEFTC PATH="$here/venv/bin:/usr/bin:/bin" python test_package.py
if command -v mypy >/dev/null; then
  mypy --strict "$root/python/peftc"
fi
