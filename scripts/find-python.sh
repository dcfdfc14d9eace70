#!/bin/sh
# Prints the path of a Python that runs; says on standard error what is missing if there is none.
# Usage: find-python.sh any [PYTHON]     Python 3.11 or newer
#        find-python.sh 3.13 [PYTHON]    that release and no other
# With PYTHON given, only that one is tried.
set -u
wanted=$1
given=${2:-}

# A name on the PATH proves nothing: version managers leave stubs that exist and fail, and some
# systems ship Python without venv. The free-threaded builds lack wheels of several dependencies.
accept() {
    "$1" - "$wanted" 2>/dev/null <<'PYTHON'
import ensurepip, sys, sysconfig, venv
wanted = sys.argv[1]
fits = sys.version_info >= (3, 11) if wanted == "any" else wanted == "%d.%d" % sys.version_info[:2]
if not fits or sysconfig.get_config_var("Py_GIL_DISABLED"):
    sys.exit(1)
print(sys.executable)
PYTHON
}

if [ -n "$given" ]; then
    accept "$given" && exit 0
    [ "$wanted" = any ] && wanted="3.11 or newer"
    echo "error: '$given' does not run, lacks venv, or is not Python $wanted." >&2
    exit 1
fi

case $wanted in
    any) releases="3.11 3.12 3.13" ;;
    *) releases=$wanted ;;
esac

for release in $releases; do
    accept "python$release" && exit 0
done
accept python3 && exit 0
for release in $releases; do
    for root in "${PYENV_ROOT:-}" "$(pyenv root 2>/dev/null)" \
        "$(dirname "$(command -v "python$release" || echo /)")/.." \
        "$(dirname "$(command -v pyenv || echo /)")/.."; do
        for candidate in "$root/versions/$release"*/bin/python; do
            [ -x "$candidate" ] && accept "$candidate" && exit 0
        done
    done
    candidate=$(uv python find --no-project "$release" 2>/dev/null) && accept "$candidate" && exit 0
done

if [ "$wanted" = any ]; then
    echo "error: found no Python 3.11 or newer with venv." >&2
    echo "Install one, or name it: make PYTHON=/path/to/python3.11 ..." >&2
else
    echo "error: found no Python $wanted with venv." >&2
    echo "Install it, or name it: make PYTHON313=/path/to/python$wanted ..." >&2
fi
exit 1
