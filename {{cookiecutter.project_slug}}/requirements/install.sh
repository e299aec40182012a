#!/bin/sh
# Runs in the job of `make setup`: installs apt.txt and pip.txt, which lie beside it.
# Both may hold comments, blank lines and Windows line ends.
set -eu
cd "$(dirname "$0")"

listed() { tr -d '\r' <"$1" | sed 's/#.*//' | tr '\n' ' '; }

set -f
# shellcheck disable=SC2046 # one word per package
set -- $(listed apt.txt)
if [ $# -gt 0 ]; then
    if [ "$(id -u)" != 0 ]; then
        echo "install.sh: apt packages ($*) need root in the job, and this job has none (neuro-local run by an ordinary user): empty requirements/apt.txt, choose a base image that has them, or run neuro-local as root." >&2
        exit 1
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update
    apt-get install --yes --no-install-recommends "$@"
fi

if [ -n "$(listed pip.txt | tr -d ' \t')" ]; then
    echo 'Installing requirements/pip.txt; this can take a minute or two.'
    PIP_ROOT_USER_ACTION=ignore python -m pip install --quiet --requirement pip.txt
fi
