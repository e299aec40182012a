#!/bin/sh
# Runs in the job of `make setup`: installs apt.txt and pip.txt, which lie beside it.
# Both may hold comments, blank lines and Windows line ends. With the word `check` it only looks
# at apt.txt: make asks for that before it starts a job.
set -euf
cd "$(dirname "$0")"
carriage_return=$(printf '\r')

# What a list, if there is one, holds without its comments. In the C locale, since bytes that are no UTF-8 end a `.*`;
# NUL, which no variable can hold, becomes a character that no package has.
listed() (
    [ -f "$1" ] || exit 0
    export LC_ALL=C
    tr '\000' '?' <"$1" | sed "s/$carriage_return\$//; s/#.*//" | tr '\n' ' '
)

# Is it a package, perhaps with a version, a release or a star? Neither an option of apt-get nor `name-`, which removes.
is_package() (
    LC_ALL=C
    case $1 in
    [!a-z0-9]* | *[!A-Za-z0-9.+:=~/*_-]* | *-) return 1 ;;
    esac
)

# shellcheck disable=SC2046 # one word per package
set -- "${1:-}" $(listed apt.txt)
task=$1
shift
for word in "$@"; do
    if ! is_package "$word"; then
        printf '%s\n' "install.sh: apt.txt must list Debian packages, as in libgl1 or git=1:2.39*, not '$word'." >&2
        exit 1
    fi
done
[ "$task" != check ] || exit 0

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
