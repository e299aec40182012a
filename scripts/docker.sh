# Installs Debian's docker.io, and debootstrap to make images with, if they are missing and this user is root: for whom
# the tests run an engine of their own. Other users' tests take the engine that these have. Not where systemd runs:
# there the package would also start an engine for the whole machine, which changes its firewall.
set -eu
. "$(dirname "$0")/debian.sh"
PATH=$PATH:/usr/sbin:/sbin

has() { command -v "$1" >/dev/null; }

install_docker() {
    [ "$(id -u)" = 0 ] && [ ! -d /run/systemd/system ] || return 1
    has dockerd || install_debian docker.io 'the tests of the Docker engine' || return 1
    has docker || install_debian docker-cli 'the tests of the Docker engine' || return 1  # a package of its own since Debian 13
    has debootstrap || install_debian debootstrap 'the images of these tests' || return 1
    has ip || install_debian iproute2 'the network of these tests'
}

if [ "$(id -u)" = 0 ]; then
    { has dockerd && has docker && has debootstrap && has ip; } || install_docker ||
        echo 'The tests of the Docker engine need docker.io, debootstrap and iproute2: install them (Debian).' >&2
else
    has docker || echo 'The tests of the Docker engine need Docker: install it, and start it.' >&2
fi
