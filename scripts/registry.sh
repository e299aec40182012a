# Installs Debian's docker-registry, which keeps what `neuro image push` brings, if there is none and this user may.
# Not where systemd runs: there the package would also start a service of its own, open to the network.
set -eu
. "$(dirname "$0")/debian.sh"

command -v docker-registry >/dev/null ||
    { [ ! -d /run/systemd/system ] && install_debian docker-registry 'the tests of the image registry'; } ||
    echo 'The tests of the image registry need docker-registry: install it (Debian), and disable its own service.' >&2
