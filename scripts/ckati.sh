# Installs Debian's ckati, which stands in for GNU make 3.81 in the tests, if there is none and this user may.
# OLD_MAKE names another old make.
set -eu
. "$(dirname "$0")/debian.sh"

[ -n "${OLD_MAKE:-}" ] || command -v ckati >/dev/null || install_debian ckati 'the tests with an old make' ||
    echo 'The tests with an old make need ckati: install it (Debian), or name an old make in the variable OLD_MAKE.' >&2
