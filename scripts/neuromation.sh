# Installs the older client into an environment of its own: its dependencies are not those of the newer one.
#   sh scripts/neuromation.sh FOLDER [PYTHON]    with this Python, or another one on PATH that can run it
# Without any it says so and installs nothing: those tests are skipped, and fail on CI.
set -eu

folder=$1

# Its dependencies of then cannot be built for Python 3.12; the pinned ones need 3.10.
suits() {
    "$1" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info[:2] not in ((3, 10), (3, 11)))' >/dev/null 2>&1
}

for python in "${2:-python3}" python3.11 python3.10; do
    if suits "$python"; then
        "$python" -m venv --clear "$folder"
        # First what builds the one dependency that is only to be had as source.
        for packages in 'setuptools wheel' neuromation; do
            # shellcheck disable=SC2086
            "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-build-isolation \
                --constraint constraints-neuromation.txt $packages
        done
        exit
    fi
done
echo 'The older client, neuromation, is not tested here: it needs Python 3.10 or 3.11 on PATH.' >&2
