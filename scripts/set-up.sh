#!/bin/sh
# Makes a virtual environment from a lock and installs this project into it, editable.
# Usage: set-up.sh FOLDER WANTED [PYTHON]     WANTED and PYTHON as in find-python.sh
set -eu
folder=$1
python=$(sh scripts/find-python.sh "$2" "${3:-}")
release() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || echo none; }

case $(release "$python") in
    3.11) lock=requirements/py311.txt ;;
    *) lock=requirements/py313.txt ;; # every version in it also supports 3.12
esac

if [ -d "$folder" ] && [ "$(release "$folder/bin/python")" != "$(release "$python")" ]; then
    echo "Removing $folder: it does not hold Python $(release "$python")."
    rm -rf "$folder"
fi
echo "Making $folder with Python $(release "$python") ($python)."
"$python" -m venv "$folder"

pip() { "$folder/bin/python" -m pip --disable-pip-version-check --no-input "$@"; }
echo "Installing the $(grep -c == "$lock") packages of $lock: about 1.5 GB, minutes the first time."
pip install -qq --no-deps -r "$lock"
echo "Installing this project, editable."
pip install -qq --no-deps --no-build-isolation -e .
pip check
