# Installs Debian's docker-registry, which keeps what `neuro image push` brings, if there is none and this user may.
set -eu
. "$(dirname "$0")/debian.sh"

command -v docker-registry >/dev/null || install_debian docker-registry 'the tests of the image registry' ||
    echo 'The tests of the image registry need docker-registry: install it (Debian: apt-get install docker-registry).' >&2
