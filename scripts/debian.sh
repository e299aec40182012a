# Sourced by the scripts that look for a program that some tests need.
# install_debian PACKAGE PURPOSE: install it, if this is Debian and this user may; else fail.
install_debian() {
    command -v apt-get >/dev/null || return 1
    if [ "$(id -u)" = 0 ]; then
        as_root=
    elif sudo -n true 2>/dev/null; then
        as_root='sudo -n'
    else
        return 1
    fi
    echo "Installing $1 for $2 (once; about a minute)"
    $as_root apt-get update --quiet=2 &&
        $as_root env DEBIAN_FRONTEND=noninteractive \
            apt-get install --quiet=2 --yes --no-install-recommends "$1" >/dev/null
}
