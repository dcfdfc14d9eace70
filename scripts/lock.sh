#!/bin/sh
# Writes the newest versions that fit pyproject.toml together into a lock.
# Usage: lock.sh RELEASE LOCK [PYTHON]     e.g. lock.sh 3.13 requirements/py313.txt
set -eu
release=$1
lock=$2
python=$(sh scripts/find-python.sh "$release" "${3:-}")
folder=.venv-lock-$release
trap 'rm -rf "$folder" "$lock.new"' EXIT

echo "Resolving for Python $release ($python): minutes."
rm -rf "$folder"
"$python" -m venv "$folder"
pip() { "$folder/bin/python" -m pip --disable-pip-version-check --no-input "$@"; }
pip install --quiet hatchling
pip install --quiet --no-build-isolation '.[agents,plot,sklearn,dev]'
{
    echo "# Versions tested together on Python $release (Linux, CPU). Made by 'make lock'; do not edit."
    echo "# It is 'pip freeze' of a new environment after: pip install hatchling '.[agents,plot,sklearn,dev]'"
    pip freeze --exclude vfe
} >"$lock.new"
if grep -v '^#' "$lock.new" | grep -Evq '^[A-Za-z0-9._-]+==[A-Za-z0-9.!+]+$'; then
    echo "error: a line of the new lock is not 'name==version'; $lock is left as it was:" >&2
    grep -v '^#' "$lock.new" | grep -Ev '^[A-Za-z0-9._-]+==[A-Za-z0-9.!+]+$' >&2
    exit 1
fi
mv "$lock.new" "$lock"
echo "Wrote $lock."
